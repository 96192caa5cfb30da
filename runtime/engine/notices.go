package engine

import (
	"context"
	"fmt"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// notices puts what people must be told of this run's own problems, and of every action in doubt, into the outbox. Problems of one
// evaluation were put there with its records.
func (e *engine) notices(ctx context.Context) error {
	for _, rb := range e.run.Runbooks {
		if rb.Problem != nil && e.calls(rb.Problem) {
			if err := e.tell(ctx, e.notice(rb.Name, rb.Owner, rb.Problem)); err != nil {
				return err
			}
		}
	}
	for _, p := range e.run.Problems {
		if e.calls(p) {
			if err := e.tell(ctx, e.notice("", "", p)); err != nil {
				return err
			}
		}
	}
	if err := e.tellBreaker(ctx); err != nil {
		return err
	}
	for _, d := range e.doubtful {
		// Each run again, so that there are reminders until somebody resolves it.
		n := notify.Notice{
			Runbook: d.Runbook, Target: d.Target, Episode: d.Episode, Owner: d.Notify, Run: e.run.ID, At: e.wall(), Kind: notify.Escalation, Reason: doubtReason(d.ID),
			Text: fmt.Sprintf("%s on %s began at %s and its outcome is unknown\nlook at %s, then type: runbook resolve %s --nonce %s --as done|not-done|abandoned --reason \"...\"",
				d.Action, d.Target, d.Since.Wall.UTC().Format("2006-01-02 15:04:05Z"), d.Target, d.ID, d.Nonce),
		}
		if err := e.tell(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// tellBreaker tells people of every change of the breaker, each once.
func (e *engine) tellBreaker(ctx context.Context) error {
	if len(e.broken.Untold()) == 0 {
		return nil
	}
	var all []notify.Notice
	keys := []string{ledger.KeyClock, ledger.KeyBreaker}
	for _, c := range e.broken.Untold() {
		n := notify.Notice{
			Kind: notify.Escalation, Episode: fmt.Sprintf("breaker change %d", c.Seq), Reason: "breaker " + c.To, Run: e.run.ID, At: c.At,
			Text: fmt.Sprintf("the global breaker is %s since %s: %s", c.To, c.At.UTC().Format("2006-01-02 15:04:05Z"), c.Why),
		}
		switch c.To {
		case string(breaker.Open):
			n.Text += "\nno runbook acts; find out what is wrong, then: runbook breaker reset --reason \"why it is safe\""
		case breaker.Widespread:
			n.Text += "\nno runbook acts until fewer are sick or unknown; look for what they have in common"
		default:
			n.Kind = notify.Info
		}
		if c.By != "" {
			n.Text += " (by " + c.By + ")"
		}
		all = append(all, n)
		keys = append(keys, notify.Keys(n)...)
	}
	seq := e.broken.Seq
	return e.Store.Update(ctx, keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		for _, n := range all {
			if err := notify.Put(tx, n, now.Wall); err != nil {
				return err
			}
		}
		_, err = ledger.TellBreaker(tx, now, breaker.ToldOf{Seq: seq})
		return err
	})
}

// deliver sends what waits in the outbox, also from earlier runs.
func (e *engine) deliver(ctx context.Context) error {
	return notify.Deliver(ctx, e.Store, e.Sinks, e.wall())
}

// calls says whether anybody is called because of a problem of the run. Not if whoever caused it sees it: they mistyped a name, asked for
// what is being done already, or ended the run.
func (e *engine) calls(p *problem.Problem) bool {
	return p.Code != problem.NotFound && p.Code != problem.Interrupted && (e.Target == "" || p.Code != problem.Refused)
}

func (e *engine) notice(runbook, owner string, p *problem.Problem) notify.Notice {
	n := notify.Notice{Runbook: runbook, Owner: owner, Run: e.run.ID, At: e.wall(), Kind: notify.Escalation, Reason: string(p.Code), Text: told(p)}
	if p.Code == problem.MetricsSource {
		n.Kind, n.Source = notify.Source, e.Settings.Metrics.Name
	}
	return n
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
