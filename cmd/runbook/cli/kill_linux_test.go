package cli

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// A run that is killed between its reservation and the beginning of the action has done nothing: what it had booked is given
// back, so that even the only attempt that is allowed can still be made, once.
func TestKilledBeforeTheActionBegan(t *testing.T) {
	t.Parallel()
	s := newKillSite(t, `cooldown = "1h", attempts = 1, rates = [rate(1, per = "1h")], settle = "1ms"`, "1h")
	for n := 1; n <= 2; n++ {
		s.killedAt("reserved")
		if steps := s.steps(); len(steps) != n || steps[0].State != action.Reserved {
			t.Fatalf("after kill %d: %+v", n, steps)
		}
		r, _ := s.tick("w1")
		if len(r.Recovered) != 1 || r.Recovered[0].To != action.NotStarted {
			t.Fatalf("recovered: %+v", r.Recovered)
		}
		s.nothingRuns()
		if keys := s.keys(); len(keys) > 0 {
			t.Fatalf("nothing had begun, but: %q", keys)
		}
	}
	s.tickUntil("to act", func(ev *trace.Evaluation, exit problem.Exit) bool {
		if ev.Outcome != trace.Acted && refusals(ev) != nil && !slices.Equal(refusals(ev), []string{"settling"}) {
			t.Fatalf("refused by %q", refusals(ev))
		}
		return ev.Outcome == trace.Acted && exit == problem.ExitOK
	})
	for range 3 {
		if r, exit := s.tick(killTarget); exit != problem.ExitRefused || s.evaluation(r).Outcome == trace.Acted {
			t.Errorf("a second time: exit %d, %+v", exit, s.evaluation(r))
		}
	}
	steps := s.steps()
	if keys := s.keys(); !slices.Equal(keys, []string{steps[0].Key}) {
		t.Errorf("effects %q, want one of action %s", keys, steps[0].Key)
	}
}

// A run that is killed once the action may have begun leaves it in doubt, whatever became of it, and no later run repeats
// it; what happens next is up to a person and, after that, to the guards.
func TestKilledAfterTheActionBegan(t *testing.T) {
	t.Parallel()
	effects := map[string][]int{"begun": {0}, "acting": {0, 1}, "finished": {1}}
	for point, want := range effects {
		for _, as := range []string{"done", "not-done"} {
			t.Run(point+" "+as, func(t *testing.T) {
				t.Parallel()
				cooldown := map[string]string{"done": "1h", "not-done": "3s"}[as]
				s := newKillSite(t, `cooldown = "`+cooldown+`", settle = "1ms"`, "1h")
				doubt := s.inDoubt(point)
				if n := len(s.keys()); !slices.Contains(want, n) {
					t.Errorf("%d effects, want %v", n, want)
				}
				s.resolve(doubt, as)
				if as == "done" {
					s.staysCool()
				} else {
					s.actsAgain(doubt, 3*time.Second)
				}
			})
		}
	}
}

// inDoubt kills a run and checks that what it did is in doubt from then on and is not repeated.
func (s *killSite) inDoubt(point string) *action.Step {
	s.t.Helper()
	s.killedAt(point)
	if steps := s.steps(); len(steps) != 1 || steps[0].State != action.Begun || steps[0].Child.PID == 0 {
		s.t.Fatalf("after the kill: %+v", steps)
	}
	r, exit := s.tick(killTarget)
	if exit != problem.ExitRefused || len(r.Recovered) != 1 || r.Recovered[0].To != action.InDoubt || len(r.InDoubt) != 1 {
		s.t.Fatalf("exit %d, recovered %+v, in doubt %+v", exit, r.Recovered, r.InDoubt)
	}
	s.nothingRuns()
	steps := s.steps()
	s.childrenGone(steps)
	before := s.keys()
	for range 2 {
		r, exit := s.tick(killTarget)
		if exit != problem.ExitRefused || s.evaluation(r).Outcome != trace.Skipped || len(r.InDoubt) != 1 || len(r.Recovered) > 0 {
			s.t.Errorf("exit %d, %+v, in doubt %+v", exit, s.evaluation(r), r.InDoubt)
		}
	}
	if after := s.keys(); !slices.Equal(before, after) {
		s.t.Errorf("repeated: %q, then %q", before, after)
	}
	var listed struct{ Actions []action.Step }
	if err := json.Unmarshal(s.does(problem.ExitOK, "actions", "--in-doubt", "--json"), &listed); err != nil {
		s.t.Fatal(err)
	}
	if len(listed.Actions) != 1 || listed.Actions[0].ID != r.InDoubt[0].Step || listed.Actions[0].Nonce != r.InDoubt[0].Nonce {
		s.t.Fatalf("listed: %+v", listed.Actions)
	}
	return steps[0]
}

