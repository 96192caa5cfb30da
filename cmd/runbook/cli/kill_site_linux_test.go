package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// killSite is a project whose one runbook always finds w2 sick, and whose action appends the action's key to a file: each line
// there is an effect that really happened.
type killSite struct {
	t                 *testing.T
	dir, exe, effects string
	state             control.State
}

const (
	killTarget = "w2"
	aWhile     = 90 * time.Second // a bound on everything that is waited for
)

const killProject = `project(
    metrics = connection("prometheus", config = {"url": %[1]q}),
    sampling = "1s",
    policy = policy(tested = False, %[2]s),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {
        "note": ["/bin/sh", "-c", 'echo "$RUNBOOK_KEY" >>"$0"; sleep 0.1; exit 0', %[3]q],
        "out": ["/bin/sh", "-c", 'echo "$RUNBOOK_KEY" >>"$0"', %[3]q],
        "in": ["/bin/sh", "-c", 'echo "$RUNBOOK_KEY" >>"$0"', %[3]q],
    }})],
)
`

const killRunbook = `"""Always acts on w2."""

runbook(
    owner = "test",
    trigger = every("1s"),
    severity = "warning",
    mode = "auto",
    targets = fleet(all = 'up{job="worker"}', sick = 'queue_depth{job="worker"} > 100', by = "instance", max_bad = 1),
)

`

// oneStep and threeSteps are what the runbook does.
const (
	oneStep = `def run(ctx):
    ctx.exec.run("note", reason = "it is stuck", within = %q)
`
	threeSteps = `def run(ctx):
    ctx.exec.run("out", reason = "it is stuck", within = %[1]q)
    ctx.exec.run("note", reason = "it is stuck", within = %[1]q)
    ctx.exec.run("in", reason = "it is stuck", within = %[1]q)

def cleanup(ctx):
    done = [s.args["command"] for s in ctx.steps if s.ok]
    if "out" in done and "in" not in done:
        ctx.exec.run("in", reason = "put it back", within = %[1]q)
`
)

// newKillSite makes a project with that policy, its state, and metrics that go on for as long as the test does.
func newKillSite(t *testing.T, policy, within string) *killSite {
	t.Helper()
	return newKillSiteThat(t, oneStep, policy, within)
}

func newKillSiteThat(t *testing.T, does, policy, within string) *killSite {
	t.Helper()
	s := &killSite{t: t, dir: t.TempDir()}
	s.effects = filepath.Join(s.dir, "effects")
	metrics := httptest.NewServer(liveMetrics(t))
	t.Cleanup(metrics.Close)
	for name, text := range map[string]string{
		"project.star": fmt.Sprintf(killProject, metrics.URL, policy, s.effects),
		"worker.star":  killRunbook + fmt.Sprintf(does, within),
		"effects":      "",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.state, err = control.Init(filepath.Join(s.dir, "state"), filepath.Join(s.dir, "gate")); err != nil {
		t.Fatal(err)
	}
	if err := pebble.Create(filepath.Join(s.state.Dir, "store")); err != nil {
		t.Fatal(err)
	}
	// A file of its own, so that its processes can be told from those of other tests.
	program, err := exec.LookPath("runbook")
	if err != nil {
		t.Fatal(err)
	}
	s.exe = filepath.Join(s.dir, "runbook")
	if err := os.Link(program, s.exe); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.nothingRuns() })
	return s
}

// liveMetrics answers PromQL over three workers of which one is stuck, measured every 20 ms until the moment of the question.
func liveMetrics(t *testing.T) http.Handler {
	db := recorded.New(recorded.Options{Now: time.Now})
	api := db.Handler()
	var lock sync.Mutex
	const interval = 20 * time.Millisecond
	next := time.Now().Add(-5 * time.Second)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		for ; !next.After(time.Now()); next = next.Add(interval) {
			for worker, depth := range map[string]float64{"w1": 3, killTarget: 500, "w3": 4} {
				for name, v := range map[string]float64{"up": 1, "queue_depth": depth} {
					l := map[string]string{"__name__": name, "job": "worker", "instance": worker}
					if err := db.Append(l, next, v); err != nil {
						t.Error(err)
					}
				}
			}
		}
		lock.Unlock()
		api.ServeHTTP(w, r)
	})
}

