package engine

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func refusals(ev *trace.Evaluation) []string {
	var out []string
	for _, v := range guard.Refused(lastVerdicts(ev)) {
		out = append(out, v.Guard)
	}
	return out
}

// A sick target is acted on once, and the attempt is verified when the target has been healthy for long enough.
func TestActsOnceAndVerifies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	if r := w.tick(); r.Exit != problem.ExitOK || r.Runbooks[0].Fleet.Members != 5 || len(w.steps()) != 0 {
		t.Fatalf("healthy: exit %d, %+v", r.Exit, r.Runbooks[0].Fleet)
	}
	w.sick("w3")
	r := w.tick()
	ev := evaluationOf(t, r, "w3")
	if r.Exit != problem.ExitOK || ev.Outcome != trace.Acted || ev.State != action.Complete || len(w.effects) != 1 {
		t.Fatalf("exit %d, %+v, %d effects", r.Exit, ev, len(w.effects))
	}
	s := w.steps()[0]
	if s.State != action.Succeeded || string(s.Receipt) != "receipt" || s.Child.PID == 0 || s.Cooldown != 10*time.Minute {
		t.Errorf("%+v", s)
	}
	a := w.attempt(s)
	if a.Verify.MaxAge != time.Minute || a.Verify.Within != 2*time.Minute || a.Number != 1 || a.Notify != "team" {
		t.Errorf("%+v", a)
	}
	w.depth["w3"] = 5
	w.pass(30 * time.Second)
	if r := w.tick(); len(r.Verified) != 1 || r.Verified[0].State != action.Complete {
		t.Errorf("too early: %+v", r.Verified)
	}
	w.pass(30 * time.Second)
	if r := w.tick(); len(r.Verified) != 1 || r.Verified[0].State != action.Verified || r.Exit != problem.ExitOK {
		t.Errorf("exit %d: %+v", r.Exit, r.Verified)
	}
	w.sick("w3")
	if got := refusals(evaluationOf(t, w.tick(), "w3")); !slices.Equal(got, []string{"cooldown"}) {
		t.Errorf("refused by %q", got)
	}
	if len(w.effects) != 1 || len(w.told) != 0 {
		t.Errorf("%d effects, told %q", len(w.effects), w.reasons())
	}
}

// Each way in which a plugin can end an action, and what is made of it.
func TestPluginBehaviour(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		b       behaviour
		step    action.StepState
		attempt action.AttemptState
		outcome trace.Outcome
		exit    problem.Exit
		told    string
		effects int
	}{
		{"succeeds", behaviour{}, action.Succeeded, action.Complete, trace.Acted, 0, "", 1},
		{"changes nothing", behaviour{state: action.NoChange}, action.NoChange, action.Complete, trace.Acted, 0, "", 1},
		{"fails", behaviour{state: action.Failed, message: "no such unit"}, action.Failed, action.Closed, trace.Failed, 1, "failed: action-failed", 1},
		{"is not there", behaviour{execute: errPlugin}, action.NotStarted, action.Closed, trace.Failed, 1, "failed: plugin-failed", 0},
		{"dies before Started", behaviour{started: errPlugin}, action.NotStarted, action.Closed, trace.Failed, 1, "failed: plugin-failed", 0},
		{"dies told to act", behaviour{proceed: errPlugin}, action.InDoubt, action.Interrupted, trace.DoubtRemains, 4, "in doubt: ", 0},
		{"acts without saying so", behaviour{proceed: errPlugin, silent: true}, action.InDoubt, action.Interrupted, trace.DoubtRemains, 4, "in doubt: ", 1},
		{"dies acting", behaviour{wait: errPlugin}, action.InDoubt, action.Interrupted, trace.DoubtRemains, 4, "in doubt: ", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": restart})
			w.sick("w3")
			p := w.process()
			p.host.behave = func(pluginhost.Execute) *behaviour { return &c.b }
			r, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			ev := evaluationOf(t, r, "w3")
			if r.Exit != c.exit || ev.Outcome != c.outcome || ev.State != c.attempt || len(w.effects) != c.effects {
				t.Errorf("exit %d, %s (%s), attempt %s, %d effects", r.Exit, ev.Outcome, ev.Reason, ev.State, len(w.effects))
			}
			if s := w.states(); !slices.Equal(s, []action.StepState{c.step}) {
				t.Errorf("recorded: %s", s)
			}
			if told := strings.Join(w.reasons(), "; "); !strings.HasPrefix(told, c.told) || (c.told == "") != (told == "") {
				t.Errorf("told %q", told)
			}
			if c.step == action.InDoubt {
				w.staysInDoubt(t)
			}
			w.again(t, c.step)
		})
	}
}