// resolve closes the action, which takes its nonce.
func (s *killSite) resolve(x *action.Step, as string) {
	s.t.Helper()
	s.does(problem.ExitUsage, "resolve", x.ID, "--nonce", "aaaaaaaa", "--as", as, "--reason", "a test")
	if steps := s.steps(); steps[0].State != action.InDoubt {
		s.t.Fatalf("a wrong nonce made it %s", steps[0].State)
	}
	s.does(problem.ExitOK, "resolve", x.ID, "--nonce", x.Nonce, "--as", as, "--reason", "a test")
	if got := s.steps()[0].State; got != resolutions[as] {
		s.t.Errorf("%s is recorded as %s", as, got)
	}
	s.does(problem.ExitUsage, "resolve", x.ID, "--nonce", x.Nonce, "--as", as, "--reason", "once more")
	if open := s.open(); len(open) > 0 {
		s.t.Errorf("still open: %+v", open)
	}
}

// staysCool checks that the cooldown, and nothing else, keeps the target from being acted on.
func (s *killSite) staysCool() {
	s.t.Helper()
	before := s.keys()
	s.tickUntil("the cooldown to be what refuses", func(ev *trace.Evaluation, exit problem.Exit) bool {
		if exit != problem.ExitRefused {
			s.t.Fatalf("exit %d: %+v", exit, ev)
		}
		return slices.Equal(refusals(ev), []string{"cooldown"})
	})
	if after := s.keys(); !slices.Equal(before, after) {
		s.t.Errorf("repeated: %q, then %q", before, after)
	}
}

// actsAgain checks that the next attempt comes, with another key and not before the cooldown is over.
func (s *killSite) actsAgain(first *action.Step, cooldown time.Duration) {
	s.t.Helper()
	before := s.keys()
	s.tickUntil("the next attempt", func(ev *trace.Evaluation, exit problem.Exit) bool {
		if exit != problem.ExitRefused && ev.Outcome != trace.Acted {
			s.t.Fatalf("exit %d: %+v", exit, ev)
		}
		return ev.Outcome == trace.Acted
	})
	steps := s.steps()
	if len(steps) != 2 || steps[0].State != action.Succeeded || steps[0].Identity.Attempt != 2 {
		s.t.Fatalf("%+v", steps)
	}
	if rested := steps[0].ReservedAt.Trusted - first.ReservedAt.Trusted; rested < cooldown {
		s.t.Errorf("acted again after %s, its cooldown is %s", rested, cooldown)
	}
	if after := s.keys(); !slices.Equal(after, append(before, steps[0].Key)) {
		s.t.Errorf("effects: %q, then %q", before, after)
	}
}

// killTime is how long runs are killed on a machine that is too slow for all of it.
const killTime = 20 * time.Second

// Whatever the moment of a kill: no effect without a record that says that it may have begun, none twice, nothing is left
// running, and the store opens.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for name, does := range map[string]string{"one step": oneStep, "three steps": threeSteps} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killAtAnyMoment(t, does, 20, killTime)
		})
	}
}

