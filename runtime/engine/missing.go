package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// missingWithin is how long a target that has gone is remembered as missing.
const missingWithin = 15 * time.Minute

// before is the question for the members that a fleet had lately, which is asked beside others.
type before struct {
	query   *trace.Query
	done    chan struct{} // closed when the rest is set
	members []kit.Sample
	err     error
}

func (e *engine) askBefore(ctx context.Context, rb *project.Runbook) *before {
	at := e.run.Started
	b := &before{query: &trace.Query{Function: "fleet before", At: at}, done: make(chan struct{})}
	b.query.Expr = fmt.Sprintf("count_over_time((%s)[%s:%s])", rb.Targets.All, value.FormatDuration(missingWithin), value.FormatDuration(e.Settings.Sampling))
	go func() {
		defer close(b.done)
		b.members, b.err = e.source.instant(ctx, b.query.Expr, at, b.query)
	}()
	return b
}

// wait waits for the answer, which comes or fails within the time that a question may take.
func (b *before) wait() { <-b.done }

// missing are the keys of members that were there within missingWithin and are gone.
func (e *engine) missing(ctx context.Context, rb *project.Runbook, all []action.Target, tr *trace.Runbook, asked *before) ([]string, error) {
	asked.wait()
	tr.Queries = append(tr.Queries, asked.query)
	if asked.err != nil {
		return nil, fmt.Errorf("ask for the fleet before: %w", asked.err)
	}
	var gone []string
	known, deployed := make(map[string]bool, len(all)), map[string]bool{}
	for _, t := range all {
		known[t.Key] = true
	}
	label := rb.Policy.WithDefaults().Component
	for _, s := range asked.members {
		key, err := rb.Key(s.Labels)
		if err != nil {
			return nil, err
		}
		if !known[key] {
			known[key] = true
			t, err := rb.Target(s.Labels)
			if err != nil {
				return nil, err
			}
			// A rollout that replaces every pod is not a storm.
			component := s.Labels[label]
			if _, asked := deployed[component]; !asked {
				if deployed[component], err = e.deployed(ctx, component); err != nil {
					return nil, err
				}
			}
			if deployed[component] {
				tr.Targets = append(tr.Targets, &trace.Target{Key: t.Key, Name: t.Name, Labels: t.Labels, Condition: trace.Missing, Why: "is gone, and its component was deployed: not counted"})
				continue
			}
			gone = append(gone, t.Key)
			tr.Fleet.Missing++
			tr.Targets = append(tr.Targets, &trace.Target{Key: t.Key, Name: t.Name, Labels: t.Labels, Condition: trace.Missing, Why: "was there within " + value.FormatDuration(missingWithin) + " and is gone"})
		}
	}
	return gone, nil
}

// deployed says whether a deploy of the component is going on, or ended not longer ago than a target that has gone is remembered.
func (e *engine) deployed(ctx context.Context, component string) (yes bool, err error) {
	if component == "" {
		return false, nil
	}
	err = e.Store.View(ctx, []string{ledger.KeyDeploys}, func(tx store.ReadTx) error {
		d, err := ledger.LastDeploy(tx, component, e.wall())
		yes = d != nil && (d.Going || e.wall().Sub(d.EndedAt) < missingWithin)
		return err
	})
	return yes, err
}