// staysInDoubt checks that an action in doubt keeps its target until a person says what became of it.
func (w *world) staysInDoubt(t *testing.T) {
	t.Helper()
	n := len(w.effects)
	for range 3 {
		w.pass(15 * time.Minute)
		r := w.tick()
		if ev := evaluationOf(t, r, "w3"); ev.Outcome != trace.Skipped || r.Exit != problem.ExitRefused || len(r.InDoubt) != 1 {
			t.Errorf("exit %d, in doubt %+v, %+v", r.Exit, r.InDoubt, ev)
		}
	}
	if len(w.effects) != n {
		t.Errorf("repeated")
	}
	if len(w.told) != 1 {
		t.Errorf("told %q", w.reasons())
	}
	w.pass(24 * time.Hour)
	w.tick()
	if len(w.told) != 2 {
		t.Errorf("after a day nobody was reminded: %q", w.reasons())
	}
	w.told = w.told[:1]
}

// again checks when the target may be acted on the next time, after its step ended as it did.
func (w *world) again(t *testing.T, was action.StepState) {
	t.Helper()
	n := len(w.effects)
	if was == action.InDoubt {
		s := w.steps()[0]
		if _, a, err := ledger.Resolve(t.Context(), w.store, w.sample, s, action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: s.Nonce, Why: "looked", Person: "ann"}); err != nil || a.State != action.Closed {
			t.Fatalf("%v, %+v", err, a)
		}
	}
	if was == action.Succeeded || was == action.NoChange {
		w.pass(3 * time.Minute)
		if r := w.tick(); len(r.Verified) != 1 || r.Verified[0].State != action.Ineffective || r.Exit != problem.ExitFailed {
			t.Fatalf("exit %d: %+v", r.Exit, r.Verified)
		}
	}
	w.pass(time.Minute)
	r := w.tick()
	ev := evaluationOf(t, r, "w3")
	if was == action.NotStarted {
		// Nothing had happened: it is tried again at once, as the first attempt.
		if len(w.effects) != n+1 || w.status().Started[0].Attempt != ev.Attempt || len(w.status().Started) != 1 || ev.Number != 1 {
			t.Errorf("%+v, %d effects", ev, len(w.effects))
		}
		return
	}
	if was != action.InDoubt { // that took a day
		if got := refusals(ev); !slices.Equal(got, []string{"cooldown"}) || len(w.effects) != n {
			t.Errorf("refused by %q, %+v", got, ev)
		}
		w.pass(10 * time.Minute)
		ev = evaluationOf(t, w.tick(), "w3")
	}
	if ev.Outcome != trace.Acted || ev.Number != 2 || len(w.effects) != n+1 {
		t.Errorf("the next attempt: %+v", ev)
	}
}

const twoSteps = header + `def run(ctx):
    first = ctx.svc.drain("x", reason = "stuck", timeout = "20s", must = False)
    print("first is", first.status)
    ctx.svc.restart("x", reason = "stuck", timeout = "20s", within = "2m")
    ctx.svc.restart("y", reason = "stuck", timeout = "20s", within = "2m")
`

