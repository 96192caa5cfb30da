//go:build e2e

package e2e

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// The whole cycle: healthy, sick, restarted, verified, sick again and refused by the cooldown; then, knowing of nothing,
// halted, resumed, restarted.
func TestE2ERestartsAStuckWorker(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.newSite(t, "", map[string]string{"worker": `ctx.exec.run("restart", reason = "queue stuck", within = "30s")`})

	if _, err := os.Stat(s.heartbeat); !os.IsNotExist(err) {
		t.Errorf("a heartbeat before any run: %v", err)
	}
	r, exit := s.run()
	if exit != problem.ExitOK || len(r.Runbooks) != 1 || len(r.Runbooks[0].Targets) != 3 {
		t.Fatalf("exit %d\n%s", exit, show(r))
	}
	for _, x := range r.Runbooks[0].Targets {
		if x.Condition != trace.Healthy || x.Evaluation != nil {
			t.Errorf("%s is %s and was evaluated: %v", x.Name, x.Condition, x.Evaluation != nil)
		}
	}
	s.beats(r)

	healthy := l.facts()
	l.stick()
	r, exit = s.run()
	ev, act := s.evaluation(r, "worker")
	if exit != problem.ExitOK || ev.Outcome != trace.Acted || act.State != action.Succeeded {
		t.Fatalf("exit %d\n%s", exit, show(r))
	}
	s.beats(r)
	restarted := l.facts()
	l.onlyRestarted(healthy, restarted)
	steps := s.actions()
	if len(steps) != 1 || steps[0].ID != act.ID || steps[0].State != action.Succeeded || steps[0].Action != "exec.run" || steps[0].Identity.Target != "instance=w2" {
		t.Errorf("recorded: %+v", steps)
	}

	var verdict trace.Verified
	s.wait("the verdict", func() (bool, string, error) {
		r, exit := s.run()
		i := slices.IndexFunc(r.Verified, func(v trace.Verified) bool { return v.Attempt == ev.Attempt })
		if i < 0 || exit != problem.ExitOK && exit != problem.ExitRefused {
			t.Fatalf("exit %d\n%s", exit, show(r))
		}
		verdict = r.Verified[i]
		return verdict.State != action.Complete, verdict.Detail, nil
	})
	if verdict.State != action.Verified {
		t.Errorf("it is %s: %s", verdict.State, verdict.Detail)
	}

	l.stick()
	v := s.refusedBy("worker", "cooldown")
	if lifts := steps[0].ReservedAt.Wall.Add(time.Hour); v.LiftsAt.Sub(lifts).Abs() > 5*time.Second {
		t.Errorf("the cooldown lifts at %s, want %s", v.LiftsAt, lifts)
	}
	out, _ := s.does(problem.ExitRefused, "run", "--target", stuck)
	if want := regexp.MustCompile(`cooldown.*` + v.LiftsAt.UTC().Format("15:04")); !want.MatchString(out) {
		t.Errorf("a person does not read when it lifts (%s):\n%s", want, out)
	}
	if len(s.actions()) != 1 || !cmp.Equal(l.facts().pids, restarted.pids) {
		t.Error("it acted although it was refused")
	}

	s.freshState()
	s.does(problem.ExitOK, "halt", "--reason", "a test")
	s.refusedBy("worker", "halt")
	if !cmp.Equal(l.facts().pids, restarted.pids) {
		t.Error("it acted although it was halted")
	}
	s.does(problem.ExitOK, "resume", "--reason", "the test goes on")
	s.actsInTime("worker")
	l.onlyRestarted(restarted, l.facts())
}

// onlyRestarted says that w2 was started once in between, and the others were not.
func (l *lab) onlyRestarted(before, after facts) {
	l.t.Helper()
	want := maps.Clone(before.starts)
	want[stuck]++
	if !cmp.Equal(want, after.starts) {
		l.t.Errorf("starts: %v, then %v", before.starts, after.starts)
	}
	for name, pid := range before.pids {
		if changed := after.pids[name] != pid; changed != (name == stuck) {
			l.t.Errorf("%s had pid %d and has %d", name, pid, after.pids[name])
		}
	}
}

var beat = regexp.MustCompile(`(?m)^runbook_last_run_completed_timestamp_seconds (\S+)$`)

// beats says that the run left the heartbeat.
func (s *site) beats(r *trace.Run) {
	s.t.Helper()
	b, err := os.ReadFile(s.heartbeat)
	if err != nil {
		s.t.Error(err)
		return
	}
	m := beat.FindSubmatch(b)
	if m == nil {
		s.t.Fatalf("no time in the heartbeat:\n%s", b)
	}
	at, err := strconv.ParseFloat(string(m[1]), 64)
	if ended := float64(r.Ended.UnixMilli()) / 1000; err != nil || at < ended-0.001 || at > ended+0.001 {
		s.t.Errorf("the heartbeat is of %s, the run ended at %f: %v", m[1], ended, err)
	}
}
