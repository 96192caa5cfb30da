package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// drained takes a worker out of service, restarts it and puts it back; its cleanup puts it back if it was taken out.
const drained = header + `def run(ctx):
    ctx.svc.drain("out", reason = "stuck", timeout = "20s", within = "2m")
    ctx.svc.restart("x", reason = "stuck", timeout = "20s", within = "2m")
    ctx.svc.drain("in", reason = "stuck", timeout = "20s", within = "2m")

def cleanup(ctx):
    out = [s for s in ctx.steps if s.action == "svc.drain" and s.args["name"] == "out" and s.ok]
    if out:
        ctx.svc.drain("in", reason = "put it back", timeout = "20s")
`

// at gives the n-th action of a process a behaviour.
func (p *proc) behaveAt(n int, b behaviour) {
	p.host.behave = func(pluginhost.Execute) *behaviour {
		if len(p.host.done) == n {
			return &b
		}
		return &behaviour{}
	}
}

func (w *world) only(t *testing.T) *action.Attempt {
	t.Helper()
	return w.attempt(w.steps()[0])
}

func mustRun(t *testing.T, p *proc) *trace.Run {
	t.Helper()
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantSteps(t *testing.T, w *world, attempt action.AttemptState, cleanup action.CleanupState, states ...action.StepState) {
	t.Helper()
	a := w.only(t)
	if got := w.states(); !slices.Equal(got, states) || a.State != attempt || a.Cleanup == nil || a.Cleanup.State != cleanup {
		t.Fatalf("steps %s, attempt %s, cleanup %+v; want %s, %s, %s", got, a.State, a.Cleanup, states, attempt, cleanup)
	}
	for _, s := range w.steps() {
		if s.Cleanup != (s.Reason == "put it back") {
			t.Errorf("step %s (%s): cleanup %v", s.ID, s.Reason, s.Cleanup)
		}
	}
}

const (
	ok     = action.Succeeded
	failed = action.Failed
)

func TestCleanupAtOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		first   int // the action that goes wrong, and how
		b       behaviour
		attempt action.AttemptState
		cleanup action.CleanupState
		states  []action.StepState
	}{
		{"all well", 9, behaviour{}, action.Complete, action.CleanupWaits, []action.StepState{ok, ok, ok}},
		{"the second fails", 2, behaviour{state: failed}, action.Closed, action.CleanupDone, []action.StepState{ok, failed, ok}},
		{"the first fails: there is nothing to put back", 1, behaviour{state: failed}, action.Closed, action.CleanupDone, []action.StepState{failed}},
		{"nothing began", 1, behaviour{execute: errPlugin}, action.Closed, action.CleanupWaits, []action.StepState{action.NotStarted}},
		{"in doubt: nobody knows what to put back", 2, behaviour{wait: errPlugin}, action.Interrupted, action.CleanupWaits, []action.StepState{ok, action.InDoubt}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": drained})
			w.sick("w3")
			p := w.process()
			p.behaveAt(c.first, c.b)
			r := mustRun(t, p)
			wantSteps(t, w, c.attempt, c.cleanup, c.states...)
			if (len(r.Cleanups) == 1) != (c.cleanup == action.CleanupDone) {
				t.Errorf("the run tells of %d cleanups", len(r.Cleanups))
			}
			if _, err := trace.Encode(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// A cleanup that does not end well keeps the target, whatever runs come, until a person has put it right.
func TestFailedCleanup(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]behaviour{"fails": {state: failed}, "is in doubt": {wait: errPlugin}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": drained})
			w.sick("w3")
			p := w.process()
			p.host.behave = func(pluginhost.Execute) *behaviour {
				return &[]behaviour{{}, {state: failed}, b}[len(p.host.done)-1]
			}
			r := mustRun(t, p)
			last := map[string]action.StepState{"fails": failed, "is in doubt": action.InDoubt}[name]
			wantSteps(t, w, action.AttemptFailed, action.CleanupFailed, ok, failed, last)
			if r.Exit == problem.ExitOK {
				t.Errorf("exit %d", r.Exit)
			}
			for range 3 {
				w.pass(2 * time.Hour)
				w.tick()
			}
			wantSteps(t, w, action.AttemptFailed, action.CleanupFailed, ok, failed, last)
			if !slices.ContainsFunc(w.told, func(m notify.Message) bool {
				return strings.Contains(m.Text, "--as closed") || strings.Contains(m.Text, "runbook resolve")
			}) {
				t.Errorf("nobody was told what to do: %+v", w.told)
			}
			a := w.only(t)
			if last == action.InDoubt {
				s := w.steps()[2]
				if _, _, err := ledger.Resolve(t.Context(), w.store, w.sample, s, action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: s.Nonce, Person: "me", Why: "looked"}); err != nil {
					t.Fatal(err)
				}
			}
			if a, err := ledger.CloseAttempt(t.Context(), w.store, w.sample, a.ID, "me", "put back by hand"); err != nil || a.State != action.Closed {
				t.Fatalf("%v, %v", a, err)
			}
		})
	}
}

