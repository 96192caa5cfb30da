package pebble

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

func asProblem(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	return nil
}

// wantProblem checks code, words and that there is a hint.
func wantProblem(t *testing.T, err error, code problem.Code, words ...string) {
	t.Helper()
	p := asProblem(err)
	if p == nil || p.Code != code || p.Hint == "" {
		t.Errorf("got %v (%+v), want %s with a hint", err, p, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(p.Message+"\n"+p.Hint, w) {
			t.Errorf("%q, %q: want %q", p.Message, p.Hint, w)
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	now := Space{Bytes: 1 << 30, Inodes: 1000, HasInodes: true}
	s := open(t, Config{Dir: dir, Wait: testWait, Space: func(string) (Space, error) { return now, nil }})
	if err := storetest.Increment(t.Context(), s, "n"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		space Space
		words []string
	}{
		{Space{Bytes: minBytes - 1}, []string{"the disk is full", "make room"}},
		{Space{Bytes: 1 << 30, Inodes: minInodes - 1, HasInodes: true}, []string{"no room for more files", "df -i"}},
		{Space{Bytes: 1 << 30, ReadOnly: true}, []string{"read-only", "findmnt"}},
	} {
		for _, held := range []bool{true, false} {
			if !held {
				if err := s.letGoNow(); err != nil {
					t.Fatal(err)
				}
			}
			now = c.space
			err := storetest.Increment(t.Context(), s, "n")
			wantProblem(t, err, problem.StateUnusable, c.words...)
			if errors.Is(err, store.ErrUnknown) {
				t.Error("a refusal before the commit is not unknown")
			}
			if n := counter(t, s); n != 1 {
				t.Errorf("%d, want 1: reading works on a full disk and nothing was written", n)
			}
		}
	}
	now = Space{Bytes: 1 << 30, Network: "NFS"}
	if err := s.letGoNow(); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, storetest.Increment(t.Context(), s, "n"), problem.StateUnusable, "NFS", "local disk")
	wantProblem(t, s.View(t.Context(), nil, func(store.ReadTx) error { return nil }), problem.StateUnusable, "NFS")
	now = Space{Bytes: minBytes + 4<<20}
	wantProblem(t, s.Update(t.Context(), nil, put("big", strings.Repeat("x", 1<<20))), problem.StateUnusable, "the disk is full")
}

// TestReadOnlyDisk: a person can look at a store on a disk that the kernel has made read-only.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	mem := image(t, 4)
	cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			return syscall.EROFS
		}
		return nil
	})))
	s := open(t, cfg)
	if n, err := readDouble(t.Context(), s); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	wantProblem(t, double(t.Context(), s), problem.StateUnusable, "read-only file system", "findmnt")
	if n, err := readDouble(t.Context(), s); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestMarkThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	mem := image(t, 4)
	var fail atomic.Bool
	cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail.Load() && strings.HasSuffix(op.Path, ".mark") && op.Kind == errorfs.OpFileSyncData {
			return syscall.EIO
		}
		return nil
	})))
	s := open(t, cfg)
	if err := double(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	fail.Store(true)
	if err := double(t.Context(), s); err != nil {
		t.Errorf("a commit that does not have to be marked: %v", err)
	}
	err := s.Update(t.Context(), []string{"x"}, func(tx store.Tx) error {
		store.Mark(tx)
		return doubling(tx)
	})
	wantProblem(t, err, problem.StateUnusable, "unknown", "input/output error")
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	fail.Store(false)
	if n, err := readDouble(t.Context(), s); n != 7 || err != nil {
		t.Errorf("%d, %v; the commit itself was durable", n, err)
	}
	if err := double(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// hanging is a store of 4 commits on a disk that does not answer what ops says of the mark, while hang is set, until answer is closed.
func hanging(t *testing.T, ops func(errorfs.Op) bool) (s *Store, hang *atomic.Bool, answer chan struct{}) {
	t.Helper()
	mem := image(t, 4)
	hang, answer = new(atomic.Bool), make(chan struct{})
	cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if hang.Load() && strings.HasSuffix(op.Path, ".mark") && ops(op) {
			<-answer
		}
		return nil
	})))
	cfg.grace, cfg.Wait = 20*time.Millisecond, 20*time.Millisecond
	return open(t, cfg), hang, answer
}

func TestHangingDisk(t *testing.T) {
	t.Parallel()
	s, hang, answer := hanging(t, func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSyncData })
	hang.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := double(ctx, s)
	if !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	wantProblem(t, double(t.Context(), s), problem.StateUnusable, "has not answered an earlier commit")
	hang.Store(false)
	close(answer)
	for deadline := time.Now().Add(testWait); ; {
		n, err := readDouble(t.Context(), s)
		if err == nil && n == 5 {
			break
		}
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("%d, %v after the disk answered", n, err)
		}
	}
}

