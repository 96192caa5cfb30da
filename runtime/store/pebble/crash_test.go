package pebble

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

const memDir = "/state/store"

// memConfig is a store on a file system in memory. The locks are real files.
func memConfig(t testing.TB, fsys vfs.FS) Config {
	t.Helper()
	cfg := Config{Dir: memDir, FS: fsys, LockFile: filepath.Join(t.TempDir(), "lock"), Wait: testWait}
	for _, path := range []string{cfg.LockFile, cfg.LockFile + waitSuffix} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Fatal = func(p *problem.Problem) { panic(p) }
	return cfg
}

func newMem(t testing.TB) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll(parent(memDir), 0o700), syncDir(mem, "/"), syncDir(mem, parent(memDir))); err != nil {
		t.Fatal(err)
	}
	return mem
}

// double increments two numbers that must always be equal.
func double(ctx context.Context, s store.Store) error {
	return s.Update(ctx, []string{"x"}, doubling)
}

func doubling(tx store.Tx) error {
	n, err := number(tx, "x")
	if err != nil {
		return err
	}
	val := []byte(strconv.Itoa(n + 1))
	tx.Put("x", val)
	tx.Put("y", val)
	return nil
}

func number(tx store.ReadTx, key string) (int, error) {
	val, err := tx.Get(key)
	if err != nil || val == nil {
		return 0, err
	}
	return strconv.Atoi(string(val))
}

func readDouble(ctx context.Context, s store.Store) (n int, err error) {
	err = s.View(ctx, []string{"x", "y"}, func(tx store.ReadTx) error {
		x, err := number(tx, "x")
		if err != nil {
			return err
		}
		y, err := number(tx, "y")
		if err == nil && x != y {
			err = fmt.Errorf("half of a commit: x = %d, y = %d", x, y)
		}
		n = x
		return err
	})
	return n, err
}

// crash is the disk as a power cut leaves it, and what had been promised by then.
type crash struct {
	where   string
	fs      *vfs.MemFS
	created bool
	acked   int
}

// TestCrashAtEveryWrite cuts the power before each write of a history of several processes, with none, half and all of what
// was not synced on the disk, and then goes on.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	const processes, commits = 3, 4
	mem := newMem(t)
	var (
		mu      sync.Mutex
		crashes []crash
		created atomic.Bool
		acked   atomic.Int64
		rng     = rand.New(rand.NewPCG(1, 2))
	)
	cut := func(where string) {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			c := crash{fmt.Sprintf("%d, %s, %d %%", len(crashes), where, percent), nil, created.Load(), int(acked.Load())}
			c.fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			crashes = append(crashes, c)
		}
	}
	cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFilePreallocate {
			cut(fmt.Sprintf("op %d on %s", op.Kind, op.Path))
		}
		return nil
	})))
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	created.Store(true)
	for range processes {
		s := open(t, cfg)
		for range commits {
			if err := double(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			acked.Add(1)
			cut("after a commit")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d crashes", len(crashes))
	if len(crashes) < 400 {
		t.Errorf("only %d crashes: does the injector still see the writes?", len(crashes))
	}

	var wg sync.WaitGroup
	next := atomic.Int64{}
	for range 2 {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(crashes); i = next.Add(1) - 1 {
				if err := crashes[i].survives(t); err != nil {
					t.Errorf("crash %s: %v", crashes[i].where, err)
				}
			}
		})
	}
	wg.Wait()
}

// survives opens what the crash left, looks for what was promised, and uses it.
func (c crash) survives(t *testing.T) error {
	cfg := memConfig(t, c.fs)
	s, err := New(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	n, err := readDouble(t.Context(), s)
	var p *problem.Problem
	if errors.As(err, &p) && p.Code == problem.StateMissing && !c.created {
		if err := create(cfg); err != nil {
			return fmt.Errorf("create again: %w", err)
		}
		n, err = readDouble(t.Context(), s)
	}
	if err != nil {
		return err
	}
	if n != c.acked && n != c.acked+1 {
		return fmt.Errorf("%d commits were acknowledged, %d are there", c.acked, n)
	}
	for range 2 {
		if err := double(t.Context(), s); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
		n++
		if err := s.letGoNow(); err != nil {
			return err
		}
		if got, err := readDouble(t.Context(), s); err != nil || got != n {
			return fmt.Errorf("after going on: %d, %w, want %d", got, err, n)
		}
	}
	return nil
}

// letGoNow lets go as if somebody waited.
func (s *Store) letGoNow() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.letGo()
}

func TestTheLogIsTrimmed(t *testing.T) {
	t.Parallel()
	cfg := memConfig(t, newMem(t))
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	const commits = 2*logMax + 10
	for i := range commits {
		if err := double(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if i%700 == 0 {
			if err := s.letGoNow(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.letGoNow(); err != nil {
		t.Fatal(err)
	}
	if n, err := readDouble(t.Context(), s); err != nil || n != commits {
		t.Fatalf("%d, %v, want %d", n, err, commits)
	}
	if kept := s.db.seq - s.db.floor + 1; s.db.seq != commits || kept > logMax || kept < logKept {
		t.Errorf("after commit %d the log has %d records", s.db.seq, kept)
	}
}
