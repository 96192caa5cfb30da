//go:build linux

package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

func noEnv(string) (string, bool) { return "", false }

func newState(t *testing.T) State {
	t.Helper()
	root := t.TempDir()
	s, err := Init(filepath.Join(root, "state"), filepath.Join(root, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The sockets of plugins are beside a gate that is in memory, for nobody else, and else in the state directory.
func TestSocketDir(t *testing.T) {
	t.Parallel()
	root, err := os.MkdirTemp("/dev/shm", "runbook-test-") //nolint:usetesting // a directory elsewhere than TempDir makes it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	s, err := Init(filepath.Join(t.TempDir(), "state"), filepath.Join(root, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		dir := s.SocketDir()
		info, err := os.Stat(dir)
		if filepath.Dir(dir) != s.GateDir || err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("they are in %s, %v, %v", dir, info, err)
		}
	}
	if err := os.RemoveAll(s.GateDir); err != nil {
		t.Fatal(err)
	}
	if dir, want := s.SocketDir(), filepath.Join(s.Dir, "plugins"); dir != want {
		t.Errorf("without the gate's directory they are in %s, want %s", dir, want)
	}
	s = newState(t)
	s.GateDir = "/proc/self"
	if dir, want := s.SocketDir(), filepath.Join(s.Dir, "plugins"); dir != want {
		t.Errorf("without memory they are in %s, want %s", dir, want)
	}
}

func code(err error) problem.Code {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p.Code
	}
	return ""
}

func hint(err error) string {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p.Hint
	}
	return ""
}

func sources(set []HaltInfo) string {
	var all []string
	for _, h := range set {
		all = append(all, h.Source)
	}
	return strings.Join(all, " ")
}