// command is the real program, not started yet.
func (s *killSite) command(env []string, args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.CommandContext(s.t.Context(), s.exe, args...)
	cmd.Env = append([]string{noRaceSleep, "PATH=/usr/bin:/bin"}, env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, errs
	return cmd, out, errs
}

// does runs a command to its end.
func (s *killSite) does(want problem.Exit, args ...string) []byte {
	s.t.Helper()
	cmd, out, errs := s.command(nil, args...)
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != int(want) {
		s.t.Fatalf("runbook %s: %v, want exit %d\n%s\n%s", strings.Join(args, " "), err, want, out, errs)
	}
	return out.Bytes()
}

// tick is one run that looks at the target whatever the schedule says, and its exit code.
func (s *killSite) tick(target string) (*trace.Run, problem.Exit) {
	s.t.Helper()
	cmd, out, errs := s.command(nil, "run", "--json", "--target", target)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		s.t.Fatalf("run: %v\n%s", err, errs)
	}
	r, err := trace.Decode(out.Bytes())
	if err != nil {
		s.t.Fatalf("run: %v\n%s\n%s", err, out, errs)
	}
	noTarget := func(p *problem.Problem) bool { return p.Code == problem.NotFound } // "nobody": the run only recovers and verifies
	if slices.ContainsFunc(r.Problems, func(p *problem.Problem) bool { return !noTarget(p) }) || len(r.Runbooks) != 1 || r.Runbooks[0].Problem != nil {
		s.t.Fatalf("the run could not do its work:\n%s\n%s", out, errs)
	}
	return r, problem.Exit(cmd.ProcessState.ExitCode())
}

// killedAt runs until the program kills itself at a point of its action.
func (s *killSite) killedAt(point string) {
	s.t.Helper()
	cmd, out, errs := s.command([]string{envKillAt + "=" + point}, "run", "--target", killTarget)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Exited() {
		s.t.Fatalf("the run was to be killed at %q: %v\n%s\n%s", point, err, out, errs)
	}
}

// evaluation is what a run did about the sick target.
func (s *killSite) evaluation(r *trace.Run) *trace.Evaluation {
	s.t.Helper()
	for _, x := range r.Runbooks[0].Targets {
		if x.Name == killTarget && x.Evaluation != nil {
			return x.Evaluation
		}
	}
	b, err := json.Marshal(r)
	s.t.Fatalf("%s was not evaluated: %s %v", killTarget, b, err)
	return nil
}

// tickUntil ticks until done says so. Every tick is shown to it.
func (s *killSite) tickUntil(what string, done func(*trace.Evaluation, problem.Exit) bool) *trace.Evaluation {
	s.t.Helper()
	for deadline := time.Now().Add(aWhile); ; {
		r, exit := s.tick(killTarget)
		ev := s.evaluation(r)
		if done(ev, exit) {
			return ev
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %s; the last run ended as %s: %s", what, aWhile, ev.Outcome, ev.Reason)
		}
	}
}

// refusals are the guards that refused the action of an evaluation.
func refusals(ev *trace.Evaluation) []string {
	var out []string
	for _, x := range ev.Events {
		if x.Action == nil {
			continue
		}
		for _, v := range x.Action.Verdicts {
			if !v.Passed {
				out = append(out, v.Guard)
			}
		}
	}
	return out
}

// keys are the effects that happened, by the key of their action, in order.
func (s *killSite) keys() []string {
	s.t.Helper()
	b, err := os.ReadFile(s.effects)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// read opens the store as every command does.
func (s *killSite) read(fn func(*pebble.Store)) {
	s.t.Helper()
	st, err := pebble.New(storeConfig(s.state, "test"))
	if err != nil {
		s.t.Fatal(err)
	}
	fn(st)
	if err := st.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// steps are all records of actions, the newest first.
func (s *killSite) steps() []*action.Step {
	s.t.Helper()
	var steps []*action.Step
	s.read(func(st *pebble.Store) {
		var err error
		if steps, err = ledger.Steps(s.t.Context(), st, 1000, nil); err != nil {
			s.t.Fatal(err)
		}
	})
	return steps
}

// open are the attempts that keep their target.
func (s *killSite) open() []ledger.Open {
	s.t.Helper()
	var open []ledger.Open
	s.read(func(st *pebble.Store) {
		err := st.View(s.t.Context(), []string{ledger.KeyOpen}, func(tx store.ReadTx) (err error) {
			open, err = ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
	})
	return open
}

// nothingRuns waits until no process of this site is left: not the program, a worker, a plugin, nor a command.
func (s *killSite) nothingRuns() {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := s.running()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("still running: %q", left)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s *killSite) running() []string {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		s.t.Fatal(err)
	}
	var left []string
	for _, p := range entries {
		exe, _ := os.Readlink(filepath.Join(p, "exe"))
		line, _ := os.ReadFile(filepath.Join(p, "cmdline")) // of a process that has ended: nothing
		ours := strings.HasPrefix(exe, s.exe) || bytes.Contains(line, []byte(s.dir))
		if ours {
			left = append(left, filepath.Base(p)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

// childrenGone says that no process that a record names is left.
func (s *killSite) childrenGone(steps []*action.Step) {
	s.t.Helper()
	for _, x := range steps {
		if gone, err := process.Gone(x.Child); !gone || err != nil {
			s.t.Errorf("action %s: process group %d is left (%v)", x.ID, x.Child.Group, err)
		}
	}
}
