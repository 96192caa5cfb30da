//go:build linux

package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// The test binary plays other processes, told which by this variable.
const roleVariable = "RUNBOOK_CONTROL_TEST_ROLE"

func TestMain(m *testing.M) {
	role, dir, _ := strings.Cut(os.Getenv(roleVariable), ":")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "hold":
		err = playHolder(dir)
	case "loop":
		err = playLoop(dir)
	case "inodes":
		err = playNoInodes(dir)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(t *testing.T, role, dir string) (*exec.Cmd, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role+":"+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, in, bufio.NewReader(out)
}

// playHolder lets an action begin, and stays in the gate until its input ends.
func playHolder(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	return s.Pass(context.Background(), noEnv, func() error {
		if _, err := fmt.Fprintln(os.Stdout, "in"); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
}

func TestHaltWhileAnotherProcessHoldsTheGate(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*exec.Cmd, io.Closer) error{
		"until it leaves":    func(_ *exec.Cmd, in io.Closer) error { return in.Close() },
		"until it is killed": func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newState(t)
			cmd, in, out := play(t, "hold", s.Dir)
			if line, err := out.ReadString('\n'); err != nil || line != "in\n" {
				t.Fatalf("the holder said %q (%v)", line, err)
			}
			s.hooks = &hooks{patience: time.Second}
			err := s.Halt(t.Context(), HaltRequest{Reason: "r"})
			if code(err) != problem.HaltUnsure || !strings.Contains(err.Error(), fmt.Sprintf("by process %d", cmd.Process.Pid)) {
				t.Errorf("halt: %v", err)
			}
			if len(s.Check(noEnv)) != 2 {
				t.Error("the stop is not set meanwhile")
			}
			if err := s.Resume(t.Context(), "r", "ann"); code(err) != problem.Halted {
				t.Errorf("resumed across an action that begins: %v", err)
			}
			s.hooks = nil
			done := make(chan error, 1)
			go func() { done <- s.Halt(context.Background(), HaltRequest{Reason: "again"}) }()
			if err := end(cmd, in); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("halt after the holder has left: %v", err)
			}
			_ = cmd.Wait()
			if left := s.Holders(); len(left) != 0 {
				t.Errorf("holders: %v", left)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		s := newState(t)
		leave, err := s.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Halt(ctx, HaltRequest{Reason: "r"}); code(err) != problem.HaltUnsure || !strings.Contains(err.Error(), "canceled") {
			t.Errorf("halt: %v", err)
		}
		if len(s.Check(noEnv)) != 2 {
			t.Error("the stop is not set")
		}
	})
}

// playLoop lets actions begin as fast as it can. Each counts as acting from the first to the second increment; the counters lie in memory
// that is shared with the test.
func playLoop(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	shared, err := mapCounters(filepath.Join(filepath.Dir(dir), "counters"))
	if err != nil {
		return err
	}
	for {
		err := s.Pass(context.Background(), noEnv, func() error {
			shared.acting.Add(1)
			shared.begun.Add(1)
			shared.acting.Add(-1)
			return nil
		})
		if err != nil && code(err) != problem.Halted {
			return err
		}
		yield()
	}
}

// yield lets the other processes have the machine.
func yield() { _, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

type counters struct{ acting, begun atomic.Int64 }

func mapCounters(path string) (*counters, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*counters)(unsafe.Pointer(unsafe.SliceData(mem))), f.Close()
}

// When Halt has returned nil, no action begins: with runs in other processes and in this one, 1000 times, or as often as RUNBOOK_TEST_HALTS says.
func TestNothingBeginsAfterHalt(t *testing.T) {
	t.Parallel()
	// On a memory file system, where there is one: the syncs of 1000 halts and resumes would be most of the time.
	root, err := os.MkdirTemp("/dev/shm", "runbook-test-") //nolint:usetesting // a directory elsewhere than TempDir makes it
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	s, err := Init(filepath.Join(root, "state"), filepath.Join(root, "gate"))
	if err != nil {
		t.Fatal(err)
	}
	shared, err := mapCounters(filepath.Join(filepath.Dir(s.Dir), "counters"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		play(t, "loop", s.Dir)
	}
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = s.Pass(context.Background(), noEnv, func() error {
					shared.acting.Add(1)
					shared.begun.Add(1)
					shared.acting.Add(-1)
					return nil
				})
				yield()
			}
		})
	}
	halts := 1000
	if text := os.Getenv("RUNBOOK_TEST_HALTS"); text != "" {
		if halts, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var total int64
	for i := range halts {
		if err := s.Halt(t.Context(), HaltRequest{Reason: "r", By: "test"}); err != nil {
			t.Fatalf("halt %d: %v", i, err)
		}
		acting, before := shared.acting.Load(), shared.begun.Load()
		if acting != 0 {
			t.Fatalf("halt %d returned while %d actions were beginning", i, acting)
		}
		// Time in which a leak would show: several loops of each of the others.
		for range 100 {
			if _, err := os.Stat(s.Dir); err != nil {
				t.Fatal(err)
			}
			yield()
		}
		if after := shared.begun.Load(); after != before {
			t.Fatalf("halt %d: %d actions began after it had returned", i, after-before)
		}
		if err := s.Resume(t.Context(), "r", "test"); err != nil {
			t.Fatalf("resume %d: %v", i, err)
		}
		for shared.begun.Load() == before && t.Context().Err() == nil {
			yield()
		}
		total = shared.begun.Load()
	}
	close(stop)
	workers.Wait()
	if total < int64(halts) {
		t.Errorf("only %d actions began in all: this proves nothing", total)
	}
	t.Logf("%d halts, %d actions begun, none after a halt", halts, total)
}

// playNoInodes runs in a mount namespace of its own, so that the file system vanishes with it.
func playNoInodes(dir string) error {
	if err := unix.Mount("none", dir, "tmpfs", 0, "nr_inodes=64,size=1m"); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	s, err := Init(filepath.Join(dir, "state"), filepath.Join(filepath.Dir(dir), "gate"))
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	if err := s.Halt(context.Background(), HaltRequest{Reason: "r"}); err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	if _, err := os.Lstat(s.path("HALT")); err == nil {
		return errors.New("HALT could be created: this proves nothing")
	}
	if got := sources(s.Check(noEnv)); got != "memory sentinel" {
		return fmt.Errorf("halted by %q", got)
	}
	_, err = fmt.Fprintln(os.Stdout, "halted")
	return err
}

var errNoMount = errors.New("no mount")

// The same as TestNoInodesLeft, on a real file system where the kernel lets us mount one.
func TestNoInodesLeftForReal(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=inodes:"+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && strings.Contains(string(out), "halted"):
	case strings.Contains(string(out), errNoMount.Error()), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOSPC):
		t.Logf("no file system of our own here (%v %s): TestNoInodesLeft stands in for this one", err, out)
	default:
		t.Errorf("%v: %s", err, out)
	}
}
