package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

var faults = []fault{refused, lostAnswer, lostRequest, killBefore, killAfter}

// afterwards checks what a run must find and leave, whatever happened to the one before it.
func (w *world) afterwards(t tb, r *trace.Run) {
	t.Helper()
	var doubt, reported []string
	for _, s := range w.steps() {
		switch s.State {
		case action.Reserved, action.Begun:
			t.Errorf("%s is %s and nobody is at it", s.ID, s.State)
		case action.InDoubt:
			doubt = append(doubt, s.ID)
		}
		if s.State == action.NotStarted && w.effects[s.Key] > 0 {
			t.Errorf("%s was done, and its record says that it never started", s.ID)
		}
		if s.State.Done() && s.Resolved == nil && w.effects[s.Key] == 0 {
			t.Errorf("%s was not done, and its record says %s", s.ID, s.State)
		}
	}
	for _, d := range r.InDoubt {
		reported = append(reported, d.Step)
	}
	slices.Sort(doubt)
	slices.Sort(reported)
	if !slices.Equal(doubt, reported) {
		t.Errorf("in doubt %q, reported %q", doubt, reported)
	}
	if len(doubt) > 0 && r.Exit != problem.ExitRefused && r.Exit != problem.ExitFailed {
		t.Errorf("in doubt, exit %d", r.Exit)
	}
	for key := range w.effects {
		if !slices.ContainsFunc(w.steps(), func(s *action.Step) bool { return s.Key == key && s.State.Began() }) {
			t.Errorf("there was an effect without a record")
		}
	}
}

// The store fails, or the process dies, at each transaction of a run, also of one that judges, probes and cleans up what an earlier one did: there is
// no effect after a commit that failed, none twice, and the next run brings all records to an end.
func TestTheStoreFailsAtEachTransaction(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		runbook string
		earlier func(*world)
	}{
		"first": {twoSteps, func(w *world) { w.sick("w3") }},
		"judging": {twoSteps, func(w *world) {
			w.sick("w3")
			w.tick()
			w.sick("w3")
			w.pass(15 * time.Minute)
		}},
		"probing and cleaning up": {drained, func(w *world) {
			w.sick("w3")
			w.killAt("acting", 1)
			w.sick("w3")
			w.pass(15 * time.Minute)
		}},
	} {
		start := func() *proc {
			w := newWorld(t, map[string]string{"a.star": c.runbook})
			c.earlier(w)
			p := w.process()
			p.host.probe = func(context.Context) (pluginhost.ProbeResult, error) {
				return pluginhost.ProbeResult{State: action.ResolvedDone}, nil
			}
			return p
		}
		whole := start()
		if _, err := whole.run(); err != nil {
			t.Fatal(err)
		}
		if whole.st.n < 12 {
			t.Fatalf("%s: only %d transactions", name, whole.st.n)
		}
		for _, f := range faults {
			for n := 1; n <= whole.st.n; n++ {
				t.Run(fmt.Sprintf("%s/%s %d", name, f, n), func(t *testing.T) {
					t.Parallel()
					p := start()
					p.st.at[n] = f
					failing(t, p)
				})
			}
		}
	}
}

// failing is a run one of whose transactions goes wrong, and the one after it.
func failing(t *testing.T, p *proc) {
	t.Helper()
	w, before := p.w, len(p.w.effects)
	r, err := p.run()
	if r == nil || err == nil && r.Exit == problem.ExitOK && !p.isDead() {
		t.Errorf("the run did not notice: %v", err)
	}
	said := r != nil && (len(r.Problems) > 0 || slices.ContainsFunc(r.Cleanups, func(c *trace.Cleanup) bool { return c.Evaluation.Problem != nil }))
	if err == nil && !p.isDead() && r.Exit != problem.ExitOK && !said && r.Runbooks[0].Problem == nil && evaluationOf(t, r, "w3").Problem == nil {
		t.Errorf("exit %d and no word of why", r.Exit)
	}
	done := len(w.effects) - before
	w.pass(15 * time.Second)
	next := w.tick()
	w.afterwards(t, next)
	for _, x := range w.status().Open {
		if x.State == action.Open {
			t.Errorf("attempt %s is still open", x.ID)
		}
	}
	if p.isDead() {
		return
	}
	if doubts := len(next.InDoubt); done == 0 && doubts > 1 {
		t.Errorf("%d in doubt", doubts)
	}
}

// A store that is held by another process for longer than it waits, once an action has begun: what is known of it is recorded nevertheless.
func TestTheStoreIsBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	p.hook = func(point string) {
		if point == "acting" || point == "finished" {
			p.st.at[p.st.n+1], p.st.at[p.st.n+2] = busy, busy
		}
	}
	r, err := p.run()
	if err != nil || r.Exit != problem.ExitOK || evaluationOf(t, r, "w3").State != action.Complete {
		t.Errorf("%v, exit %d, %+v", err, r.Exit, evaluationOf(t, r, "w3"))
	}
}

// life is a world in which anything may happen, in whatever order.
type life struct {
	*world
	t    *rapid.T
	left Expected // by the last run
}