// Killed between any two moments, the next run cleans up by the files that there were, or leaves it to a person; nothing is done twice.
func TestCleanupAfterAKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at      string
		n       int
		attempt action.AttemptState
		cleanup action.CleanupState
		states  []action.StepState
	}{
		{"reserved", 1, action.Closed, action.CleanupWaits, []action.StepState{action.NotStarted}},
		{"reserved", 2, action.Closed, action.CleanupDone, []action.StepState{ok, action.NotStarted, ok}},
		{"begun", 2, action.Interrupted, action.CleanupWaits, []action.StepState{ok, action.InDoubt}},
		{"acting", 2, action.Interrupted, action.CleanupWaits, []action.StepState{ok, action.InDoubt}},
		{"reserved", 3, action.Closed, action.CleanupDone, []action.StepState{ok, ok, action.NotStarted, ok}},
	} {
		t.Run(c.at+" "+string(rune('0'+c.n)), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": drained})
			w.sick("w3")
			w.killAt(c.at, c.n)
			// What the project has become meanwhile does not matter.
			if err := os.WriteFile(filepath.Join(w.settings.Root, "a.star"), []byte(strings.Split(drained, "def run")[0]+"def run(ctx):\n    pass\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			r := w.tick()
			wantSteps(t, w, c.attempt, c.cleanup, c.states...)
			w.pass(time.Minute)
			w.tick()
			wantSteps(t, w, c.attempt, c.cleanup, c.states...)
			if c.cleanup == action.CleanupDone && (len(r.Cleanups) != 1 || r.Cleanups[0].Evaluation.Outcome != trace.Acted) {
				t.Errorf("the run tells of %+v", r.Cleanups)
			}
		})
	}
}

// killAt runs once, in a process that is killed at a moment of its n-th action.
func (w *world) killAt(at string, n int) {
	p := w.process()
	seen := 0
	p.hook = func(point string) {
		if point != at {
			return
		}
		if seen++; seen == n {
			p.kill()
		}
	}
	_, _ = p.run()
}

// Killed in the middle of the cleanup: before it acted the next run does it, after that a person.
func TestKilledInTheCleanup(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]struct {
		attempt action.AttemptState
		cleanup action.CleanupState
		states  []action.StepState
	}{
		"reserved": {action.Closed, action.CleanupDone, []action.StepState{ok, failed, action.NotStarted, ok}},
		"begun":    {action.AttemptFailed, action.CleanupFailed, []action.StepState{ok, failed, action.InDoubt}},
		"finished": {action.AttemptFailed, action.CleanupFailed, []action.StepState{ok, failed, action.InDoubt}},
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": drained})
			w.sick("w3")
			p := w.process()
			p.behaveAt(2, behaviour{state: failed})
			p.hook = func(point string) {
				if point == at && len(w.steps()) == 3 {
					p.kill()
				}
			}
			_, _ = p.run()
			w.pass(time.Minute)
			w.tick()
			wantSteps(t, w, want.attempt, want.cleanup, want.states...)
		})
	}
}

// What a person has switched off is not cleaned up, and is once it is lifted; shadow and recommend do not act either.
func TestCleanupWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": drained})
	w.sick("w3")
	w.killAt("reserved", 2)
	halted := w.process()
	halted.env["RUNBOOK_HALT"] = "1"
	w.pass(time.Minute)
	mustRun(t, halted)
	wantSteps(t, w, action.Interrupted, action.CleanupWaits, ok, action.NotStarted)

	mode := w.settings.Policy.Mode
	w.settings.Policy.Mode = "recommend"
	told := len(w.told)
	for range 3 {
		w.pass(time.Minute)
		r := w.tick()
		if len(r.Cleanups) != 1 || r.Cleanups[0].Evaluation.Outcome != trace.Refused {
			t.Fatalf("%+v", r.Cleanups)
		}
	}
	wantSteps(t, w, action.Interrupted, action.CleanupWaits, ok, action.NotStarted)
	if got := w.reasons()[told:]; len(slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, "cleanup refused") })) != 1 {
		t.Errorf("told %q", got)
	}

	w.settings.Policy.Mode = mode
	w.pass(time.Minute)
	w.tick()
	wantSteps(t, w, action.Closed, action.CleanupDone, ok, action.NotStarted, ok)
}

// Neither a cooldown nor an open breaker keeps a target from being put back.
func TestCleanupIsNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": drained})
	w.sick("w3")
	w.killAt("reserved", 3) // the action "in" has not been done, but "out" has, under the same name and its cooldown of 10 minutes
	if _, err := ledger.ChangeBreaker(t.Context(), w.store, w.sample, breaker.OpenedBy{Person: "me", Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.tick()
	wantSteps(t, w, action.Closed, action.CleanupDone, ok, ok, action.NotStarted, ok)
}
