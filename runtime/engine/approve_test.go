package engine

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func (w *world) waiting() []guard.Approval {
	w.t.Helper()
	all, _, err := ledger.Waiting(context.Background(), w.store, w.sample)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return all
}

func (w *world) respond(id string, a guard.Answer) error {
	_, err := ledger.Respond(context.Background(), w.store, w.sample, id, a, "ann@db1(pts/1)", "why", false)
	return err
}

// act evaluates a.star for w3 as an approval does.
func (w *world) approved(id string) *trace.Run {
	w.t.Helper()
	p := w.process()
	p.opts.Target, p.opts.Approval = "w3", id
	r, err := p.run()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return r
}

var asking = strings.Replace(twoSteps, `mode     = "auto"`, `mode     = "approve"`, 1)

// A request shows every step, acts on nothing, is told once, is approved once, covers one attempt, and the next attempt asks again.
func TestApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": asking})
	w.sick("w3")
	r := w.tick()
	ev := evaluationOf(t, r, "w3")
	got := w.waiting()
	if ev.Outcome != trace.Refused || r.Exit != problem.ExitRefused || len(w.effects) != 0 || len(got) != 1 || len(got[0].Steps) != 3 || got[0].Steps[0].Action != "svc.drain" {
		t.Fatalf("exit %d, %+v, %d effects, waiting %+v", r.Exit, ev, len(w.effects), got)
	}
	if !strings.Contains(ev.Reason, got[0].ID) || !slices.Equal(w.reasons(), []string{"waits for approval"}) || !strings.Contains(w.told[0].Text, "then svc.restart") {
		t.Errorf("%s; told %+v", ev.Reason, w.told)
	}
	w.pass(15 * time.Second)
	w.tick()
	if again := w.waiting(); len(again) != 1 || again[0].ID != got[0].ID || len(w.told) != 1 {
		t.Errorf("asked again: %+v, told %q", again, w.reasons())
	}
	if err := w.respond(got[0].ID, guard.Approved); err != nil {
		t.Fatal(err)
	}
	if err := w.respond(got[0].ID, guard.Approved); err == nil {
		t.Error("approved twice")
	}
	r = w.approved(got[0].ID)
	if ev := evaluationOf(t, r, "w3"); ev.Outcome != trace.Acted || len(w.effects) != 3 || r.Trigger != "approval "+got[0].ID {
		t.Fatalf("%+v, %d effects", ev, len(w.effects))
	}
	if left := w.waiting(); len(left) != 0 {
		t.Errorf("it was not used up: %+v", left)
	}
	w.pass(15 * time.Minute)
	w.tick()
	w.pass(15 * time.Second)
	w.tick()
	if next := w.waiting(); len(next) != 1 || next[0].ID == got[0].ID || len(w.effects) != 3 {
		t.Errorf("the next attempt: %+v, %d effects", next, len(w.effects))
	}
}

// What is approved is exactly what was asked, for 30 minutes, and every other guard is judged afresh.
func TestApprovalIsBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, w *world)
		refuse []string
	}{
		{"expires to no", func(t *testing.T, w *world) { t.Helper(); w.pass(30 * time.Minute) }, []string{"mode"}},
		{"other arguments", func(t *testing.T, w *world) {
			t.Helper()
			newWorldFile(t, w, "a.star", strings.Replace(asking, `drain("x"`, `drain("y"`, 1))
		}, []string{"mode"}},
		{"another source", func(t *testing.T, w *world) { t.Helper(); newWorldFile(t, w, "a.star", asking+"\n# changed\n") }, []string{"mode"}},
		{"halted", func(t *testing.T, w *world) {
			t.Helper()
			w.halt()
		}, []string{"halt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": asking})
			w.sick("w3")
			w.tick()
			id := w.waiting()[0].ID
			if err := w.respond(id, guard.Approved); err != nil {
				t.Fatal(err)
			}
			c.change(t, w)
			ev := evaluationOf(t, w.approved(id), "w3")
			if len(w.effects) != 0 {
				t.Fatalf("%+v: %d effects", ev, len(w.effects))
			}
			first := slices.IndexFunc(ev.Events, func(x trace.Event) bool { return x.Action != nil })
			var got []string
			for _, v := range guard.Refused(ev.Events[first].Action.Verdicts) {
				got = append(got, v.Guard)
			}
			if !slices.Equal(got, c.refuse) {
				t.Errorf("refused by %q", got)
			}
		})
	}
}

// A no holds while the problem lasts.
func TestDecline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": asking})
	w.sick("w3")
	w.tick()
	if err := w.respond(w.waiting()[0].ID, guard.Declined); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		w.pass(20 * time.Minute)
		w.tick()
	}
	if len(w.waiting()) != 0 || len(w.effects) != 0 || len(w.told) != 1 {
		t.Errorf("waiting %+v, %d effects, told %q", w.waiting(), len(w.effects), w.reasons())
	}
}

// What recommends tells all that it would do; a shadow disturbs nobody.
func TestRecommend(t *testing.T) {
	t.Parallel()
	for mode, told := range map[string][]string{"recommend": {"recommended"}, "shadow": nil} {
		w := newWorld(t, map[string]string{"a.star": strings.Replace(asking, `"approve"`, `"`+mode+`"`, 1)})
		w.sick("w3")
		w.tick()
		if len(w.effects) != 0 || len(w.waiting()) != 0 || !slices.Equal(w.reasons(), told) {
			t.Errorf("%s: %d effects, told %q", mode, len(w.effects), w.reasons())
		}
		if told != nil && (!strings.Contains(w.told[0].Text, `recommends svc.drain`) || strings.Count(w.told[0].Text, "\nthen ") != 2) {
			t.Error(w.told[0].Text)
		}
	}
}