// A runbook that takes a failure as a value goes on, and its attempt counts whatever its first step came to.
func TestStepsOfOneAttempt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		b      map[string]behaviour
		states []action.StepState
		state  action.AttemptState
	}{
		{"all well", nil, []action.StepState{action.Succeeded, action.Succeeded, action.Succeeded}, action.Complete},
		{"the first does not start", map[string]behaviour{"drain x": {execute: errPlugin}}, []action.StepState{action.NotStarted, action.Succeeded, action.Succeeded}, action.Complete},
		{"the first fails", map[string]behaviour{"drain x": {state: action.Failed}}, []action.StepState{action.Failed, action.Succeeded, action.Succeeded}, action.Complete},
		{"the first is in doubt", map[string]behaviour{"drain x": {wait: errPlugin}}, []action.StepState{action.InDoubt}, action.Interrupted},
		{"the second fails", map[string]behaviour{"restart x": {state: action.Failed}}, []action.StepState{action.Succeeded, action.Failed}, action.Closed},
		{"the last does not start", map[string]behaviour{"restart y": {execute: errPlugin}}, []action.StepState{action.Succeeded, action.Succeeded, action.NotStarted}, action.Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": twoSteps})
			w.sick("w3")
			p := w.process()
			p.host.behave = func(x pluginhost.Execute) *behaviour {
				name, _ := x.Args.Get("name")
				b := c.b[x.Function+" "+strings.Trim(renderValue(name), `"`)]
				return &b
			}
			r, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			ev := evaluationOf(t, r, "w3")
			if got := w.states(); !slices.Equal(got, c.states) || ev.State != c.state {
				t.Fatalf("%s, attempt %s: %+v", got, ev.State, ev)
			}
			if s := w.status(); len(s.Started) != 1 {
				t.Errorf("%d attempts are counted", len(s.Started))
			}
			if a := w.attempt(w.steps()[0]); len(a.Steps) != len(c.states) || a.Verify.Settle != 0 && len(c.states) > 1 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// Nothing that began: nothing is booked, nothing to verify, and the next run begins anew.
func TestAnAttemptOfWhichNothingBegan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.Replace(restart, `within = "2m"`, `within = "2m", must = False`, 1)})
	w.sick("w3")
	p := w.process()
	p.host.behave = func(pluginhost.Execute) *behaviour { return &behaviour{started: errPlugin} }
	r, err := p.run()
	ev := evaluationOf(t, r, "w3")
	if err != nil || ev.Outcome != trace.Nothing || ev.State != action.Closed {
		t.Fatalf("%v, %+v", err, ev)
	}
	if s := w.status(); len(s.Started)+len(s.Cooling)+len(s.Open) != 0 {
		t.Errorf("%+v", s)
	}
}

// What ends a run, at each moment of an action: nothing new begins, what acts is let end, and all is recorded.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at      string
		step    []action.StepState
		attempt action.AttemptState
		effects int
	}{
		{"reserved", []action.StepState{action.NotStarted}, action.Closed, 0},
		{"begun", []action.StepState{action.NotStarted}, action.Closed, 0},
		{"proceed", []action.StepState{action.Succeeded}, action.Closed, 1},
		{"acting", []action.StepState{action.Succeeded}, action.Closed, 1},
		{"finished", []action.StepState{action.Succeeded}, action.Closed, 1},
	} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": twoSteps})
			w.sick("w3")
			p := w.process()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p.ctx = ctx
			p.hook = func(point string) {
				if point == c.at {
					cancel()
				}
			}
			p.host.behave = func(pluginhost.Execute) *behaviour {
				return &behaviour{before: func() {
					if c.at == "proceed" {
						cancel()
					}
				}}
			}
			r, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			ev := evaluationOf(t, r, "w3")
			if ev.Outcome != trace.Interrupted || r.Exit != problem.ExitInterrupted || ev.State != c.attempt || len(w.effects) != c.effects {
				t.Errorf("exit %d, %s, attempt %s, %d effects", r.Exit, ev.Outcome, ev.State, len(w.effects))
			}
			if got := w.states(); !slices.Equal(got, c.step) {
				t.Errorf("%s", got)
			}
			// Who ended it knows. What it leaves half done somebody must judge.
			if want := c.effects; len(w.told) != want {
				t.Errorf("told %q", w.reasons())
			}
			if stored, err := ledger.Run(t.Context(), w.store, r.ID); err != nil || stored.Exit != r.Exit || stored.Ended.IsZero() {
				t.Errorf("%v, %+v", err, stored)
			}
			w.pass(15 * time.Second)
			w.tick()
		})
	}
}

