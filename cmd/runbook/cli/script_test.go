package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// TestMain lets the scripts run this test binary as the program itself.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"runbook": func() { os.Exit(Main(os.Args[1:], mortal(noting(System())))) },
		"waiter":  waiter,
		"flags":   func() { flagsPlugin().Main() },
	})
}

// envNote names a file to which the program adds a line with the time, in nanoseconds, at each moment in which it lets an action begin.
const envNote = "RUNBOOK_TEST_NOTE"

// noting writes those lines, while the gate is held.
func noting(s Stdio) Stdio {
	path := s.env(envNote)
	if path == "" {
		return s
	}
	s.Hook = func(point string) {
		if point != "proceed" {
			return
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, time.Now().UnixNano())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			panic(err)
		}
	}
	return s
}

// envKillAt names the point of an action at which the program is killed.
const envKillAt = "RUNBOOK_TEST_KILL_AT"

// mortal is a process that dies at the point that the environment names, without a chance to tidy up.
func mortal(s Stdio) Stdio {
	at := s.env(envKillAt)
	if at == "" {
		return s
	}
	s.Hook = func(point string) {
		if point != at {
			return
		}
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill() // SIGKILL, which nothing can catch
		}
		select {}
	}
	return s
}

// noRaceSleep keeps processes that were built with the race detector from sleeping for a second at their end.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

// TestScripts runs testdata/script, one script per command. Each has an empty environment, a directory of its own, and
// "exits CODE cmd...", "prometheus", "keep NAME REGEXP" and "tamper STATE PREFIX" besides the commands of testscript.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, noRaceSleep, "CANARY="+canary)
			e.Defer(func() { removeGates(e.WorkDir); noCanary(e) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "prometheus": prometheus, "keep": keep, "tamper": tamper},
	})
}

// canary is in the environment of every command of every script, and must be in nothing that any of them writes.
const canary = "canary-in-the-environment-4c1f"

func noCanary(e *testscript.Env) {
	_ = filepath.WalkDir(e.WorkDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // some scripts take away what they may read
		}
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(canary)) {
			e.T().Fatal(path + " holds the environment")
		}
		return nil
	})
}

// removeGates removes the gate directories, on a memory file system, of the state directories below dir.
func removeGates(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if s, err := control.Open(path); err == nil {
			_ = os.RemoveAll(s.GateDir)
		}
		return nil
	})
}

// exits runs a command and checks the exact exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s", fmt.Sprintf("exit code %d, want %d", got, want))
	}
}

// tamper removes the last record with a prefix from the store of a state directory, as somebody would who knows it well.
func tamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tamper STATE PREFIX")
	}
	st, err := pebble.New(pebble.Config{Dir: filepath.Join(ts.MkAbs(args[0]), "store")})
	ts.Check(err)
	defer st.Close()
	ctx, last := context.Background(), ""
	ts.Check(st.Scan(ctx, args[1], true, func(key string, _ []byte) bool { last = key; return false }))
	ts.Check(st.Update(ctx, nil, func(tx store.Tx) error { tx.Delete(last); return nil }))
}