func TestMissingAndForeign(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	use := func(dir string) error {
		t.Helper()
		return storetest.Increment(t.Context(), open(t, Config{Dir: dir, Wait: testWait}), "n")
	}
	wantProblem(t, use(filepath.Join(tmp, "none", "store")), problem.StateMissing, "runbook init")
	wantProblem(t, use(filepath.Join(tmp, "store")), problem.StateMissing, "runbook init")
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("looking for a store made %v", left)
	}
	wantProblem(t, Create(filepath.Join(tmp, "none", "store")), problem.StateUnusable, "no such file")

	dir := newDir(t)
	wantProblem(t, Create(dir), problem.StateUnusable, "already")
	format := filepath.Join(dir, formatFile)
	for text, c := range map[string]problem.Code{
		"runbook store 2\n": problem.StateUnusable, "runbook store 1": problem.StoreDamaged, "": problem.StoreDamaged,
	} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantProblem(t, use(dir), c, dir)
	}
	if err := os.WriteFile(format, []byte(formatText()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := use(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + ".lock"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, use(dir), problem.StateUnusable, "lock", "touch")
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Dir: newDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Increment(t.Context(), s, "n"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a store without a directory")
	}
}

// TestTransactionInTransaction is a mistake that must end in an error and not in a process that hangs.
func TestTransactionInTransaction(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: newDir(t), Wait: 20 * time.Millisecond})
	err := s.View(t.Context(), nil, func(store.ReadTx) error {
		return s.View(t.Context(), nil, func(store.ReadTx) error { return nil })
	})
	wantProblem(t, err, problem.StoreBusy, "this process")
}

// TestIdleHolderLetsGo: a store that is kept open and not used goes to the first who waits, and the holder gets it back.
func TestIdleHolderLetsGo(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	a, b := open(t, Config{Dir: dir, Wait: testWait}), open(t, Config{Dir: dir, Wait: testWait})
	var slowest time.Duration
	for i := range 5 {
		if err := storetest.Increment(t.Context(), a, "n"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		lock, err := b.cfg.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
		if err := lock.release(); err != nil {
			t.Fatal(err)
		}
		if err := storetest.Increment(t.Context(), b, "n"); err != nil {
			t.Fatal(err)
		}
		if n := counter(t, a); n != 2*i+2 {
			t.Fatalf("%d, want %d", n, 2*i+2)
		}
	}
	t.Logf("slowest: %s", slowest)
	if slowest > testWait/2 {
		t.Errorf("the holder let go after %s", slowest)
	}
}

// TestQueueThatMoves: who waits is patient while holders take turns, and not with one that keeps the lock, or for ever.
func TestQueueThatMoves(t *testing.T) {
	t.Parallel()
	const wait = 200 * time.Millisecond
	for _, c := range []struct {
		name  string
		turns int // how many holders take turns before the lock is free; 0: one keeps it
		least time.Duration
		busy  bool
	}{
		{"stuck", 0, wait, true},
		{"moves", 12, 2 * wait, false},
		{"for ever", 1 << 30, turns * wait, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t)
			first, second := open(t, Config{Dir: dir, Wait: testWait}), open(t, Config{Dir: dir, Wait: wait})
			lock, err := first.cfg.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { _ = lock.release() }()
				for i := 0; c.turns == 0 || i < c.turns; i++ {
					if c.turns > 0 { // another holder, as far as one can see from outside
						if err := first.cfg.take(lock, lockExclusive); err != nil {
							t.Error(err)
						}
					}
					select {
					case <-stop:
						return
					case <-time.After(wait / 4):
					}
				}
			}()
			began := time.Now()
			got, err := second.cfg.acquire(t.Context())
			took := time.Since(began)
			if err == nil {
				_ = got.release()
			}
			close(stop)
			<-ended
			if c.busy {
				wantProblem(t, err, problem.StoreBusy, "held it since")
			} else if err != nil {
				t.Error(err)
			}
			if took < c.least || c.turns == 0 && took >= turns*wait {
				t.Errorf("it ended after %s, want %s or more", took, c.least)
			}
		})
	}
}

// TestNobodyStarves: one that comes back at once does not keep out one that waits.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	greedy := open(t, Config{Dir: dir, Wait: testWait})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		var err error
		for err == nil {
			err = storetest.Increment(ctx, greedy, "greedy")
		}
		done <- err
	}()
	modest := open(t, Config{Dir: dir, Wait: testWait})
	for range 10 {
		if err := storetest.Increment(t.Context(), modest, "n"); err != nil {
			t.Error(err)
		}
		if err := modest.letGoNow(); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
