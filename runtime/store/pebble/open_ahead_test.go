package pebble

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// A store that is opened ahead keeps the contract.
func TestContractAhead(t *testing.T) {
	t.Parallel()
	for name, writer := range map[string]bool{"to write": true, "to read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := sharedDir()
			storetest.Run(t, func(t *testing.T) store.Store {
				s := open(t, Config{Dir: dir(t), Writer: writer, Wait: testWait})
				s.Ahead()
				return s
			})
		})
	}
}

// It takes nothing from anybody: not the lock from who has it, and not its turn from who waits for it.
func TestAheadWaitsForNobody(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	holder, waiting, err := open(t, Config{Dir: dir}), open(t, Config{Dir: dir}), error(nil)
	lock, err := holder.cfg.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Dir: dir, Wait: 20 * time.Millisecond})
	s.Ahead()
	select {
	case <-s.ahead:
	case <-time.After(testWait):
		t.Fatal("it waits for the lock")
	}
	wantProblem(t, storetest.Increment(t.Context(), s, "n"), problem.StoreBusy, "held it since")

	l, err := waiting.cfg.openLock()
	if err != nil {
		t.Fatal(err)
	}
	if err := flock(l.wait, lockShared); err != nil {
		t.Fatal(err)
	}
	if err := lock.release(); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{Dir: dir, Wait: testWait})
	other.Ahead()
	<-other.ahead
	if other.lock != nil || other.db != nil {
		t.Error("it has taken the lock for which another process waits")
	}
	l.closeFiles()
	if err := storetest.Increment(t.Context(), other, "n"); err != nil {
		t.Error(err)
	}
}

// What is wrong is said by the transaction, as if nothing had been opened ahead.
func TestAheadOfNothing(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: filepath.Join(t.TempDir(), "store")})
	s.Ahead()
	wantProblem(t, storetest.Increment(t.Context(), s, "n"), problem.StateMissing, "runbook init")
	closed := open(t, Config{Dir: newDir(t)})
	closed.Ahead()
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
}

// A disk that does not answer keeps nobody beyond his time, and is told apart from a store that others have.
func TestAheadOnAHangingDisk(t *testing.T) {
	t.Parallel()
	s, hang, answer := hanging(t, func(errorfs.Op) bool { return true })
	hang.Store(true)
	s.Ahead()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantProblem(t, double(ctx, s), problem.StateUnusable, "no answer from the disk")
	hang.Store(false)
	close(answer)
	if n, err := readDouble(t.Context(), s); err != nil || n != 4 {
		t.Errorf("%d, %v after the disk answered", n, err)
	}
}
