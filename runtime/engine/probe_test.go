package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

// The next run asks the plugin what became of an action in doubt; what it knows settles the action, the attempt and its cleanup.
func TestProbe(t *testing.T) {
	t.Parallel()
	answer := func(state action.StepState) func(context.Context) (pluginhost.ProbeResult, error) {
		return func(context.Context) (pluginhost.ProbeResult, error) {
			return pluginhost.ProbeResult{State: state, Message: "its invocation is another"}, nil
		}
	}
	for _, c := range []struct {
		name    string
		probe   func(context.Context) (pluginhost.ProbeResult, error)
		attempt action.AttemptState
		cleanup action.CleanupState
		states  []action.StepState
		failed  bool
	}{
		{"done", answer(action.ResolvedDone), action.Closed, action.CleanupDone, []action.StepState{action.ResolvedDone, ok}, false},
		{"not done", answer(action.ResolvedNotDone), action.Closed, action.CleanupDone, []action.StepState{action.ResolvedNotDone}, false},
		{"cannot tell", nil, action.Interrupted, action.CleanupWaits, []action.StepState{action.InDoubt}, false},
		{"lies", answer(action.Succeeded), action.Interrupted, action.CleanupWaits, []action.StepState{action.InDoubt}, false},
		{"fails", func(context.Context) (pluginhost.ProbeResult, error) { return pluginhost.ProbeResult{}, errPlugin }, action.Interrupted, action.CleanupWaits, []action.StepState{action.InDoubt}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": drained})
			w.sick("w3")
			w.killAt("acting", 1)
			w.depth["w3"] = 5
			w.pass(5 * time.Minute)
			p := w.process()
			p.host.probe = c.probe
			r := mustRun(t, p)
			wantSteps(t, w, c.attempt, c.cleanup, c.states...)
			if len(p.host.probed) != 1 || p.host.probed[0].Function != "drain" || p.host.probed[0].Target.Name != "w3" {
				t.Errorf("asked %+v", p.host.probed)
			}
			settled := c.states[0] != action.InDoubt
			told := slices.ContainsFunc(w.told, func(m notify.Message) bool {
				return m.Kind == notify.Info && strings.Contains(m.Text, "its invocation is another")
			})
			if told != settled || (len(r.InDoubt) == 0) != settled {
				t.Errorf("told %v, in doubt %+v", w.reasons(), r.InDoubt)
			}
			if c.failed != slices.ContainsFunc(r.Problems, func(p *problem.Problem) bool { return p.Code == problem.PluginFailed }) {
				t.Errorf("problems %v", r.Problems)
			}
		})
	}
}

// An action whose function cannot be asked, or whose owner is still at work, is not asked about.
func TestProbeNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	w.killAt("acting", 1)
	w.pass(time.Minute)
	p := w.process()
	mustRun(t, p)
	if len(p.host.probed) > 0 {
		t.Errorf("asked %+v of a function that cannot be asked", p.host.probed)
	}

	w = newWorld(t, map[string]string{"a.star": drained})
	w.sick("w3")
	owner := w.process()
	owner.behaveAt(1, behaviour{wait: errors.New("the stream broke")})
	mustRun(t, owner)
	w.mu.Lock()
	w.live[owner.self.PID] = true
	w.mu.Unlock()
	w.pass(time.Minute)
	p = w.process()
	mustRun(t, p)
	if len(p.host.probed) > 0 {
		t.Errorf("asked %+v while its owner is at work", p.host.probed)
	}
}

// What never started leaves the target as it was: it does not settle.
func TestNothingBeganDoesNotSettle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	p.behaveAt(1, behaviour{execute: errPlugin})
	mustRun(t, p)
	w.pass(15 * time.Second)
	w.tick()
	if got := w.states(); !slices.Equal(got, []action.StepState{action.NotStarted, ok}) {
		t.Errorf("%s", got)
	}
}