func TestInitAndOpen(t *testing.T) {
	t.Parallel()
	s := newState(t)
	if set := s.Check(noEnv); len(set) != 0 {
		t.Fatalf("fresh, and halted: %v", set)
	}
	again, err := Open(s.Dir)
	if err != nil || again != s {
		t.Fatalf("opened %+v (%v), want %+v", again, err, s)
	}
	if _, err := Init(s.Dir, s.GateDir); code(err) != problem.StateUnusable {
		t.Errorf("a second init: %v", err)
	}
	if _, err := Open(s.Dir); err != nil {
		t.Errorf("the second init did harm: %v", err)
	}
	info, err := os.Stat(s.Dir)
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may look into the state directory: %v %v", info.Mode(), err)
	}
	empty := t.TempDir()
	if _, err := Init(empty, filepath.Join(t.TempDir(), "gate")); err != nil {
		t.Errorf("init of an empty directory: %v", err)
	}
	failed := filepath.Join(t.TempDir(), "state")
	if _, err := Init(failed, filepath.Join(t.TempDir(), "no", "such", "gate")); err == nil {
		t.Error("init with an impossible gate directory")
	}
	if _, err := Init(failed, filepath.Join(t.TempDir(), "gate")); err != nil {
		t.Errorf("init after a failed init: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	if _, err := Open(filepath.Join(t.TempDir(), "nowhere")); code(err) != problem.StateMissing || !strings.Contains(hint(err), "runbook init --state") {
		t.Errorf("a missing directory: %v", err)
	}
	if _, err := Open(t.TempDir()); code(err) != problem.StateMissing {
		t.Errorf("an empty directory: %v", err)
	}
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00\x01", "newer": `{"schema":2,"namespace":"n","gate_dir":"/g"}`, "no namespace": `{"schema":1,"gate_dir":"/g"}`,
	} {
		s := newState(t)
		if err := os.WriteFile(s.path("ID"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		broken, err := Open(s.Dir)
		if code(err) != problem.StateUnusable {
			t.Errorf("%s ID: %v", name, err)
		}
		if len(broken.Check(noEnv)) == 0 {
			t.Errorf("%s ID: not halted", name)
		}
	}
}

// Whatever is not a clean "no" halts.
func TestCheck(t *testing.T) {
	t.Parallel()
	write := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	past, future := `{"reason":"r","until":"2020-01-01T00:00:00Z"}`, `{"reason":"r","until":"2999-01-01T00:00:00Z"}`
	for name, c := range map[string]struct {
		file string
		put  func(*testing.T, string)
		want string // sources, in order
	}{
		"touched":           {"state/HALT", write(""), "file"},
		"by hand":           {"state/HALT", write("disk is full\n"), "file"},
		"by halt":           {"state/HALT", write(future + "\n"), "file"},
		"expired":           {"state/HALT", write(past + "\n"), ""},
		"expired and not":   {"state/HALT", write(past + "\n" + future + "\n"), "file"},
		"expired by hand":   {"state/HALT", write("\n" + past + "\n"), "file"},
		"cut short":         {"state/HALT", write(past[:20]), "file"},
		"no reason":         {"state/HALT", write(`{"until":"2020-01-01T00:00:00Z"}`), "file"},
		"huge":              {"state/HALT", write(past + "\n" + strings.Repeat(" ", maxHalt)), "file"},
		"memory":            {"gate/HALT", write(""), "memory"},
		"memory expired":    {"gate/HALT", write(past + "\n"), ""},
		"directory":         {"state/HALT", func(t *testing.T, p string) { must(t, os.Mkdir(p, 0o700)) }, "file"},
		"pipe":              {"state/HALT", func(t *testing.T, p string) { must(t, syscall.Mkfifo(p, 0o600)) }, "file"},
		"dangling link":     {"state/HALT", func(t *testing.T, p string) { must(t, os.Symlink("/nowhere", p)) }, "file"},
		"no RUN":            {"state/RUN", func(t *testing.T, p string) { must(t, os.Remove(p)) }, "sentinel"},
		"other RUN":         {"state/RUN", write("somebody else\n"), "sentinel"},
		"empty RUN":         {"state/RUN", write(""), "sentinel"},
		"RUN is a pipe":     {"state/RUN", func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, syscall.Mkfifo(p, 0o600)) }, "sentinel"},
		"no state":          {"state", func(t *testing.T, p string) { must(t, os.RemoveAll(p)) }, "memory sentinel"},
		"state is a file":   {"state", func(t *testing.T, p string) { must(t, os.RemoveAll(p)); write("")(t, p) }, "file sentinel"},
		"gate is a file":    {"gate", func(t *testing.T, p string) { must(t, os.RemoveAll(p)); write("")(t, p) }, "memory"},
		"gate is a link":    {"gate", func(t *testing.T, p string) { must(t, os.RemoveAll(p)); must(t, os.Symlink(t.TempDir(), p)) }, "memory"},
		"gate is open":      {"gate", func(t *testing.T, p string) { must(t, os.Chmod(p, 0o777)) }, "memory"},
		"after a reboot":    {"gate", func(t *testing.T, p string) { must(t, os.RemoveAll(p)) }, ""},
		"nothing is wrong":  {"state/HALT", func(*testing.T, string) {}, ""},
		"memory is a pipe":  {"gate/HALT", func(t *testing.T, p string) { must(t, syscall.Mkfifo(p, 0o600)) }, "memory"},
		"everything at all": {"state", func(t *testing.T, p string) { must(t, os.RemoveAll(filepath.Dir(p))) }, "memory sentinel"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newState(t)
			c.put(t, filepath.Join(filepath.Dir(s.Dir), c.file))
			set := s.Check(noEnv)
			if got := sources(set); got != c.want {
				t.Errorf("halted by %q, want %q: %v", got, c.want, set)
			}
			called := false
			err := s.Pass(t.Context(), noEnv, func() error { called = true; return nil })
			if called != (c.want == "") || (err == nil) != (c.want == "") {
				t.Errorf("passed: %v (%v)", called, err)
			}
			if err != nil && code(err) != problem.Halted {
				t.Errorf("not the problem halted: %v", err)
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		for _, value := range []string{"", "1", "0", "storage migration"} {
			env := func(name string) (string, bool) { return value, name == EnvHalt }
			if got := sources(s.Check(env)); got != SourceEnvironment {
				t.Errorf("RUNBOOK_HALT=%q: halted by %q", value, got)
			}
		}
		if got := sources(s.Check(nil)); got != SourceEnvironment {
			t.Errorf("no environment to ask: halted by %q", got)
		}
	})
}

