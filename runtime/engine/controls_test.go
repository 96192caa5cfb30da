package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func (w *world) halt() {
	w.t.Helper()
	if err := w.state.Halt(context.Background(), control.HaltRequest{Reason: "stop", By: "ann"}); err != nil {
		w.t.Errorf("%v", err)
	}
}

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
		if point != "finished" {
			return
		}
		if finished++; finished == 1 {
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

// What no test covers is not done.
func TestCoverage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	w.coverage = func(_ *project.Runbook, way tested.Way) guard.Coverage {
		return guard.Coverage{Enforced: true, Missing: way.Pos.String() + " was never tested"}
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

// An attempt that does not help opens the breaker with two others, people are told once, a person's reset lets one canary at a time try, and
// three that helped close it.
func TestBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Policy.FleetShare = 100
	state := func() breaker.Doc {
		d, _, err := ledger.Breaker(context.Background(), w.store, w.sample)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i, name := range []string{"w1", "w2", "w3"} {
		w.sick(name)
		if ev := evaluationOf(t, w.tick(), name); ev.Outcome != trace.Acted {
			t.Fatalf("%s: %+v", name, ev)
		}
		w.pass(3 * time.Minute) // still sick: ineffective
		w.tick()
		w.depth[name] = 5
		w.pass(5 * time.Minute)
		if n := len(state().Bad); n != i+1 {
			t.Fatalf("%d went badly, want %d", n, i+1)
		}
	}
	if d := state(); d.State != breaker.Open || !strings.HasPrefix(d.Reason, "3 attempts went badly within 1h: a on instance=w1 ineffective") {
		t.Fatalf("%+v", d)
	}
	w.sick("w4")
	r := w.tick()
	if got := refusals(evaluationOf(t, r, "w4")); !slices.Equal(got, []string{"breaker"}) || r.Exit != problem.ExitRefused || r.Breaker == "" {
		t.Errorf("refused by %q, exit %d", got, r.Exit)
	}
	w.pass(5 * time.Hour)
	w.tick()
	if n := count(w.reasons(), "breaker open"); n != 1 || state().State != breaker.Open {
		t.Errorf("told %d times: %q", n, w.reasons())
	}
	w.depth["w4"] = 5
	w.pass(2 * time.Hour)
	w.tick()
	if _, err := ledger.ChangeBreaker(context.Background(), w.store, w.sample, breaker.ResetBy{Person: "ann", Reason: "storage is back"}); err != nil {
		t.Fatal(err)
	}
	w.settings.Policy.OpenTotal, w.settings.Policy.OpenPerFleet = 2, 2
	for i, name := range []string{"w1", "w2", "w3"} {
		w.depth["w5"] = 1000
		w.sick(name)
		ev := evaluationOf(t, w.tick(), name)
		if ev.Outcome != trace.Acted || state().Canary != ev.Attempt {
			t.Fatalf("canary %d: %+v, %+v", i, ev, state())
		}
		w.depth[name] = 5
		w.pass(15 * time.Second)
		if got := refusals(evaluationOf(t, w.tick(), "w5")); !slices.Contains(got, "breaker") {
			t.Errorf("a second canary beside the first was refused by %q", got)
		}
		w.depth["w5"] = 5
		w.pass(time.Minute)
		w.tick()
		w.pass(15 * time.Minute)
		w.tick()
	}
	if d := state(); d.State != breaker.Closed || len(d.Bad) != 0 {
		t.Errorf("%+v", d)
	}
	if got := w.reasons(); count(got, "breaker half-open") != 1 || count(got, "breaker closed") != 1 {
		t.Errorf("told %q", got)
	}
}

func count(all []string, one string) (n int) {
	for _, x := range all {
		if x == one {
			n++
		}
	}
	return n
}

// What a halt interrupted is a person's doing and no failure.
func TestHaltDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": twoSteps})
	w.sick("w3")
	p := w.process()
	halted := false
	p.hook = func(point string) {
		if point == "finished" && !halted {
			halted = true
			w.halt()
		}
	}
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	if ev := evaluationOf(t, r, "w3"); ev.Problem.Code != problem.Halted || ev.State != action.Closed {
		t.Errorf("%+v", ev)
	}
	if d, _, err := ledger.Breaker(context.Background(), w.store, w.sample); err != nil || len(d.Bad) != 0 {
		t.Errorf("%v, %+v", err, d)
	}
}

const fleets = `runbook(
    owner    = "team",
    trigger  = every("15s"),
    severity = "warning",
    targets  = fleet(all = 'up{job="worker"}', sick = 'depth{job="worker"} > $limit', by = "instance", held = "30s"),
    mode     = "auto",
    params   = {"limit": param.int(100)},
)

def run(ctx):
    ctx.svc.restart("x.service", reason = "stuck", timeout = "20s", within = "2m")
`

// Two fleets over their share are one problem: nothing acts anywhere until it has cleared.
func TestWidespread(t *testing.T) {
	t.Parallel()
	other := strings.NewReplacer(`'up{job="worker"}'`, `'up{job="worker"} * 1'`).Replace(fleets)
	w := newWorld(t, map[string]string{"a.star": fleets, "b.star": other})
	w.depth["w1"], w.depth["w2"] = 1000, 1000
	w.sick("w3")
	w.tick()
	d, _, err := ledger.Breaker(context.Background(), w.store, w.sample)
	if err != nil || len(d.Wide) != 2 || len(w.effects) != 0 || count(w.reasons(), "breaker widespread") != 1 {
		t.Fatalf("%v, %+v, told %q", err, d, w.reasons())
	}
	w.depth["w1"], w.depth["w2"] = 5, 5
	w.pass(time.Minute)
	w.tick() // sees that it has cleared, in whatever order the runbooks are looked at
	w.pass(15 * time.Second)
	w.tick()
	if d, _, err = ledger.Breaker(context.Background(), w.store, w.sample); err != nil || len(d.Wide) != 0 || len(w.effects) != 1 || count(w.reasons(), "breaker cleared") != 1 {
		t.Errorf("%v, %+v, %d effects, told %q", err, d, len(w.effects), w.reasons())
	}
}

// A breaker that is missing beside other records, or unreadable, is open; its reset works all the same.
func TestLostBreaker(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(tx store.Tx){
		"missing":    func(tx store.Tx) { tx.Delete(ledger.KeyBreaker) },
		"garbage":    func(tx store.Tx) { tx.Put(ledger.KeyBreaker, []byte("{")) },
		"newer":      func(tx store.Tx) { tx.Put(ledger.KeyBreaker, []byte(`{"v":2,"state":"closed"}`)) },
		"more in it": func(tx store.Tx) { tx.Put(ledger.KeyBreaker, []byte(`{"v":1,"state":"closed","but":"not really"}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": restart})
			w.tick()
			if err := w.store.Update(t.Context(), nil, func(tx store.Tx) error { damage(tx); return nil }); err != nil {
				t.Fatal(err)
			}
			w.sick("w3")
			if got := refusals(evaluationOf(t, w.tick(), "w3")); !slices.Equal(got, []string{"breaker"}) || len(w.effects) != 0 {
				t.Errorf("refused by %q", got)
			}
			if _, err := ledger.ChangeBreaker(t.Context(), w.store, w.sample, breaker.ResetBy{Person: "ann", Reason: "looked"}); err != nil {
				t.Fatal(err)
			}
			w.pass(15 * time.Second)
			if ev := evaluationOf(t, w.tick(), "w3"); ev.Outcome != trace.Acted {
				t.Errorf("%+v", ev)
			}
		})
	}
}

// A guard that has refused a sick target for a day says so by itself, with a reminder a day later; a break begins anew.
func TestRefusedForADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.disable(control.Disable{Name: "d", Selector: control.Selector{Runbook: "a"}, Reason: "for now", By: "ann"})
	w.sick("w3")
	w.tick()
	for range 5 {
		w.pass(5 * time.Hour)
		w.tick()
	}
	if got := w.reasons(); !slices.Equal(got, []string{"refused for a day by disabled"}) || !strings.Contains(w.told[0].Text, "runbook a was disabled by ann: for now") {
		t.Fatalf("told %q", got)
	}
	if _, _, err := ledger.Enable(t.Context(), w.store, w.sample, "d", "ann", "over"); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if ev := evaluationOf(t, w.tick(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("%+v", ev)
	}
	eps := map[string]ledger.Episode{}
	if err := w.store.View(t.Context(), []string{ledger.KeyEpisodes("a")}, func(tx store.ReadTx) (err error) {
		eps, err = ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes("a"))
		return err
	}); err != nil || len(eps["instance=w3"].Refused) != 0 {
		t.Errorf("%v, %+v", err, eps)
	}
}

func (w *world) deploy(c ledger.Change) {
	w.t.Helper()
	if _, err := ledger.AddChange(context.Background(), w.store, w.sample, c); err != nil {
		w.t.Fatalf("%v", err)
	}
}

// While the target's component is deployed, and for ten minutes after, nothing acts on it; a pipeline that died does not keep it for ever.
func TestDeploySettles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Policy.Component = "job"
	w.sick("w3")
	w.deploy(ledger.Change{Component: "other", Started: w.now, By: "ci"})
	w.deploy(ledger.Change{Component: "worker", Started: w.now.Add(-time.Minute), By: "ci"})
	check := func(measured string) {
		t.Helper()
		w.pass(15 * time.Second)
		ev := evaluationOf(t, w.tick(), "w3")
		if got := refusals(ev); !slices.Equal(got, []string{"maintenance"}) || !strings.Contains(guard.Refused(lastVerdicts(ev))[0].Measured, measured) {
			t.Fatalf("refused by %q, %+v", got, ev.Reason)
		}
	}
	check("a deploy of worker is going on")
	w.deploy(ledger.Change{Component: "worker", Ended: w.now, By: "ci"})
	check("a deploy of worker ended 15s ago")
	w.deploy(ledger.Change{Component: "worker", Ended: w.now.Add(-time.Hour), By: "late"}) // what is told late hides nothing
	w.pass(9 * time.Minute)
	check("a deploy of worker ended 9m")
	w.pass(time.Minute)
	if ev := evaluationOf(t, w.tick(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("%+v", ev)
	}
	w.deploy(ledger.Change{Component: "worker", Started: w.now, By: "ci"})
	w.pass(30 * time.Minute)
	check("going on")
	w.pass(41 * time.Minute)
	if ev := evaluationOf(t, w.tick(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("a pipeline that died: %+v", ev.Reason)
	}
}

// A rollout that replaces every pod is not a storm: what has gone with a deploy is not missing.
func TestRolloutIsNoStorm(t *testing.T) {
	t.Parallel()
	for _, deployed := range []bool{false, true} {
		w := newWorld(t, map[string]string{"a.star": restart})
		w.settings.Policy.Component, w.settings.Policy.ChangeSettle = "job", time.Millisecond
		for i := range 5 {
			delete(w.depth, fmt.Sprintf("w%d", i+1))
			w.depth[fmt.Sprintf("v%d", i+1)] = 5
		}
		w.pass(5 * time.Minute)
		if deployed {
			w.deploy(ledger.Change{Component: "worker", Ended: w.now.Add(-time.Minute), By: "ci"})
		}
		w.sick("v3")
		ev := evaluationOf(t, w.tick(), "v3")
		if got := refusals(ev); deployed != (ev.Outcome == trace.Acted) || !deployed && !slices.Equal(got, []string{"fleet"}) {
			t.Errorf("deployed %v: %s, refused by %q", deployed, ev.Reason, got)
		}
	}
}
