package engine

import (
	"context"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// notices puts what people must be told of this run's own problems into the outbox and delivers what waits there, also from
// earlier runs. Problems of one evaluation were put there with its records.
func (e *engine) notices(ctx context.Context) error {
	for _, rb := range e.run.Runbooks {
		if rb.Problem == nil {
			continue
		}
		n := notify.Notice{
			Runbook: rb.Name, Owner: rb.Owner, Run: e.run.ID, At: e.wall(), Kind: notify.Escalation,
			Reason: string(rb.Problem.Code), Text: told(rb.Problem),
		}
		if rb.Problem.Code == problem.MetricsSource {
			n.Kind, n.Source = notify.Source, e.Settings.Metrics.Name
		}
		if err := e.tell(ctx, n); err != nil {
			return err
		}
	}
	for _, p := range e.run.Problems {
		if p.Code == problem.NotFound {
			continue // who typed it is told, nobody is called
		}
		n := notify.Notice{Run: e.run.ID, At: e.wall(), Kind: notify.Escalation, Reason: string(p.Code), Text: told(p)}
		if p.Code == problem.MetricsSource {
			n.Kind, n.Source = notify.Source, e.Settings.Metrics.Name
		}
		if err := e.tell(ctx, n); err != nil {
			return err
		}
	}
	return notify.Deliver(ctx, e.Store, e.Sinks, e.wall())
}

func (e *engine) tell(ctx context.Context, n notify.Notice) error {
	return e.Store.Update(ctx, notify.Keys(n), func(tx store.Tx) error { return notify.Put(tx, n, e.wall()) })
}

func told(p *problem.Problem) string {
	text := p.Error()
	if p.Hint != "" {
		text += "\n" + p.Hint
	}
	return text
}