func TestHaltAndResume(t *testing.T) {
	t.Parallel()
	s := newState(t)
	var said []string
	err := s.Halt(t.Context(), HaltRequest{Reason: "storage is on fire", By: "ann@db1(pts/1)", Report: func(l string) { said = append(said, l) }})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(said, "\n"); strings.Count(got, "is written") != 2 || !strings.Contains(got, "no action is beginning") {
		t.Errorf("it said:\n%s", got)
	}
	set := s.Check(noEnv)
	if sources(set) != "file memory" || set[0].Reason != "storage is on fire" || set[0].By != "ann@db1(pts/1)" || set[0].At.IsZero() {
		t.Errorf("halted: %+v", set)
	}
	err = s.Pass(t.Context(), noEnv, func() error { t.Error("passed"); return nil })
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != problem.Halted || !strings.Contains(p.Message, "storage is on fire") || !strings.Contains(p.Hint, "runbook resume") {
		t.Errorf("refused with %v", err)
	}
	// A second halt, with an end, must not shorten the first.
	s.hooks = &hooks{now: func() time.Time { return time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC) }, env: noEnv}
	if err := s.Halt(t.Context(), HaltRequest{Reason: "second", By: "bob", For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.hooks = &hooks{now: func() time.Time { return time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC) }, env: noEnv}
	if got := sources(s.Check(noEnv)); got != "file memory" {
		t.Errorf("after the end of the second: halted by %q", got)
	}
	// Neither opening the state anew nor a reboot lifts it.
	if err := os.RemoveAll(s.GateDir); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.Dir)
	if err != nil || sources(again.Check(noEnv)) != "file" {
		t.Errorf("after a reboot: %v (%v)", again.Check(noEnv), err)
	}
	if err := s.Resume(t.Context(), "", "ann"); code(err) != problem.Usage {
		t.Errorf("resumed without a reason: %v", err)
	}
	if err := s.Resume(t.Context(), "it is out", "ann"); err != nil {
		t.Fatal(err)
	}
	if err := s.Pass(t.Context(), noEnv, func() error { return nil }); err != nil {
		t.Errorf("after resume: %v", err)
	}
	events, err := s.History()
	if err != nil || len(events) != 3 || events[0].What != "halt" || events[1].Until.IsZero() || events[2].What != "resume" || events[2].Reason != "it is out" {
		t.Errorf("history %+v (%v)", events, err)
	}
}

