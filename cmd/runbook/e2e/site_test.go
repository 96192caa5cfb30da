//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// site is a project for a lab, with a state directory.
type site struct {
	*lab
	t          *testing.T
	dir, state string
	exe        string // a name of the binary of its own, so that its processes can be told from those of other tests
	heartbeat  string
}

const projectFile = `project(
    metrics = connection("prometheus", config = {"url": %q}),
    sampling = "1s",
    heartbeat = "heartbeat.prom",
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {
        "restart": [%q, "__demo-service", "restart", "--dir", %q, "{target}"],
        # Notes that it began, and takes until the file "go" is there.
        "slow": ["/bin/sh", "-c", 'echo "$RUNBOOK_KEY" >>"$0/began"; while ! [ -e "$0/go" ]; do sleep 0.05; done; echo "$RUNBOOK_KEY" >>"$0/ended"', %[4]q],
        # The same with a process of its own, which nothing but its group ties to it, and which a kill of the run leaves behind.
        "hang": ["/bin/sh", "-c", 'if ! [ -e "$0/go" ]; then sleep 600 & fi; echo "$RUNBOOK_KEY" >>"$0/began"; wait; echo "$RUNBOOK_KEY" >>"$0/ended"', %[4]q],
    }})],
    %[5]s
)
`

const runbookFile = `runbook(
    owner = "team-%[1]s",
    trigger = every("1s"),
    severity = "warning",
    mode = "auto",
    targets = fleet(
        all = 'up{job="worker"}', by = "instance", held = "2s", max_bad = 1,
        sick = 'queue_depth{job="worker"} > 100',
    ),
)

def run(ctx):
    if ctx.metrics.value("rate(jobs_done_total[4s])", where = {"job": "worker", "instance": ctx.target.name}) > 0:
        return nothing("it still gets through its jobs")
    %[2]s
`

// newSite makes a project. runbooks are the last lines of each runbook's run(ctx), by name; settings are further fields of project(...).
func (l *lab) newSite(t *testing.T, settings string, runbooks map[string]string) *site {
	t.Helper()
	s := &site{lab: l, t: t, dir: t.TempDir()}
	s.heartbeat, s.exe = filepath.Join(s.dir, "heartbeat.prom"), filepath.Join(s.dir, "runbook")
	if err := os.Link(binary, s.exe); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(settings, "policy = ") {
		settings += "\n    policy = policy(tested = False),"
	}
	write(s.t, filepath.Join(s.dir, "project.star"), fmt.Sprintf(projectFile, l.prometheus, binary, l.service, s.dir, settings))
	for name, does := range runbooks {
		write(s.t, filepath.Join(s.dir, name+".star"), fmt.Sprintf(runbookFile, name, does))
	}
	s.freshState()
	t.Cleanup(s.nothingRuns)
	return s
}

// freshState makes a state directory that knows of nothing, and uses it from now on.
func (s *site) freshState() {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "state-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.state = dir
	s.does(problem.ExitOK, "init", "--state", dir)
	s.t.Cleanup(func() { // the gate is on a memory file system
		if st, err := control.Open(dir); err == nil && filepath.Base(st.GateDir) == st.Namespace {
			_ = os.RemoveAll(st.GateDir)
		}
	})
}

// command is the real binary with the site's project and state.
func (s *site) command(args ...string) (cmd *exec.Cmd, out, errs *output) {
	out, errs = new(output), new(output)
	cmd = exec.CommandContext(s.t.Context(), s.exe, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "RUNBOOK_PROJECT=" + s.dir, "RUNBOOK_STATE=" + s.state}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, errs
	return cmd, out, errs
}

// does runs a command to its end.
func (s *site) does(want problem.Exit, args ...string) (stdout, stderr string) {
	s.t.Helper()
	cmd, out, errs := s.command(args...)
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != int(want) {
		s.t.Fatalf("runbook %s: %v, want exit %d\n%s%s", strings.Join(args, " "), err, want, out, errs)
	}
	return out.String(), errs.String()
}

// run is one tick that looks at w2 whatever the schedule says.
func (s *site) run(args ...string) (*trace.Run, problem.Exit) {
	s.t.Helper()
	r := s.startRun(append([]string{"--target", stuck}, args...)...)
	return r.ends()
}

// ticking is a run that goes on.
type ticking struct {
	*exec.Cmd
	s         *site
	out, errs *output
}

func (s *site) startRun(args ...string) ticking {
	s.t.Helper()
	cmd, out, errs := s.command(append([]string{"run", "--json"}, args...)...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return ticking{cmd, s, out, errs}
}

// ends waits for the run and returns its record.
func (k ticking) ends() (*trace.Run, problem.Exit) {
	k.s.t.Helper()
	err := k.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		k.s.t.Fatalf("run: %v\n%s", err, k.errs)
	}
	r, err := trace.Decode([]byte(k.out.String()))
	if err != nil || r.ID == "" {
		k.s.t.Fatalf("run: %v\n%s%s", err, k.out, k.errs)
	}
	return r, problem.Exit(k.ProcessState.ExitCode())
}

