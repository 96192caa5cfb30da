package pebble

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// fault is a disk that fails from the n-th operation of a kind on, or only in that one.
type fault struct {
	errno   syscall.Errno
	reads   bool // reads fail, too
	once    bool
	at      int64
	n       atomic.Int64
	hit     atomic.Bool
	healthy atomic.Bool // it has been mended
	where   atomic.Pointer[string]
}

func (f *fault) inject(op errorfs.Op) error {
	if f.healthy.Load() || op.Kind == errorfs.OpFileClose || !f.reads && op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	n := f.n.Add(1)
	if n < f.at || f.once && n > f.at {
		return nil
	}
	if !f.hit.Swap(true) {
		where := fmt.Sprintf("%v of %s", op.Kind, op.Path)
		f.where.Store(&where)
	}
	return f.errno
}

// TestFaultsAtEveryOperation fails every single operation on the disk, one after the other, of a process that opens a store, writes, lets go,
// opens it again, writes and reads: an update that is acknowledged is there afterwards, on the disk as it is and on one from which a power cut took
// what was not synced; nothing is there by half; an error says why, and what is unknown says that it is; and the store opens again.
func TestFaultsAtEveryOperation(t *testing.T) {
	t.Parallel()
	total := 0
	for i, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		for _, once := range []bool{false, true} {
			// Each operation by one of the errors at least, and under the race detector, which takes ten times as long, some of them.
			stride := int64(3)
			if raced {
				stride = 41
			}
			for at := int64(1 + i); ; at += stride {
				f := &fault{errno: errno, once: once, at: at, reads: once && errno == syscall.EIO}
				faulty(t, f)
				if !f.hit.Load() {
					break // there is no such operation any more
				}
				if total++; t.Failed() {
					t.Fatalf("%v (once: %v) at operation %d, %s", errno, once, at, *f.where.Load())
				}
			}
		}
	}
	t.Logf("%d faults", total)
	if total < 200 && !raced {
		t.Errorf("only %d faults", total)
	}
}

func faulty(t *testing.T, f *fault) {
	t.Helper()
	mem := image(t, 4)
	var fatal atomic.Pointer[problem.Problem]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(f.inject)))
	cfg.grace, cfg.Wait = time.Millisecond, 20*time.Millisecond
	// When opening fails while a compaction goes on beside it, Pebble 2.1.7 takes the compaction's cache away, and that thread panics. That ends
	// the process, too, but a test along with it.
	cfg.without = noCompactions
	cfg.Fatal = func(p *problem.Problem) { // the process ends: nothing of it counts any more
		fatal.Store(p)
		cancel()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var acked, tried atomic.Int64
	acked.Store(4)
	tried.Store(4)
	// reasoned says that an error tells what is wrong.
	reasoned := func(what string, err error) {
		if err == nil || ctx.Err() != nil {
			return
		}
		p := asProblem(err)
		if p == nil || p.Hint == "" || !strings.Contains(p.Message, f.errno.Error()) && !strings.Contains(p.Message, "has not answered") {
			t.Errorf("%s: %v (%+v) does not say why", what, err, p)
		}
	}
	process := func() {
		for i := range 4 {
			if ctx.Err() != nil {
				return
			}
			if i%2 == 1 && !s.wedged.Load() {
				reasoned("let go", s.letGoNow())
			}
			tried.Add(1)
			err := double(ctx, s)
			if err == nil {
				acked.Store(tried.Load())
			} else if !errors.Is(err, store.ErrUnknown) && ctx.Err() == nil {
				tried.Add(-1) // it says that nothing was written
			}
			reasoned("update", err)
			if n, err := readDouble(ctx, s); err == nil && int64(n) < acked.Load() {
				t.Errorf("%d, acknowledged were %d", n, acked.Load())
			}
		}
		reasoned("close", s.Close())
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		process()
	}()
	select {
	case <-over:
	case <-ctx.Done(): // what waits for this disk waits for ever
	case <-time.After(3 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("it hangs: %s %s", *f.where.Load(), buf[:runtime.Stack(buf, true)])
	}
	if p := fatal.Load(); p != nil && (p.Hint == "" || !strings.Contains(p.Message, f.errno.Error())) {
		t.Errorf("stopped: %+v does not say why", p)
	}
	// The process is dead: what its threads do from here on, they do elsewhere.
	disks := map[string]*vfs.MemFS{
		"as it is":          mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}),
		"after a power cut": mem.CrashClone(vfs.CrashCloneCfg{}),
	}
	f.healthy.Store(true)
	for name, disk := range disks {
		again := open(t, memConfig(t, disk))
		n, err := readDouble(t.Context(), again)
		if err != nil || int64(n) < acked.Load() || int64(n) > tried.Load() {
			t.Errorf("the disk %s: %d, %v; %d were acknowledged and %d tried", name, n, err, acked.Load(), tried.Load())
		}
		if err := double(t.Context(), again); err != nil {
			t.Errorf("the disk %s: %v", name, err)
		}
	}
}

// TestFaultsWhileCreating fails every operation of init, one after the other: what was not made as a whole is not taken for a store, and init says
// why; nor is there a way to a store that is empty without having been made.
func TestFaultsWhileCreating(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		for at := int64(1); ; at++ {
			f := &fault{errno: errno, at: at}
			mem := newMem(t)
			var fatal atomic.Pointer[problem.Problem]
			stopped := make(chan struct{}, 1)
			cfg := memConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(f.inject)))
			cfg.without = noCompactions
			cfg.Fatal = func(p *problem.Problem) {
				fatal.Store(p)
				stopped <- struct{}{}
			}
			made := make(chan error, 1)
			go func() { made <- create(cfg) }()
			var err error
			select {
			case err = <-made:
			case <-stopped:
				err = fatal.Load()
			}
			if !f.hit.Load() {
				if err != nil || at < 20 {
					t.Fatalf("after %d faults: %v", at, err)
				}
				break
			}
			where := fmt.Sprintf("%v at operation %d, %s", errno, at, *f.where.Load())
			if p := asProblem(err); p == nil || p.Hint == "" || !strings.Contains(p.Message, errno.Error()) {
				t.Fatalf("%s: %v (%+v) does not say why", where, err, p)
			}
			left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			f.healthy.Store(true)
			again := open(t, memConfig(t, left))
			if n, err := readDouble(t.Context(), again); err == nil && n != 0 || err != nil && asProblem(err) == nil {
				t.Fatalf("%s: %d, %v", where, n, err)
			}
		}
	}
}