// A halt at each moment: none begins after it, and one that acts is let end.
func TestHalted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at      string
		steps   []action.StepState
		attempt action.AttemptState
		effects int
	}{
		{"", nil, "", 0},
		{"reserved", []action.StepState{action.NotStarted}, action.Closed, 0},
		{"begun", []action.StepState{action.NotStarted}, action.Closed, 0},
		{"acting", []action.StepState{action.Succeeded}, action.Closed, 1},
	} {
		t.Run("at "+c.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": twoSteps})
			w.sick("w3")
			halt := func() {
				if err := w.state.Halt(t.Context(), control.HaltRequest{Reason: "fire", By: "ann"}); err != nil {
					t.Error(err)
				}
			}
			p := w.process()
			p.hook = func(point string) {
				if point == c.at {
					halt()
				}
			}
			if c.at == "" {
				halt()
			}
			r, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			ev := evaluationOf(t, r, "w3")
			if ev.Outcome != trace.Refused || r.Exit != problem.ExitRefused || ev.State != c.attempt || ev.Problem.Code != problem.Halted || len(w.effects) != c.effects {
				t.Errorf("exit %d, %s, attempt %s, %v, %d effects", r.Exit, ev.Outcome, ev.State, ev.Problem, len(w.effects))
			}
			if got := w.states(); !slices.Equal(got, c.steps) {
				t.Errorf("%s", got)
			}
			if len(w.told) != 1 {
				t.Errorf("told %q", w.reasons())
			}
		})
	}
}

// A dry run asks every guard and changes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": twoSteps})
	w.tick()
	w.sick("w3")
	before := w.dump(t)
	p := w.process()
	p.opts.DryRun = true
	r, err := p.run()
	if err != nil || r.Exit != problem.ExitOK {
		t.Fatalf("%v, exit %d", err, r.Exit)
	}
	planned := 0
	for _, x := range evaluationOf(t, r, "w3").Events {
		if x.Action != nil && x.Action.Planned && len(x.Action.Verdicts) == len(guard.All()) {
			planned++
		}
	}
	if planned != 3 || len(p.host.done) != 0 || len(w.told) != 0 {
		t.Errorf("%d steps are planned, %d actions were started", planned, len(p.host.done))
	}
	if diff := cmp.Diff(before, w.dump(t)); diff != "" {
		t.Errorf("the store has changed:\n%s", diff)
	}
}

func (w *world) dump(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := w.store.Scan(t.Context(), "", false, func(k string, v []byte) bool { out[k] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

// A worker that dies after an action was done: the action is on record, the attempt is over, and somebody is told what it did.
func TestWorkerDiesAfterAnAction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart + "    x = 0\n    for i in range(100000000):\n        x += i\n"})
	w.sick("w3")
	r := w.tick()
	ev := evaluationOf(t, r, "w3")
	if ev.Outcome != trace.Failed || ev.Problem.Code != problem.Limit || ev.State != action.Closed || r.Exit != problem.ExitFailed {
		t.Fatalf("exit %d, %+v", r.Exit, ev)
	}
	if got := w.states(); !slices.Equal(got, []action.StepState{action.Succeeded}) {
		t.Errorf("%s", got)
	}
	if len(w.told) != 1 || !strings.Contains(w.told[0].Text, "svc.restart: succeeded") {
		t.Errorf("told %+v", w.told)
	}
}

