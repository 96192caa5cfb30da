package engine

import (
	"context"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Expected is what a run needed beside its metric source. What was sick is mostly sick a minute later, so the next run starts it at once, beside its
// own start. A wrong guess costs a process that is told nothing but its configuration, and changes nothing else: all that a run decides, it
// decides as it would without.
type Expected struct {
	Runbook     string    `json:"runbook,omitempty"`     // the path of the first one that was evaluated
	Connections []string  `json:"connections,omitempty"` // by which it acted, by name
	Started     time.Time `json:"started,omitzero"`      // when it started: zero if there was none
}

// ExpectAfter is what a run needed.
func ExpectAfter(r *trace.Run) Expected {
	x := Expected{Started: r.Started}
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Evaluation == nil {
				continue
			}
			if x.Runbook == "" && t.Evaluation.Steps > 0 {
				x.Runbook = rb.Path
			}
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
	if !e.expects() {
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
	if path := e.Expected.Runbook; slices.Contains(e.Paths, path) {
		w, err := e.Spawn(ctx)
		if err != nil {
			return // the evaluation meets the same, and says so
		}
		l.ahead, l.of = w, path
		warm(ctx, w, path, l.vocab, e.files)
	}
}

// warm starts the process of a worker now, and lets it load its runbook, if it is one that starts when it is needed.
func warm(ctx context.Context, w sandbox.Worker, path string, vocab sandbox.Vocabulary, src sandbox.Source) {
	if s, ok := w.(sandbox.Warmer); ok {
		s.Warm(ctx, path, vocab, src)
	}
}

// expects says whether anything is begun ahead.
func (e *engine) expects() bool { return !e.dry && len(e.run.Halt) == 0 }

// askAhead asks what a runbook asks if it is due, beside the recovery and before it is known whether it is; nil if that is not likely. All is asked as of the
// start of the run, as it would be later. What Alertmanagers say is as of now, and is not asked ahead.
func (e *engine) askAhead(ctx context.Context, l *loading, rb *project.Runbook) <-chan *sight {
	last := e.Expected.Started
	if !e.expects() || last.IsZero() || e.Target != "" || rb.Alert != nil || rb.Manual || slotOf(last, rb) == slotOf(e.run.Started, rb) {
		return nil
	}
	answer := make(chan *sight, 1)
	l.asking.Go(func() {
		l.turns <- struct{}{}
		answer <- e.ask(ctx, rb)
		<-l.turns
	})
	return answer
}

// sightOf is what was asked ahead, or else is asked now.
func (e *engine) sightOf(ctx context.Context, d dueRunbook) *sight {
	if d.asked != nil {
		return <-d.asked
	}
	return e.ask(ctx, d.runbook)
}
