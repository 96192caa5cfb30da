//go:build e2e

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// manyRunbook is one of many, each of which finds a target of its own sick.
const manyRunbook = `runbook(
    owner = "test",
    trigger = every("1s"),
    severity = "warning",
    mode = "auto",
    targets = single("s%[1]d", labels = {"job": "worker"}, sick = "max(queue_depth) > 100"),
)

def run(ctx):
    ctx.exec.run("note", reason = "it is stuck", within = "1ms")
`

// newManySite makes a project with n such runbooks; does is the shell command of their action, which has the site's directory as $0.
func newManySite(t *testing.T, n int, policy, does string) *killSite {
	t.Helper()
	s := &killSite{t: t, dir: t.TempDir()}
	s.effects = filepath.Join(s.dir, "effects")
	metrics := httptest.NewServer(liveMetrics(t))
	t.Cleanup(metrics.Close)
	files := map[string]string{"effects": "", "project.star": fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": %q}),
    sampling = "1s",
    policy = policy(tested = False, %s),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {"note": ["/bin/sh", "-c", %q, %q]}})],
)
`, metrics.URL, policy, does, s.dir)}
	for i := range n {
		files[fmt.Sprintf("r%d.star", i)] = fmt.Sprintf(manyRunbook, i)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("runbook")
	if err != nil {
		t.Fatal(err)
	}
	s.exe = filepath.Join(s.dir, "runbook")
	if err := os.Link(program, s.exe); err != nil {
		t.Fatal(err)
	}
	s.freshState()
	t.Cleanup(func() { s.nothingRuns() })
	return s
}

func (s *killSite) freshState() {
	s.t.Helper()
	var err error
	if s.state, err = control.Init(filepath.Join(s.dir, "state"), filepath.Join(s.dir, "gate")); err != nil {
		s.t.Fatal(err)
	}
	if err := pebble.Create(filepath.Join(s.state.Dir, "store")); err != nil {
		s.t.Fatal(err)
	}
}

// 16 runs at once on one state directory, each with a runbook of its own that wants to act at once: never more attempts than the rate allows
// begin, and never more are under way than may be.
func TestE2ESixteenRunsAtOnce(t *testing.T) {
	t.Parallel()
	const runs = 16
	for _, c := range []struct {
		name, policy  string
		began, beside int
	}{
		{"rate", `rates = [rate(3, per = "10m")], open = 16, open_per_fleet = 16`, 3, 3},
		{"open", `rates = [rate(100, per = "10m")], open = 2, open_per_fleet = 2`, 100, 2},
		{"as it ships", `mode = "auto"`, 3, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newManySite(t, runs, c.policy, `echo b >>"$0/effects"; sleep 0.2; echo e >>"$0/effects"`)
			var all sync.WaitGroup
			said := make([]string, runs)
			for i := range runs {
				cmd, out, errs := s.command(nil, "run", "--json", fmt.Sprintf("r%d.star", i))
				all.Go(func() {
					err := cmd.Run()
					said[i] = out.String() + errs.String()
					busy := bytes.Contains(out.Bytes(), []byte(problem.StoreBusy)) // 16 on a slow machine may wait for the store in vain
					if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != int(problem.ExitRefused) && !busy) {
						t.Errorf("run %d: %v\n%s%s", i, err, out, errs)
					}
				})
			}
			all.Wait()
			b, err := os.ReadFile(s.effects)
			if err != nil {
				t.Fatal(err)
			}
			began, under, most := 0, 0, 0
			for word := range strings.FieldsSeq(string(b)) {
				if word == "b" {
					began++
					under++
				} else {
					under--
				}
				most = max(most, under)
			}
			if began > c.began || began == 0 || most > c.beside {
				t.Errorf("%d began, %d of them beside each other; at most %d and %d may\n%s", began, most, c.began, c.beside, strings.Join(said, "\n"))
			}
			t.Logf("%d began, %d beside each other", began, most)
		})
	}
}

// haltsWanted is how many halts the test below sets: RUNBOOK_TEST_HALTS, or 200: each takes a fifth of a second or more of whole runs, and runtime/control has 1000.
func haltsWanted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("RUNBOOK_TEST_HALTS")
	if text == "" {
		return 200
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The real program halts, again and again, against real runs that start actions in a loop: no action begins between the moment at which halt has
// returned 0 and the resume.
func TestE2ENothingBeginsAfterHalt(t *testing.T) {
	t.Parallel()
	const loops, perState = 3, 250 // a problem has 100 attempts at most, so the state is made anew now and then
	wanted := haltsWanted(t)
	s := newManySite(t, loops, `cooldown = "1ms", attempts = 100, rates = [rate(10000, per = "1s")], open = 100, open_per_fleet = 100, settle = "1ms",
        breaker = 1000, breaker_window = "1m"`, "exit 0")
	stamps := filepath.Join(s.dir, "stamps")
	total := 0
	for done := 0; done < wanted; {
		if done > 0 {
			if err := os.RemoveAll(s.state.Dir); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(s.state.GateDir); err != nil {
				t.Fatal(err)
			}
			s.freshState()
		}
		n := min(perState, wanted-done)
		total += s.haltAgainstRuns(loops, n, stamps)
		done += n
	}
	if total < wanted/20 {
		t.Errorf("only %d actions began: this proves nothing", total)
	}
	t.Logf("%d halts, %d actions begun, none after a halt", wanted, total)
}

// haltAgainstRuns halts and resumes n times while runs go on, and returns how many actions began.
func (s *killSite) haltAgainstRuns(loops, n int, stamps string) (began int) {
	t := s.t
	t.Helper()
	if err := os.WriteFile(stamps, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var ended atomic.Int64
	var all sync.WaitGroup
	for i := range loops {
		all.Go(func() {
			for !stop.Load() {
				cmd, _, errs := s.command([]string{envNote + "=" + stamps}, "run", "--target", fmt.Sprintf("s%d", i), fmt.Sprintf("r%d.star", i))
				err := cmd.Run()
				if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() > int(problem.ExitRefused)) {
					t.Errorf("run: %v\n%s", err, errs)
					return
				}
				ended.Add(1)
			}
		})
	}
	type window struct{ from, to int64 }
	var halted []window
	for i := range n {
		if t.Failed() {
			break
		}
		s.does(problem.ExitOK, "halt", "--state", s.state.Dir, "--reason", "test")
		w := window{from: time.Now().UnixNano()}
		if i%10 == 0 { // runs that began after the halt come to the gate too
			for before := ended.Load(); ended.Load() < before+int64(loops)+1 && !t.Failed(); {
				time.Sleep(time.Millisecond) //nolint:forbidigo // a poll
			}
		}
		w.to = time.Now().UnixNano()
		halted = append(halted, w)
		if err := s.state.Resume(t.Context(), "test", "test"); err != nil {
			t.Fatalf("resume: %v", err)
		}
		if i%3 == 2 {
			for before := ended.Load(); ended.Load() < before+2 && !t.Failed(); {
				time.Sleep(time.Millisecond) //nolint:forbidigo // a poll
			}
		}
	}
	stop.Store(true)
	all.Wait()
	b, err := os.ReadFile(stamps)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.FieldsSeq(b) {
		at, err := strconv.ParseInt(string(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		began++
		for i, w := range halted {
			if at > w.from && at < w.to {
				t.Errorf("halt %d: an action began %s after it had returned", i, time.Duration(at-w.from))
			}
		}
	}
	return began
}

// A halt is set and confirmed at once also while another process holds the store, and when the store cannot be read. (A full disk, no inodes left
// and a read-only disk: TestDiskThatTakesNothing.)
func TestE2EHaltInTrouble(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, s *killSite){
		"the store is held": func(t *testing.T, s *killSite) {
			t.Helper()
			holder := exec.CommandContext(t.Context(), "flock", filepath.Join(s.state.Dir, "store.lock"), "sleep", "600")
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
			for { // until it has it
				if err := exec.CommandContext(t.Context(), "flock", "-n", filepath.Join(s.state.Dir, "store.lock"), "true").Run(); err != nil {
					return
				}
			}
		},
		"the store is damaged": func(t *testing.T, s *killSite) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(s.state.Dir, "store", "FORMAT"), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the store is gone": func(t *testing.T, s *killSite) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(s.state.Dir, "store")); err != nil {
				t.Fatal(err)
			}
		},
		"project.star cannot be read": func(t *testing.T, s *killSite) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(s.dir, "project.star"), []byte("def ("), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newManySite(t, 1, `mode = "auto"`, "exit 0")
			spoil(t, s)
			out := s.does(problem.ExitOK, "halt", "--reason", "payments incident", "--json", "--state", s.state.Dir)
			if !bytes.Contains(out, []byte(`"confirmed": true`)) {
				t.Errorf("%s", out)
			}
			if set := s.state.Check(func(string) (string, bool) { return "", false }); len(set) != 2 {
				t.Errorf("%+v", set)
			}
		})
	}
}
