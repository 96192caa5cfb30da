package demo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/cmd/runbook/demo"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
)

// TestMain lets the test binary be the service, as the real binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == demo.ServiceCommand {
		os.Exit(demo.ServiceMain(os.Args[2:], os.Stdout, os.Stderr))
	}
	dir, err := os.MkdirTemp("", "runbook-demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaryDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var binaryDir string

// binary builds the real binary, once.
var binary = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(binaryDir, "runbook")
	if out, err := exec.Command("go", "build", "-o", exe, "github.com/seed1de3961f/runbook/cmd/runbook").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return exe, nil
})

// show is a demo whose lines are kept.
type show struct {
	t     *testing.T
	dir   string
	gate  string // the demo's gate directory
	lines []string
	on    func(line string)
}

func (s *show) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.lines = append(s.lines, line)
	if s.gate == "" {
		if states, err := filepath.Glob(filepath.Join(s.dir, "*", "state")); err == nil && len(states) == 1 {
			if st, err := control.Open(states[0]); err == nil {
				s.gate = st.GateDir
			}
		}
	}
	if s.on != nil {
		s.on(line)
	}
}

func run(t *testing.T, ctx context.Context, exe string, on func(line string)) (*show, *demo.Report, error) {
	t.Helper()
	s := &show{t: t, dir: t.TempDir(), on: on}
	rep, err := demo.Run(ctx, demo.Options{Exe: exe, Dir: s.dir, Say: s.say})
	return s, rep, err
}

// nothingLeft says that no process, directory or gate of the demo is left.
func (s *show) nothingLeft() {
	s.t.Helper()
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) > 0 {
		s.t.Errorf("left in its directory: %v %v", entries, err)
	}
	if s.gate != "" {
		if _, err := os.Stat(s.gate); !os.IsNotExist(err) {
			s.t.Errorf("the gate %s is left", s.gate)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range commands {
		// A process that has ended since has no command line any more.
		if b, err := os.ReadFile(c); err == nil && strings.Contains(string(b), s.dir) {
			s.t.Errorf("still running: %s: %q", c, b)
		}
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s, rep, err := run(t, t.Context(), exe, nil)
	if err != nil {
		if p, ok := errors.AsType[*problem.Problem](err); ok {
			t.Log(strings.Join(p.Detail, "\n"))
		}
		t.Fatalf("%v\n%s", err, strings.Join(s.lines, ""))
	}
	t.Log("\n" + strings.Join(s.lines, ""))
	s.nothingLeft()
	if s.gate == "" {
		t.Error("the state directory was never seen")
	}
	var steps []string
	for _, st := range rep.Steps {
		steps = append(steps, st.Name)
	}
	want := []string{"nothing to do", "sick", "acted", "verified", "sick again", "refused by the cooldown", "halted", "refused by the halt", "explained"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !rep.OK || rep.Explain == "" || time.Duration(rep.TookMS)*time.Millisecond > time.Minute {
		t.Errorf("ok %v, %d bytes of explanation, took %d ms", rep.OK, len(rep.Explain), rep.TookMS)
	}
}

// Wherever it is interrupted, nothing is left.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"changed", "ok  nothing to do", "wait for each other", "ok  acted", "is watched", "ok  halted"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, rep, err := run(t, ctx, exe, func(line string) {
				if strings.Contains(line, at) {
					cancel()
				}
			})
			var p *problem.Problem
			if !errors.As(err, &p) || p.Code != problem.Interrupted || rep.OK {
				t.Errorf("got %v, want interrupted", err)
			}
			s.nothingLeft()
		})
	}
}

// The demo believes nobody: a command that says it has restarted the worker, and has not, is found out.
func TestDemoIsNotFooled(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	liar := filepath.Join(t.TempDir(), "runbook")
	script := "#!/bin/sh\nif [ \"$2\" = restart ]; then echo restarted; exit 0; fi\nexec " + exe + " \"$@\"\n"
	if err := os.WriteFile(liar, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s, rep, err := run(t, t.Context(), liar, nil)
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != problem.Internal || rep.OK || !strings.Contains(p.Message, "was to be restarted") {
		t.Errorf("got %v, want that no restart was seen", err)
	}
	s.nothingLeft()
}
