package engine

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func (w *world) disable(d control.Disable) {
	w.t.Helper()
	if _, err := ledger.Disable(context.Background(), w.store, w.sample, d); err != nil {
		w.t.Fatalf("%v", err)
	}
}

// A disable keeps a target from being acted on, and in the middle of an attempt the next step; that is an interruption, and no failure.
func TestDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": twoSteps})
	w.disable(control.Disable{Name: "d", Selector: control.Selector{Labels: map[string]string{"job": "worker"}}, Reason: "migration", By: "ann", Until: w.now.Add(5 * time.Minute)})
	w.sick("w3")
	r := w.tick()
	if got := refusals(evaluationOf(t, r, "w3")); !slices.Contains(got, "disabled") || len(w.effects) != 0 {
		t.Fatalf("refused by %q", got)
	}
	if len(w.told) != 0 {
		t.Errorf("whoever disabled it knows, and somebody was told %q", w.reasons())
	}
	w.pass(10 * time.Minute)
	p := w.process()
	finished := 0
	p.hook = func(point string) {
		if finished++; point == "finished" && finished < 5 {
			w.disable(control.Disable{Name: "e", Selector: control.Selector{Runbook: "a"}, Reason: "it is wrong", By: "bob"})
		}
	}
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	ev := evaluationOf(t, r, "w3")
	if got := refusals(ev); !slices.Equal(got, []string{"disabled"}) || len(w.effects) != 1 {
		t.Errorf("refused by %q, %d effects", got, len(w.effects))
	}
	a := w.attempt(w.steps()[0])
	if !slices.ContainsFunc(a.History, func(c action.Change) bool { return c.To == string(action.Interrupted) }) {
		t.Errorf("%+v", a.History)
	}
	if len(w.told) != 1 {
		t.Errorf("an attempt that was stopped half way: told %q", w.reasons())
	}
}

// Where tests are attested, what they do not cover is not done; elsewhere nothing stops acting.
func TestCoverage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	w.coverage = func(rb *project.Runbook, way []trace.Event) guard.Coverage {
		return guard.Coverage{Enforced: true, Missing: rb.Path + ":9:5"}
	}
	if got := refusals(evaluationOf(t, w.tick(), "w3")); !slices.Equal(got, []string{"tested"}) || len(w.effects) != 0 {
		t.Errorf("refused by %q", got)
	}
	w.coverage = nil
	w.pass(15 * time.Second)
	if ev := evaluationOf(t, w.tick(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("%+v", ev)
	}
}
