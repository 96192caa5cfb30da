package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// What automation has really done to people, elsewhere. Each test is one of those days.

// An empty set was taken for everything, and the automation erased all disks: here a fleet that is empty acts on nothing and calls a person, and
// neither a target without a name nor a star is let pass.
func TestIncidentEmptySetThatMeantEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.ReplaceAll(restart, `job="worker"`, `job="wroker"`)})
	for name := range w.depth {
		w.depth[name] = 1000
	}
	w.pass(time.Minute)
	r := w.tick()
	if len(w.effects) != 0 || r.Runbooks[0].Problem == nil || r.Runbooks[0].Problem.Code != problem.NoData || len(w.told) != 1 {
		t.Errorf("%d effects, %+v, told %q", len(w.effects), r.Runbooks[0].Problem, w.reasons())
	}
	protected, _ := guard.Named("protected")
	for _, target := range []action.Target{{}, {Key: "instance=*", Name: "*"}, {Key: "instance=w*", Name: "w*"}} {
		if v := protected.Check(guard.Input{Request: guard.Request{Target: target, Fleet: guard.FleetView{Members: []string{"instance=w1"}}}}); v.Passed {
			t.Errorf("%+v passes", target)
		}
	}
}

// A percentage of three machines was rounded up to two, and took the quorum: here 20% and even 60% of three is one, and the second bad one refuses.
func TestIncidentPercentageOfThree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	delete(w.depth, "w4")
	delete(w.depth, "w5")
	w.pass(20 * time.Minute)
	w.settings.Policy.FleetShare = 60
	w.depth["w1"] = 1000
	w.sick("w2")
	if got := refusals(evaluationOf(t, w.tick(), "w1")); !slices.Equal(got, []string{"fleet"}) || len(w.effects) != 0 {
		t.Errorf("refused by %q, %d effects", got, len(w.effects))
	}
	w.depth["w2"] = 5
	w.pass(time.Minute)
	if ev := evaluationOf(t, w.tick(), "w1"); ev.Outcome != trace.Acted {
		t.Errorf("one of three: %+v", ev)
	}
}

// Machines that were being repaired counted as healthy, so that the automation took one after the other until none was left: here what is under
// way, and what has just been acted on, counts as bad.
func TestIncidentUnderRemediationCountedAsHealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Policy.OpenTotal, w.settings.Policy.OpenPerFleet = 10, 10
	for _, name := range []string{"w1", "w2", "w3", "w4", "w5"} {
		w.sick(name)
		w.tick()
		w.depth[name] = 5 // its metrics look well while it restarts
		w.pass(time.Minute)
	}
	if len(w.effects) != 1 {
		t.Errorf("%d of 5 were acted on within minutes", len(w.effects))
	}
}

// After a storm the statuses came back one by one, and each moment looked like few sick machines among many healthy ones: here unknown counts as
// bad, so that nothing acts until enough is known.
func TestIncidentUnevenReturnAfterAStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	names := []string{"w1", "w2", "w3", "w4", "w5"}
	for _, name := range names {
		w.depth[name] = 1000
	}
	w.pass(time.Minute)
	w.tick()
	for _, name := range names { // the network is gone
		delete(w.depth, name)
	}
	w.pass(5 * time.Minute)
	for i, name := range names { // and they return, the first of them still sick
		w.depth[name] = 5
		if i == 0 {
			w.depth[name] = 1000
		}
		w.pass(time.Minute)
		w.tick()
		if i < 4 && len(w.effects) != 0 {
			t.Fatalf("acted with %d of 5 back", i+1)
		}
	}
	if len(w.effects) != 1 {
		t.Errorf("all are known and one is sick: %d effects", len(w.effects))
	}
}

// A read error was taken for a fault, and healthy machines were failed over: here an answer that fails, is empty, or is old is never evidence.
func TestIncidentReadErrorTakenForAFault(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]func(function, expr string) error{
		"the source does not answer": func(string, string) error { return errors.New("connection refused") },
		"it answers in part": func(_, expr string) error {
			if strings.Contains(expr, "depth") {
				return errors.New("read timeout")
			}
			return nil
		},
	} {
		w := newWorld(t, map[string]string{"a.star": restart})
		w.sick("w3")
		p := w.process()
		p.host.query = query
		if r, err := p.run(); err != nil || len(w.effects) != 0 || r.Exit == problem.ExitOK || len(w.told) == 0 {
			t.Errorf("%s: %v, %d effects, exit %d, told %q", name, err, len(w.effects), r.Exit, w.reasons())
		}
	}
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	delete(w.depth, "w3")
	w.pass(2 * time.Minute)
	w.tick()
	if len(w.effects) != 0 {
		t.Error("acted on a value that is old")
	}
}