// killAtAnyMoment kills so many runs, or fewer, but not fewer than ten, if that takes longer than patience.
func killAtAnyMoment(t *testing.T, does string, n int, patience time.Duration) {
	t.Helper()
	s := newKillSiteThat(t, does, `cooldown = "1ms", settle = "1ms", attempts = 100, breaker = 1000, rates = [rate(10000, per = "1m")]`, "10ms")
	began := time.Now()
	if r, _ := s.tick(killTarget); s.evaluation(r).Outcome != trace.Acted {
		t.Fatalf("without a kill: %+v", s.evaluation(r))
	}
	whole := time.Since(began) // how long a run takes now, as far as is known
	s.settled()
	random := rand.New(rand.NewPCG(1, uint64(began.UnixNano()))) //nolint:gosec // moments, not secrets
	kills, early := 0, 0
	for kills < n && (kills < 10 || time.Since(began) < patience) {
		after := time.Duration(random.Int64N(int64(whole)))
		cmd, out, errs := s.command(nil, "run", "--target", killTarget)
		started := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or done before
		timer.Stop()
		if cmd.ProcessState.Exited() {
			whole = time.Since(started)
			early++
		} else {
			whole += whole / 10
			kills++
		}
		if bytes.Contains(errs.Bytes(), []byte("internal")) {
			t.Errorf("killed after %s: %s%s", after, out, errs)
		}
		s.settled()
		s.nothingRuns()
		if t.Failed() {
			t.Fatalf("killed after %s of %s", after, whole)
		}
	}
	count := map[action.StepState]int{}
	for _, x := range s.steps() {
		count[x.State]++
	}
	if steps := len(s.steps()); steps < kills/4 {
		t.Errorf("only %d actions in %d runs that were killed: something keeps them from acting", steps, kills)
	}
	cleanups := 0
	for _, x := range s.steps() {
		if x.Cleanup {
			cleanups++
		}
	}
	t.Logf("%d runs killed, %d ended before; %d actions: %v; %d of a cleanup; %d effects", kills, early, len(s.steps()), count, cleanups, len(s.keys()))
}

// settled lets runs about a healthy target recover and verify until nothing keeps the target any more, resolves what is in doubt, and checks
// effects against records.
func (s *killSite) settled() {
	s.t.Helper()
	for deadline := time.Now().Add(aWhile); ; {
		s.tick("w1")
		for _, x := range s.steps() {
			if x.State != action.InDoubt {
				continue
			}
			ev := action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: x.Nonce, Person: "test", Why: "a test"}
			if slices.Contains(s.keys(), x.Key) {
				ev.To = action.ResolvedDone
			}
			s.read(func(st *pebble.Store) {
				if _, _, err := ledger.Resolve(s.t.Context(), st, clock.Read, x, ev); err != nil {
					s.t.Fatal(err)
				}
			})
		}
		open := s.open()
		if len(open) == 0 {
			break
		}
		for _, x := range open { // a cleanup that was killed in the middle is left to a person
			s.read(func(st *pebble.Store) {
				a, _, err := ledger.Attempt(s.t.Context(), st, x.ID)
				if err == nil && a.Cleanup != nil && a.Cleanup.State == action.CleanupFailed {
					_, err = ledger.CloseAttempt(s.t.Context(), st, clock.Read, x.ID, "test", "a test")
				}
				if err != nil {
					s.t.Fatal(err)
				}
			})
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("still open: %+v", open)
		}
	}
	steps := s.steps()
	s.childrenGone(steps)
	effects := map[string]int{}
	for _, k := range s.keys() {
		effects[k]++
	}
	for _, x := range steps {
		n := effects[x.Key]
		delete(effects, x.Key)
		switch began := !x.BegunAt.IsZero(); {
		case n > 1, n == 1 && !began, n == 1 && x.State == action.NotStarted, n == 0 && x.State == action.Succeeded:
			s.t.Errorf("action %s is %s (begun: %v) and happened %d times", x.ID, x.State, began, n)
		case !x.State.Settled():
			s.t.Errorf("action %s is %s", x.ID, x.State)
		}
	}
	if len(effects) > 0 {
		s.t.Errorf("effects without a record: %v", effects)
	}
}