func TestHaltEnds(t *testing.T) {
	t.Parallel()
	s := newState(t)
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	s.hooks = &hooks{now: func() time.Time { return now }}
	if err := s.Halt(t.Context(), HaltRequest{Reason: "r", For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour - time.Nanosecond)
	if len(s.Check(noEnv)) != 2 {
		t.Error("lifted before its end")
	}
	now = now.Add(time.Nanosecond)
	if set := s.Check(noEnv); len(set) != 0 {
		t.Errorf("not lifted at its end: %v", set)
	}
	for _, r := range []HaltRequest{{}, {Reason: " "}, {Reason: "r", For: -time.Second}} {
		if err := s.Halt(t.Context(), r); code(err) != problem.Usage {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// A HALT that was touched by hand has no end, also when somebody halts with one afterwards.
func TestHaltAfterTouch(t *testing.T) {
	t.Parallel()
	s := newState(t)
	if err := os.WriteFile(s.path("HALT"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	s.hooks = &hooks{now: func() time.Time { return now }}
	if err := s.Halt(t.Context(), HaltRequest{Reason: "r", For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if got := sources(s.Check(noEnv)); got != "file" {
		t.Errorf("halted by %q", got)
	}
}

func TestResumeCannotLiftTheEnvironment(t *testing.T) {
	t.Parallel()
	s := newState(t)
	if err := s.Halt(t.Context(), HaltRequest{Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	s.hooks = &hooks{env: func(name string) (string, bool) { return "migration", name == EnvHalt }}
	err := s.Resume(t.Context(), "done", "ann")
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != problem.Halted || !strings.Contains(p.Hint, "unset RUNBOOK_HALT") {
		t.Errorf("resume: %v", err)
	}
	if set := s.Check(noEnv); len(set) != 0 {
		t.Errorf("the rest is not lifted: %v", set)
	}
}

// halted is what stays true however broken the directory is.
func TestHaltOfABrokenState(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*testing.T, *State){
		"ID is garbage": func(t *testing.T, s *State) {
			if err := os.WriteFile(s.path("ID"), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			if *s, err = Open(s.Dir); err == nil {
				t.Fatal("garbage was opened")
			}
		},
		"HALT is a directory": func(t *testing.T, s *State) {
			if err := os.Mkdir(s.path("HALT"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"HALT is a pipe": func(t *testing.T, s *State) {
			if err := syscall.Mkfifo(s.path("HALT"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the gate directory is gone": func(t *testing.T, s *State) {
			if err := os.RemoveAll(s.GateDir); err != nil {
				t.Fatal(err)
			}
		},
		"the gate directory cannot be": func(t *testing.T, s *State) {
			if err := os.RemoveAll(s.GateDir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.GateDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"locks are gone": func(t *testing.T, s *State) {
			if err := os.RemoveAll(s.path("locks")); err != nil {
				t.Fatal(err)
			}
			// The memory part of the gate has been used.
			if err := os.WriteFile(s.memoryGate(), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the store is garbage": func(t *testing.T, s *State) {
			if err := os.WriteFile(s.path("store"), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newState(t)
			breakIt(t, &s)
			if err := s.Halt(t.Context(), HaltRequest{Reason: "r"}); err != nil {
				t.Errorf("halt: %v", err)
			}
			if len(s.Check(noEnv)) == 0 {
				t.Error("not halted")
			}
		})
	}
	t.Run("not a state directory", func(t *testing.T) {
		t.Parallel()
		for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nowhere")} {
			s, _ := Open(dir)
			if err := s.Halt(t.Context(), HaltRequest{Reason: "r"}); code(err) != problem.StateUnusable || !strings.Contains(err.Error(), "NOT halted") {
				t.Errorf("halt of %s: %v", dir, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "HALT")); err == nil {
				t.Error("it wrote into somebody else's directory")
			}
		}
	})
}

// faults lets a disk fail, or hang, for paths with a suffix.
type faults struct {
	append, remove func(path string) error
}

func (f faults) Append(path string, line []byte) error {
	if f.append != nil {
		if err := f.append(path); err != nil {
			return err
		}
	}
	return osFiles{}.Append(path, line)
}

func (f faults) Remove(path string) error {
	if f.remove != nil {
		if err := f.remove(path); err != nil {
			return err
		}
	}
	return osFiles{}.Remove(path)
}

func failing(suffix string, err error) func(string) error {
	return func(path string) error {
		if strings.HasSuffix(path, suffix) {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return nil
	}
}

// With no inodes left HALT cannot be created, and its absence would read as "not halted": RUN goes instead.
func TestNoInodesLeft(t *testing.T) {
	t.Parallel()
	s := newState(t)
	s.hooks = &hooks{files: faults{append: failing("HALT", syscall.ENOSPC)}}
	var said []string
	if err := s.Halt(t.Context(), HaltRequest{Reason: "r", Report: func(l string) { said = append(said, l) }}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(said, "\n"); !strings.Contains(got, "no space left on device), so RUN was taken away") {
		t.Errorf("it said:\n%s", got)
	}
	if got := sources(s.Check(noEnv)); got != "sentinel" {
		t.Errorf("halted by %q", got)
	}
	s.hooks = &hooks{env: noEnv}
	if err := s.Resume(t.Context(), "inodes are back", "ann"); err != nil {
		t.Fatal(err)
	}
	if set := s.Check(noEnv); len(set) != 0 {
		t.Errorf("after resume: %v", set)
	}
}

func TestHaltFailures(t *testing.T) {
	t.Parallel()
	t.Run("nothing can be written", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		s.hooks = &hooks{files: faults{append: failing("HALT", syscall.EROFS), remove: failing("RUN", syscall.EROFS)}}
		err := s.Halt(t.Context(), HaltRequest{Reason: "r"})
		if code(err) != problem.StateUnusable || !strings.Contains(err.Error(), "NOT halted") || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("halt: %v", err)
		}
	})
	t.Run("only in memory", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		s.hooks = &hooks{files: faults{append: failing("state/HALT", syscall.EROFS), remove: failing("RUN", syscall.EROFS)}}
		err := s.Halt(t.Context(), HaltRequest{Reason: "r"})
		if code(err) != problem.HaltUnsure || !strings.Contains(err.Error(), "restart of this machine may lift it") {
			t.Errorf("halt: %v", err)
		}
		if got := sources(s.Check(noEnv)); got != "memory" {
			t.Errorf("halted by %q", got)
		}
	})
	t.Run("only on disk", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		s.hooks = &hooks{files: faults{append: failing("gate/HALT", syscall.ENOSPC)}}
		if err := s.Halt(t.Context(), HaltRequest{Reason: "r"}); err != nil {
			t.Errorf("halt: %v", err)
		}
		if got := sources(s.Check(noEnv)); got != "file" {
			t.Errorf("halted by %q", got)
		}
	})
	t.Run("not synced", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		s.hooks = &hooks{files: faults{append: func(path string) error {
			if strings.HasSuffix(path, "state/HALT") {
				return errors.Join(errNotSynced, syscall.EIO)
			}
			return nil
		}}}
		if err := s.Halt(t.Context(), HaltRequest{Reason: "r"}); err != nil {
			t.Errorf("halt: %v", err)
		}
		if got := sources(s.Check(noEnv)); got != "memory sentinel" {
			t.Errorf("halted by %q", got)
		}
	})
	t.Run("the state disk is slow", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		leave, err := s.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slow := make(chan struct{})
		s.hooks = &hooks{patience: time.Second, files: faults{append: func(path string) error {
			if strings.HasPrefix(path, s.Dir) {
				<-slow
			}
			return nil
		}}}
		err = s.Halt(t.Context(), HaltRequest{Reason: "r", Report: func(line string) {
			// It has given up on the disk, which answers now, and goes on to the gate.
			if strings.Contains(line, "did not answer") {
				close(slow)
				leave()
			}
		}})
		if err != nil {
			t.Errorf("halt: %v", err)
		}
	})
	t.Run("the state disk hangs", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		if err := s.Pass(t.Context(), noEnv, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		block := func(path string) error {
			if strings.HasPrefix(path, s.Dir) {
				<-hang
				return errors.New("the test is over")
			}
			return nil
		}
		s.hooks = &hooks{files: faults{append: block, remove: block}, patience: 100 * time.Millisecond}
		err := s.Halt(t.Context(), HaltRequest{Reason: "r"})
		if code(err) != problem.HaltUnsure || !strings.Contains(err.Error(), "did not answer") {
			t.Errorf("halt: %v", err)
		}
		if got := sources(s.Check(noEnv)); got != "memory" {
			t.Errorf("halted by %q", got)
		}
	})
}

// A resume that removes a halt of which its author knew nothing: the halt sets itself again before it says that it is confirmed.
func TestHaltCrossesResume(t *testing.T) {
	t.Parallel()
	s := newState(t)
	written, goOn := make(chan struct{}), make(chan struct{})
	s.hooks = &hooks{env: noEnv, files: faults{remove: func(path string) error {
		if strings.HasSuffix(path, "gate/HALT") {
			close(written)
			<-goOn
		}
		return nil
	}}}
	resumed := make(chan error, 1)
	go func() { resumed <- s.Resume(context.Background(), "I know of no halt", "bob") }()
	<-written // resume holds the gate
	other := State{Dir: s.Dir, Namespace: s.Namespace, GateDir: s.GateDir}
	halted := make(chan error, 1)
	go func() { halted <- other.Halt(context.Background(), HaltRequest{Reason: "r", By: "ann"}) }()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for poll := time.NewTicker(time.Millisecond); len(other.Check(noEnv)) < 2; {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatal("never set")
		}
	}
	close(goOn)
	// Resume either sees the halt that was set again, or had ended before.
	if err := <-resumed; err != nil && code(err) != problem.Halted {
		t.Error(err)
	}
	if err := <-halted; err != nil {
		t.Fatal(err)
	}
	if got := sources(other.Check(noEnv)); !strings.Contains(got, "file") {
		t.Errorf("halt returned nil, and is halted by %q", got)
	}
}

func TestLockRunbook(t *testing.T) {
	t.Parallel()
	s := newState(t)
	for _, name := range []string{"worker", "../../etc/passwd", "gate", "", ".", "a/b", strings.Repeat("long", 200)} {
		unlock, held, err := s.LockRunbook(name)
		if err != nil || !held {
			t.Fatalf("%q: held=%v, %v", name, held, err)
		}
		nothing, again, err := s.LockRunbook(name)
		if err != nil || again {
			t.Errorf("%q twice: held=%v, %v", name, again, err)
		}
		nothing()
		other, held, err := s.LockRunbook(name + "x")
		if err != nil || !held {
			t.Errorf("%q holds back another runbook (%v)", name, err)
		}
		other()
		unlock()
		unlock, held, err = s.LockRunbook(name)
		if err != nil || !held {
			t.Errorf("%q after unlock: held=%v, %v", name, held, err)
		}
		unlock()
	}
	if err := s.Pass(t.Context(), noEnv, func() error { return nil }); err != nil {
		t.Errorf("a runbook's lock stands in the way of the gate: %v", err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("files in the state directory: %v (%v)", entries, err)
	}
}

func TestWho(t *testing.T) {
	t.Parallel()
	if who := Who(); !strings.Contains(who, "@") || !strings.HasSuffix(who, ")") {
		t.Errorf("who: %q", who)
	}
}

func TestDefaultGateDir(t *testing.T) {
	t.Parallel()
	if dir := DefaultGateDir("ns"); !filepath.IsAbs(dir) || filepath.Base(dir) != "ns" {
		t.Errorf("gate directory %s", dir)
	}
}

func BenchmarkCheck(b *testing.B) {
	root := b.TempDir()
	s, err := Init(filepath.Join(root, "state"), filepath.Join(root, "gate"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Check", func(b *testing.B) {
		for b.Loop() {
			s.Check(noEnv)
		}
	})
	b.Run("Pass", func(b *testing.B) {
		for b.Loop() {
			if err := s.Pass(b.Context(), noEnv, func() error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