var behaviours = map[string]behaviour{
	"ok": {}, "no change": {state: action.NoChange}, "failed": {state: action.Failed}, "gone": {execute: errPlugin}, "dead": {started: errPlugin},
	"no acting": {proceed: errPlugin}, "silent": {proceed: errPlugin, silent: true}, "unknown": {wait: errPlugin}, "deaf": {decline: errPlugin},
}

func (l *life) drawBehaviour(label string) *behaviour {
	// Mostly well, so that long histories are reached.
	names := []string{"ok", "ok", "ok", "no change", "failed", "gone", "dead", "no acting", "silent", "unknown", "deaf"}
	b := behaviours[rapid.SampledFrom(names).Draw(l.t, label)]
	return &b
}

// run is one run in which a plugin, the store, a signal, a halt or a kill may come in between.
func (l *life) run() {
	p := l.process()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.ctx = ctx
	steps := []*behaviour{l.drawBehaviour("first"), l.drawBehaviour("second"), l.drawBehaviour("third")}
	p.host.behave = func(pluginhost.Execute) *behaviour { return steps[min(len(p.host.done), len(steps))-1] }
	if rapid.IntRange(0, 2).Draw(l.t, "fault") == 0 {
		p.st.at[rapid.IntRange(1, 16).Draw(l.t, "transaction")] = rapid.SampledFrom(faults).Draw(l.t, "kind")
	}
	moment := rapid.SampledFrom([]string{"", "", "", "reserved", "begun", "acting", "finished"}).Draw(l.t, "moment")
	what := rapid.SampledFrom([]string{"kill", "signal", "halt", "time"}).Draw(l.t, "event")
	p.hook = func(point string) {
		if point != moment {
			return
		}
		switch what {
		case "kill":
			p.kill()
		case "signal":
			cancel()
		case "halt":
			l.halt()
		case "time":
			l.up += time.Minute
			l.now = l.now.Add(time.Minute)
		}
	}
	if rapid.Bool().Draw(l.t, "expected") {
		p.opts.Expected = l.left
	}
	r, err := p.run()
	if r == nil {
		l.t.Fatalf("no trace: %v", err)
	}
	l.left = ExpectAfter(r)
	l.t.Logf("run %s: exit %d, %v, steps %s", r.ID, r.Exit, err, l.states())
}

// halt asks again, as a person would, if it is told that a disk of this busy machine did not answer in time.
func (l *life) halt() {
	var err error
	for range 30 {
		var p *problem.Problem
		if err = l.state.Halt(context.Background(), control.HaltRequest{Reason: "fire", By: "ann"}); !errors.As(err, &p) || p.Code != problem.HaltUnsure {
			break
		}
	}
	if err != nil {
		l.t.Errorf("%v", err)
	}
}

func (l *life) resolve() {
	for _, s := range l.steps() {
		if s.State != action.InDoubt {
			continue
		}
		to := rapid.SampledFrom([]action.StepState{action.ResolvedDone, action.ResolvedNotDone, action.Abandoned}).Draw(l.t, "as")
		_, a, err := ledger.Resolve(context.Background(), l.store, l.sample, s, action.Event{To: to, By: action.ByPerson, Nonce: s.Nonce, Why: "looked", Person: "ann"})
		if err != nil {
			l.t.Fatalf("resolve: %v", err)
		}
		if to == action.Abandoned && a.State == action.Interrupted && rapid.Bool().Draw(l.t, "close") {
			if _, err := ledger.CloseAttempt(context.Background(), l.store, l.sample, a.ID, "ann", "put right"); err != nil {
				l.t.Fatalf("close: %v", err)
			}
		}
		return
	}
}

// Whatever happens to runs, plugins, the store, the clock and the halt: the fake plugins check at each effect that its record says BEGUN,
// that it is the first for that record, and that nothing is halted, in doubt or cooling; and each clean run leaves nothing open that
// nobody is at, and reports everything in doubt.
func TestAnythingHappens(test *testing.T) {
	test.Parallel()
	rapid.Check(test, func(t *rapid.T) {
		w := newWorldIn(t, test.TempDir(), projectText, map[string]string{"a.star": twoSteps})
		defer func() { _ = w.tree.Close() }()
		l := &life{world: w, t: t}
		l.sick("w3")
		for range rapid.IntRange(1, 8).Draw(t, "events") {
			switch rapid.SampledFrom([]string{"run", "run", "run", "run", "wait", "wait", "well", "sick", "halt", "resume", "resolve", "jump"}).Draw(t, "event") {
			case "run":
				l.run()
			case "wait":
				l.pass(time.Duration(rapid.IntRange(15, 900).Draw(t, "seconds")) * time.Second)
			case "well":
				l.depth["w3"] = 5
				l.pass(time.Minute)
			case "sick":
				l.sick("w3")
			case "halt":
				l.halt()
			case "resume":
				if err := l.state.Resume(context.Background(), "out", "ann"); err != nil && !errors.As(err, new(*problem.Problem)) {
					t.Fatal(err)
				}
			case "resolve":
				l.resolve()
			case "jump":
				// The wall clock alone is set forward: what must rest rests all the same.
				l.now = l.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "minutes")) * time.Minute)
				l.pass(time.Minute)
			}
			l.pass(15 * time.Second)
		}
		l.afterwards(t, l.tick())
	})
}