// Configuration management switched the automation back on that an operator had switched off: here files that it can restore lift nothing. A
// restart, a deploy of other settings and another init leave a halt and a disable as they are.
func TestIncidentConfigurationManagementSwitchedItBackOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.halt()
	w.disable(control.Disable{Name: "d", Selector: control.Selector{Target: "w3"}, Reason: "data centre work", By: "ann"})
	if err := os.WriteFile(filepath.Join(w.settings.Root, "project.star"), []byte(projectText), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Init(w.state.Dir, w.state.GateDir); err == nil && len(w.state.Check(func(string) (string, bool) { return "", false })) == 0 {
		t.Error("init lifted the halt")
	}
	w.sick("w3")
	got := refusals(evaluationOf(t, w.tick(), "w3"))
	if !slices.Equal(got, []string{"halt", "disabled"}) || len(w.effects) != 0 {
		t.Errorf("refused by %q, %d effects", got, len(w.effects))
	}
}

// An action that had been queued ran after the operator had undone its reason: here nothing is queued. What was asked for while halted, and what was
// approved, is decided afresh, and a target that is well is left alone.
func TestIncidentQueuedActionRanAfterItsReasonWasUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": asking, "b.star": restart})
	w.sick("w3")
	w.halt()
	w.tick()
	if err := w.state.Resume(context.Background(), "over", "ann"); err != nil {
		t.Fatal(err)
	}
	w.pass(15 * time.Second)
	p := w.process()
	p.opts.Paths = []string{"a.star"}
	if _, err := p.run(); err != nil {
		t.Fatal(err)
	}
	waiting := w.waiting()
	if len(waiting) != 1 {
		t.Fatalf("%+v", waiting)
	}
	w.depth["w3"] = 5 // the operator mends it
	w.pass(time.Minute)
	if err := w.respond(waiting[0].ID, guard.Approved); err != nil {
		t.Fatal(err)
	}
	p = w.process()
	p.opts.Paths, p.opts.Target, p.opts.Approval = []string{"a.star"}, "w3", waiting[0].ID
	if _, err := p.run(); err != nil {
		t.Fatal(err)
	}
	w.pass(5 * time.Minute)
	w.tick()
	if len(w.effects) != 0 {
		t.Errorf("%d effects on a target that is well", len(w.effects))
	}
}

// The automation's own action made the condition that it reacts to, and it went round for hours: here a problem gets its attempts, and then a person.
func TestIncidentSelfTriggeredLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Policy.Cooldown, w.settings.Policy.Attempts = time.Minute, 2
	w.sick("w3")
	for range 40 { // each restart fills the queue again, with a minute of health in between
		if r := w.tick(); began(evaluationOrNone(r, "w3")) {
			w.depth["w3"] = 5
			w.pass(90 * time.Second)
			w.tick()
			w.depth["w3"] = 1000
		}
		w.pass(5 * time.Minute)
	}
	if len(w.effects) != 2 {
		t.Errorf("acted %d times on one problem", len(w.effects))
	}
	if !slices.Contains(w.reasons(), "refused by attempts") {
		t.Errorf("told %q", w.reasons())
	}
}

func evaluationOrNone(r *trace.Run, name string) *trace.Evaluation {
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Name == name && t.Evaluation != nil {
				return t.Evaluation
			}
		}
	}
	return &trace.Evaluation{}
}

// Two alert managers delivered one alert, and two workers each carried the action out: here runs beside each other, in whatever order, act once.
func TestIncidentDeliveredTwice(t *testing.T) {
	t.Parallel()
	for i := range 5 {
		files := map[string]string{}
		for _, name := range []string{"a.star", "b.star", "c.star"} { // three runbooks for the same symptom, so that no lock of one keeps them apart
			files[name] = restart + fmt.Sprintf("# %s\n", name)
		}
		w := newWorld(t, files)
		w.settings.Policy.OpenTotal, w.settings.Policy.OpenPerFleet = 10, 10
		w.sick("w3")
		var wg sync.WaitGroup
		for _, path := range []string{"a.star", "b.star", "c.star", "a.star"} {
			p := w.process()
			p.opts.Paths = []string{path}
			p.host.behave = func(pluginhost.Execute) *behaviour { return &behaviour{} }
			wg.Go(func() {
				if _, err := p.run(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(w.effects) != 1 {
			t.Errorf("round %d: %d effects", i, len(w.effects))
		}
		started := w.status().Started
		if len(started) != 1 {
			t.Errorf("round %d: %+v", i, started)
		}
	}
}
