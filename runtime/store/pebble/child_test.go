//go:build unix

package pebble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// The test binary is also the other process: it plays the part that these variables name.
const (
	roleVar = "RUNBOOK_TEST_ROLE"
	dirVar  = "RUNBOOK_TEST_DIR"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](os.Getenv(dirVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var roles = map[string]func(dir string) error{
	// count increments until it is killed and says so after each commit.
	"count": func(dir string) error {
		s, err := New(Config{Dir: dir, Wait: testWait})
		for err == nil {
			if err = storetest.Increment(context.Background(), s, "n"); err == nil {
				fmt.Fprintln(os.Stdout, "committed")
			}
		}
		return err
	},
	// twenty increments twenty times.
	"twenty": func(dir string) error {
		s, err := New(Config{Dir: dir, Wait: testWait})
		for i := 0; err == nil && i < 20; i++ {
			err = storetest.Increment(context.Background(), s, "n")
		}
		return err
	},
	// hold begins a transaction, starts a child of its own that outlives it, and stays in the transaction until stdin ends.
	"hold": func(dir string) error {
		s, err := New(Config{Dir: dir, Holder: "runbook hold"})
		if err != nil {
			return err
		}
		return s.Update(context.Background(), nil, func(store.Tx) error {
			grandchild := exec.Command("sleep", "600")
			if err := grandchild.Start(); err != nil {
				return err
			}
			fmt.Fprintln(os.Stdout, grandchild.Process.Pid)
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	},
	// full commits on a disk that fails in the middle of a commit: without a look at the free space, Pebble's own way out.
	"full": func(dir string) error {
		var full atomic.Bool
		fsys := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			write := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt
			if full.Load() && write && strings.HasSuffix(op.Path, ".log") {
				return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
			}
			return nil
		}))
		return failing(dir, fsys, &full)
	},
	// eio commits on a disk that does not sync.
	"eio": func(dir string) error {
		var broken atomic.Bool
		fsys := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
			if broken.Load() && sync && strings.HasSuffix(op.Path, ".log") {
				return syscall.EIO
			}
			return nil
		}))
		return failing(dir, fsys, &broken)
	},
	// once increments once.
	"once": func(dir string) error {
		s, err := New(Config{Dir: dir})
		if err != nil {
			return err
		}
		return explain(storetest.Increment(context.Background(), s, "n"))
	},
	"create": func(dir string) error { return explain(Create(dir)) },
}

func failing(dir string, fsys vfs.FS, fail *atomic.Bool) error {
	s, err := New(Config{Dir: dir, FS: fsys})
	if err != nil {
		return err
	}
	if err := storetest.Increment(context.Background(), s, "n"); err != nil {
		return err
	}
	fail.Store(true)
	err = storetest.Increment(context.Background(), s, "n")
	fmt.Fprintln(os.Stdout, "returned", err) // must not be reached
	return nil
}

// explain shows the code and the hint too.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var hint string
	if p := asProblem(err); p != nil {
		hint = p.Hint
	}
	return fmt.Errorf("%s: %w\nhint: %s", code(err), err, hint)
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+dir)
	return cmd
}

func TestTwoProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := open(t, Config{Dir: dir, Wait: testWait})
	cmds := []*exec.Cmd{child(t, "twenty", dir), child(t, "twenty", dir)}
	for _, cmd := range cmds {
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if err := storetest.Increment(t.Context(), s, "n"); err != nil {
			t.Error(err)
		}
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if n := counter(t, s); n != 60 {
		t.Errorf("%d, want 60", n)
	}
}

// TestKill kills a process at moments that the number of its commits so far picks, while it goes on.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := open(t, Config{Dir: dir, Wait: testWait})
	before := 0
	for round := range 6 {
		cmd := child(t, "count", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, acked := bufio.NewScanner(out), 0
		for acked < 1+round%5 && lines.Scan() {
			acked++
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			acked++
		}
		_ = cmd.Wait()
		n := counter(t, s)
		if n < before+acked || n > before+acked+1 {
			t.Fatalf("round %d: %d commits before, %d acknowledged, %d are there", round, before, acked, n)
		}
		before = n
		if err := s.letGoNow(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledHolder: the lock ends with its holder, though a child of the holder lives on, and while it holds the others
// learn its name.
func TestKilledHolder(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	cmd := child(t, "hold", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var grandchild int
	if _, err := fmt.Fscan(out, &grandchild); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(grandchild, syscall.SIGKILL) //nolint:errcheck // it may have ended

	impatient := open(t, Config{Dir: dir, Wait: 20 * time.Millisecond})
	for what, err := range map[string]error{
		"update": impatient.Update(t.Context(), nil, func(store.Tx) error { return errors.New("it ran") }),
		"view":   impatient.View(t.Context(), nil, func(store.ReadTx) error { return errors.New("it ran") }),
		"scan":   impatient.Scan(t.Context(), "", false, func(string, []byte) bool { return false }),
		"create": Create(dir),
	} {
		want := fmt.Sprintf(`pid %d "runbook hold" has held it since `, cmd.Process.Pid)
		if code(err) != "store-busy" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want store-busy with %q", what, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	patient := open(t, Config{Dir: dir, Wait: testWait})
	if err := storetest.Increment(ctx, patient, "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := storetest.Increment(ctx, patient, "n"); code(err) != "store-busy" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want store-busy at the deadline", err)
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := syscall.Kill(grandchild, 0); err != nil {
		t.Fatalf("the holder's child: %v", err)
	}
	if err := storetest.Increment(t.Context(), open(t, Config{Dir: dir, Wait: testWait}), "n"); err != nil {
		t.Error(err)
	}
}

// TestFailedCommitEndsTheProcess: nothing may run after a commit whose sync failed.
func TestFailedCommitEndsTheProcess(t *testing.T) {
	t.Parallel()
	for role, want := range map[string][]string{
		"full": {"runbook: error: store ", "no space left on device", "runbook: hint: make room", "df -i"},
		"eio":  {"runbook: error: store ", "input/output error", "runbook: hint: look at the disk"},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			var stderr strings.Builder
			cmd := child(t, role, dir)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if cmd.ProcessState.ExitCode() != 5 || len(out) > 0 {
				t.Errorf("exit %v, stdout %q, stderr %q", err, out, &stderr)
			}
			for _, w := range want {
				if !strings.Contains(stderr.String(), w) {
					t.Errorf("stderr %q lacks %q", &stderr, w)
				}
			}
			if n := counter(t, open(t, Config{Dir: dir, Wait: testWait})); n != 1 && n != 2 {
				t.Errorf("%d, want 1, or 2 if the failed commit is there after all", n)
			}
		})
	}
}
