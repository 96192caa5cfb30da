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
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// crashed is a world in which a run was killed at a point of its first action.
func crashed(t *testing.T, point string) *world {
	t.Helper()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	p.hook = func(at string) {
		if at == point {
			p.kill()
		}
	}
	if _, err := p.run(); err == nil {
		t.Fatal("the run was not killed")
	}
	w.pass(15 * time.Second)
	return w
}

func TestRecover(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]struct {
		step    action.StepState
		killed  int
		reason  string
		outcome trace.Outcome
	}{
		"reserved": {action.NotStarted, 0, "interrupted", trace.Acted},
		"begun":    {action.InDoubt, 1, "in doubt: ", trace.Skipped},
		"acting":   {action.InDoubt, 1, "in doubt: ", trace.Skipped},
		"finished": {action.InDoubt, 1, "in doubt: ", trace.Skipped},
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := crashed(t, point)
			r := w.tick()
			if len(r.Recovered) != 1 || r.Recovered[0].To != want.step || len(w.killed) != want.killed || evaluationOf(t, r, "w3").Outcome != want.outcome {
				t.Errorf("recovered %+v, killed %+v, %+v", r.Recovered, w.killed, evaluationOf(t, r, "w3"))
			}
			if len(w.told) != 1 || !strings.HasPrefix(w.told[0].Reason, want.reason) {
				t.Errorf("told %q", w.reasons())
			}
			if r := w.tick(); len(r.Recovered) != 0 || len(w.told) != 1 {
				t.Errorf("again: %+v, told %q", r.Recovered, w.reasons())
			}
		})
	}
}

// An owner in another container is left alone until its run must have ended, and its pids, which mean nothing here, are not killed.
func TestRecoverUnseen(t *testing.T) {
	t.Parallel()
	w := crashed(t, "acting")
	unseen := func() *trace.Run {
		p := w.process()
		p.look = func(action.Owner) process.Liveness { return process.Unseen }
		r, err := p.run()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := unseen(); len(r.Recovered) != 0 || !slices.Equal(w.states(), []action.StepState{action.Begun}) {
		t.Errorf("%+v", r.Recovered)
	}
	w.pass(16 * time.Minute)
	if r := unseen(); len(r.Recovered) != 1 || len(w.killed) != 0 || len(r.InDoubt) != 1 {
		t.Errorf("%+v, killed %+v", r.Recovered, w.killed)
	}
}

// What an owner left running does not end: its target is kept, others are looked after, and somebody is told.
func TestWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	w := crashed(t, "acting")
	w.sick("w4")
	p := w.process()
	p.end = func(action.Child) error { return errors.New("it waits for a disk") }
	r, err := p.run()
	if err != nil || len(r.Recovered) != 0 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Message, "it waits for a disk") {
		t.Fatalf("%v, %+v, %+v", err, r.Recovered, r.Problems)
	}
	if w.effects[w.steps()[0].Key] != 1 || len(w.steps()) > 1 && w.steps()[1].Identity.Target == w.steps()[0].Identity.Target {
		t.Errorf("the target was acted on: %s", w.states())
	}
	if evaluationOf(t, r, "w4").Outcome == "" {
		t.Error("another target was not looked at")
	}
	w.pass(15 * time.Second)
	if r := w.tick(); len(r.Recovered) != 1 || r.Recovered[0].To != action.InDoubt {
		t.Errorf("%+v", r.Recovered)
	}
}

// Recovery and verification do not wait for what a run needs besides.
func TestRecoverWithoutASource(t *testing.T) {
	t.Parallel()
	w := crashed(t, "acting")
	broken := newWorldIn(t, t.TempDir(), strings.Replace(projectText, `"http://localhost:9090"`, `secret.env("NOT_SET")`, 1), nil)
	w.settings.Metrics = broken.settings.Metrics
	r, err := w.process().run()
	if err == nil || len(r.Recovered) != 1 || len(r.InDoubt) != 1 {
		t.Errorf("%v, recovered %+v", err, r.Recovered)
	}
}

// An action whose timeout does not fit into what is left of the run does not start.
func TestNoTimeLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.Replace(restart, `"20s"`, `"6m"`, 1)})
	w.sick("w3")
	r := w.tick()
	if ev := evaluationOf(t, r, "w3"); ev.Outcome != trace.Refused || ev.Problem.Code != problem.Deadline || len(w.steps()) != 0 || len(w.told) != 1 {
		t.Errorf("%+v, told %q", ev, w.reasons())
	}
}

// A heartbeat says that a run was completed. Silence must not look like health, so a run that was cut short leaves none.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	beats := 0
	beat := func(*trace.Run) error { beats++; return nil }
	p := w.process()
	p.beat = beat
	if _, err := p.run(); err != nil || beats != 1 {
		t.Errorf("%v, %d beats", err, beats)
	}
	w.sick("w3")
	p = w.process()
	p.beat = beat
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.ctx, p.hook = ctx, func(string) { cancel() }
	if r, err := p.run(); err != nil || r.Exit != problem.ExitInterrupted || beats != 1 {
		t.Errorf("%v, %d beats", err, beats)
	}
	w.pass(time.Minute)
	p = w.process()
	p.beat = func(*trace.Run) error { return errors.New("no such directory") }
	r, err := p.run()
	if err != nil || len(r.Problems) != 1 || r.Exit == problem.ExitOK {
		t.Errorf("%v, exit %d, %+v", err, r.Exit, r.Problems)
	}
}

// The slot of a schedule is run once, whoever asks, and a run by hand needs none.
func TestSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.Replace(watch, `"15s"`, `"5m"`, 1)})
	due := func(o Options) bool {
		p := w.process()
		p.opts = o
		r, err := p.run()
		if err != nil {
			t.Fatal(err)
		}
		return r.Runbooks[0].Due
	}
	if !due(Options{}) || due(Options{}) {
		t.Error("a slot was run never or twice")
	}
	if !due(Options{Target: "w3"}) || !due(Options{DryRun: true}) {
		t.Error("a run by hand waits for a slot")
	}
	w.pass(3 * time.Minute)
	if !due(Options{}) || due(Options{}) {
		t.Error("the next slot")
	}
	w.pass(time.Hour)
	if !due(Options{}) || due(Options{}) {
		t.Error("missed slots are one")
	}
	p := w.process()
	p.opts.Target = "w33"
	if r, err := p.run(); err != nil || r.Exit != problem.ExitUsage || len(w.told) != 0 || !strings.Contains(r.Problems[0].Message, `did you mean "w3"`) {
		t.Errorf("%v, exit %d, %+v", err, r.Exit, r.Problems)
	}
}

// A secret argument reaches the plugin, and no record.
func TestSecretArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.Replace(restart, `"x.service",`, `"x.service", token = "hunter2",`, 1)})
	w.sick("w3")
	p := w.process()
	if _, err := p.run(); err != nil {
		t.Fatal(err)
	}
	if got, _ := p.host.done[0].Args.Get("token"); renderValue(got) != `"hunter2"` {
		t.Errorf("the plugin got %s", renderValue(got))
	}
	for key, val := range w.dump(t) {
		if strings.Contains(val, "hunter2") && !strings.HasPrefix(key, "source/") { // which is the file that its author wrote it into
			t.Errorf("%s holds the secret", key)
		}
	}
}
