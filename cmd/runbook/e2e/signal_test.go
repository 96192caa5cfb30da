//go:build e2e

package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// A person ends what is in flight: the run that was doing it records that nobody knows how far it came.
func haltedWithKill(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	run := s.startRun("--target", stuck)
	s.begins(1)
	out, _ := s.does(problem.ExitOK, "halt", "--kill", "--reason", "a test")
	if !strings.Contains(out, "killed: it is in doubt now") {
		t.Errorf("halt says:\n%s", out)
	}
	r, exit := run.ends()
	if ev, act := s.evaluation(r, "worker"); exit != problem.ExitRefused || ev.Outcome != trace.DoubtRemains || act.State != action.InDoubt {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
	doubts := s.actions("--in-doubt")
	if len(doubts) != 1 {
		t.Fatalf("in doubt: %+v", doubts)
	}
	if gone, err := process.Gone(doubts[0].Child); !gone || err != nil {
		t.Errorf("process group %d is left: %v", doubts[0].Child.Group, err)
	}
	s.does(problem.ExitOK, "resume", "--reason", "the test goes on")
	if r, exit := s.run(); exit != problem.ExitRefused || len(r.InDoubt) != 1 {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
	if began := s.lines("began"); len(began) != 1 {
		t.Errorf("began: %q", began)
	}
}

// A scheduler that is restarted, or a person with Ctrl-C, does not cut an action short: it ends, and is recorded.
func interrupted(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	run := s.startRun("--target", stuck)
	s.begins(1)
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.wait("the run to have heard the signal", func() (bool, string, error) {
		return strings.Contains(run.errs.String(), "stopping in order"), run.errs.String(), nil
	})
	s.letGo()
	r, exit := run.ends()
	if _, act := s.evaluation(r, "worker"); exit != problem.ExitInterrupted || act.State != action.Succeeded {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
	if steps := s.actions(); len(steps) != 1 || steps[0].State != action.Succeeded || !slices.Equal(s.lines("began"), s.lines("ended")) {
		t.Errorf("recorded: %+v; began %q, ended %q", steps, s.lines("began"), s.lines("ended"))
	}
}

// A reader that does not want all of the output leaves no process, no directory and nothing unsettled behind.
func piped(t *testing.T, l *lab) {
	s := l.newSite(t, "", map[string]string{"worker": slow})
	s.letGo()
	for range 3 {
		cmd, out, errs := s.command()
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `"$0" run --target "$1" -v 2>&1 | head -1`, s.exe, stuck}
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s%s", err, out, errs)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines: %s", n, out)
		}
		s.nothingRuns()
	}
	// The signal came with the second line that it wrote, before it acted: the next run does.
	r, exit := s.run()
	if _, act := s.evaluation(r, "worker"); exit != problem.ExitOK || act == nil || act.State != action.Succeeded {
		t.Errorf("exit %d\n%s", exit, show(r))
	}
	if acts, began := s.actions(), s.lines("began"); len(acts) != 1 || len(began) != 1 {
		t.Errorf("actions: %+v, begun: %q", acts, began)
	}
	st, err := control.Open(s.state)
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(st.SocketDir(), "r*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	s.does(problem.ExitOK, "status")
}