// A second process while the first one acts: it leaves the runbook alone, and another runbook is refused the target.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.paths = []string{"a.star"}
	other := newWorldFile(t, w, "b.star", strings.Replace(restart, "restart(", "drain(", 1))
	w.sick("w3")
	p := w.process()
	var second *trace.Run
	p.host.behave = func(pluginhost.Execute) *behaviour {
		return &behaviour{during: func() {
			q := w.process()
			q.opts.Paths = []string{"a.star", other}
			var err error
			if second, err = q.run(); err != nil {
				t.Error(err)
			}
		}}
	}
	if _, err := p.run(); err != nil {
		t.Fatal(err)
	}
	a, b := second.Runbooks[0], second.Runbooks[1]
	if a.Due || !strings.Contains(a.Why, "another run") {
		t.Errorf("%+v", a)
	}
	var ev *trace.Evaluation
	for _, x := range b.Targets {
		if x.Name == "w3" {
			ev = x.Evaluation
		}
	}
	if ev == nil || ev.Outcome != trace.Skipped && !slices.Contains(refusals(ev), "busy") {
		t.Errorf("%+v", ev)
	}
	if len(w.effects) != 1 || len(second.Recovered) != 0 {
		t.Errorf("%d effects, recovered %+v", len(w.effects), second.Recovered)
	}
	// By hand the same is said as a problem.
	p.host.behave = func(pluginhost.Execute) *behaviour { return &behaviour{} }
	unlock, ok, err := w.state.LockRunbook("a")
	if err != nil || !ok {
		t.Fatal(err)
	}
	defer unlock()
	q := w.process()
	q.opts = Options{Paths: []string{"a.star"}, Target: "w3"}
	if r, err := q.run(); err != nil || r.Exit != problem.ExitRefused || r.Runbooks[0].Problem == nil {
		t.Errorf("%v, exit %d", err, r.Exit)
	}
}

// A process that was taken for dead and comes back: what it says is kept as late, and the target stays in doubt.
func TestLateOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	p.host.behave = func(pluginhost.Execute) *behaviour {
		return &behaviour{during: func() {
			w.mu.Lock()
			w.live[p.self.PID] = false
			w.mu.Unlock()
			r, err := w.process().run()
			if err != nil || len(r.Recovered) != 1 || r.Recovered[0].To != action.InDoubt || len(w.killed) != 1 {
				t.Errorf("%v, recovered %+v, killed %+v", err, r.Recovered, w.killed)
			}
		}}
	}
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	s := w.steps()[0]
	if s.State != action.InDoubt || len(s.Late) != 1 || s.Late[0].State != action.Succeeded || r.Exit != problem.ExitRefused {
		t.Errorf("exit %d, %+v", r.Exit, s)
	}
	if len(w.told) != 2 || !strings.Contains(w.told[1].Text, "ended as succeeded after its record had become in_doubt") {
		t.Errorf("told %+v", w.told)
	}
	w.told = w.told[:1]
	w.staysInDoubt(t)
}

// The record of a run with 40 queries and the branches after them stays under 64 KiB.
func TestTraceIsSmall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": header + "def run(ctx):\n" +
		strings.Repeat("    x = ctx.metrics.value('count(queue_depth{job=\"worker\"} > 1000)', default = 0)\n    if x > 100 or x < 0:\n        return escalate('no')\n", 40)})
	w.sick("w3")
	r := w.tick()
	if n := len(evaluationOf(t, r, "w3").Events); n < 80 {
		t.Fatalf("%d events", n)
	}
	b, err := trace.Encode(r)
	if err != nil || len(b) > 64<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	t.Logf("%d bytes", len(b))
}

// Who is told is told what was seen, what was done, and where to read more.
func TestNoticesExplain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"nothing done": {`return escalate("only a person can tell")`, `^only a person can tell
done: nothing
seen: w3 is sick: 1000 > 100, held for 30s
more: runbook explain \S+$`},
		"acted first": {`ctx.svc.restart("x.service", reason = "stuck")
    return escalate("it may not be enough")`, `^it may not be enough; what it did on w3:
\S+ svc.restart: succeeded
seen: w3 is sick: 1000 > 100, held for 30s
more: runbook explain \S+$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": header + "def run(ctx):\n    " + c.body + "\n"})
			w.sick("w3")
			w.tick()
			if len(w.told) != 1 || !regexp.MustCompile(c.want).MatchString(w.told[0].Text) {
				t.Errorf("told %+v, want %s", w.told, c.want)
			}
		})
	}
}