// evaluation is what a runbook decided about w2, and the action that it asked for, or nil.
func (s *site) evaluation(r *trace.Run, runbook string) (*trace.Evaluation, *trace.Action) {
	s.t.Helper()
	for _, rb := range r.Runbooks {
		if rb.Name != runbook {
			continue
		}
		for _, x := range rb.Targets {
			if x.Name != stuck || x.Evaluation == nil {
				continue
			}
			for _, e := range x.Evaluation.Events {
				if e.Action != nil {
					return x.Evaluation, e.Action
				}
			}
			return x.Evaluation, nil
		}
	}
	s.t.Fatalf("%s was not evaluated for %s:\n%s", runbook, stuck, show(r))
	return nil, nil
}

// refusedBy runs and expects that the guard, and no action, is the answer. Refusals that only pass with time come first.
func (s *site) refusedBy(runbook, name string) guard.Verdict {
	s.t.Helper()
	var found guard.Verdict
	waitFor(s.t, "a refusal by "+name, func() (bool, string, error) {
		r, exit := s.run()
		ev, act := s.evaluation(r, runbook)
		if exit != problem.ExitRefused || ev.Outcome != trace.Refused && ev.Outcome != trace.Skipped {
			s.t.Fatalf("exit %d, %s: %s\n%s", exit, ev.Outcome, ev.Reason, show(r))
		}
		if act == nil {
			return false, ev.Reason, nil
		}
		i := slices.IndexFunc(act.Verdicts, func(v guard.Verdict) bool { return v.Guard == name && !v.Passed })
		if i < 0 || act.State != "" {
			return false, fmt.Sprintf("%+v", act), nil
		}
		found = act.Verdicts[i]
		return true, "", nil
	})
	return found
}

// actsInTime runs until it acts, which guards may put off, and never fails.
func (s *site) actsInTime(runbook string) *trace.Action {
	s.t.Helper()
	var done *trace.Action
	waitFor(s.t, "an action", func() (bool, string, error) {
		r, exit := s.run()
		ev, act := s.evaluation(r, runbook)
		if exit != problem.ExitOK && exit != problem.ExitRefused {
			s.t.Fatalf("exit %d, %s: %s\n%s", exit, ev.Outcome, ev.Reason, show(r))
		}
		done = act
		return ev.Outcome == trace.Acted, ev.Reason, nil
	})
	return done
}

// actions are the records of actions, the newest first.
func (s *site) actions(args ...string) []action.Step {
	s.t.Helper()
	out, _ := s.does(problem.ExitOK, append([]string{"actions", "--json"}, args...)...)
	var list struct{ Actions []action.Step }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Actions
}

// lines are those of a file that a slow action writes; of one that is not there, none.
func (s *site) lines(name string) []string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// begins waits until n slow actions have begun.
func (s *site) begins(n int) {
	s.t.Helper()
	waitFor(s.t, fmt.Sprintf("slow action %d to begin", n), func() (bool, string, error) {
		return len(s.lines("began")) == n, fmt.Sprint(s.lines("began")), nil
	})
}

// letGo lets slow actions end.
func (s *site) letGo() {
	s.t.Helper()
	write(s.t, filepath.Join(s.dir, "go"), "")
}

// nothingRuns waits until no process of this site is left; what does not end is a failure, and is ended.
func (s *site) nothingRuns() {
	s.t.Helper()
	const bound = 10 * time.Second
	for deadline := time.Now().Add(bound); ; <-time.After(poll) {
		left := s.running()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for pid, line := range left {
				s.t.Errorf("still running after %s: %d %s", bound, pid, line)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
	}
}

// running are the processes of the site: the program, its workers and plugins, and commands, whose lines name its directory.
func (s *site) running() map[int]string {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		s.t.Fatal(err)
	}
	left := map[int]string{}
	for _, p := range procs {
		exe, _ := os.Readlink(filepath.Join(p, "exe"))
		line, _ := os.ReadFile(filepath.Join(p, "cmdline")) // of a process that has ended: nothing
		pid, err := strconv.Atoi(filepath.Base(p))
		if err == nil && (exe == s.exe || bytes.Contains(line, []byte(s.dir))) {
			left[pid] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return left
}

// quick says that a command answers within a second: the best of three, because the machine may be busy.
func (s *site) quick(want problem.Exit, args ...string) string {
	s.t.Helper()
	best, said := time.Hour, ""
	for range 3 {
		began := time.Now()
		said, _ = s.does(want, args...)
		if best = min(best, time.Since(began)); best < time.Second {
			return said
		}
	}
	s.t.Errorf("runbook %s took %s", strings.Join(args, " "), best)
	return said
}

func show(r *trace.Run) string {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}
