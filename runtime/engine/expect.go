package engine

import (
	"context"
	"slices"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Expected is what a run needed beside its metric source. What was sick is mostly sick a minute later, so the next run starts it at once, beside its
// own start. A wrong guess costs a process that is told nothing but its configuration, and changes nothing else: all that a run decides, it
// decides as it would without.
type Expected struct {
	Worker      bool     `json:"worker,omitempty"`      // a runbook was evaluated
	Connections []string `json:"connections,omitempty"` // by which it acted, by name
}

// ExpectAfter is what a run needed.
func ExpectAfter(r *trace.Run) Expected {
	var x Expected
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Evaluation == nil {
				continue
			}
			x.Worker = x.Worker || t.Evaluation.Steps > 0
			for _, ev := range t.Evaluation.Events {
				if ev.Action != nil && ev.Action.State.Began() {
					x.Connections = append(x.Connections, ev.Action.Connection)
				}
			}
		}
	}
	slices.Sort(x.Connections)
	x.Connections = slices.Compact(x.Connections)
	return x
}

// startExpected starts it. The first connections alone: it is a guess.
func (e *engine) startExpected(ctx context.Context, l *loading) {
	const most = 4
	if e.dry || len(e.run.Halt) > 0 {
		return
	}
	for _, c := range e.Settings.Connections {
		if !slices.Contains(e.Expected.Connections[:min(most, len(e.Expected.Connections))], c.Name) {
			continue
		}
		if r, err := e.connection(c); err == nil { // what is wrong with it is told by the call that needs it
			e.prestart(r)
		}
	}
	if e.Expected.Worker {
		if l.fresh = l.take(); l.fresh == nil {
			l.fresh, _ = e.Spawn(ctx) // the evaluation meets the same, and says so
		}
		warm(ctx, l.fresh)
	}
}

// warm starts the process of a worker now, if it is one that starts when it is needed.
func warm(ctx context.Context, w sandbox.Worker) {
	if s, ok := w.(sandbox.Warmer); ok {
		s.Warm(ctx)
	}
}
