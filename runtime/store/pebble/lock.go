package pebble

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// waitSuffix names the file on which those who wait hold a shared lock. The holder looks with a try at an exclusive one.
const waitSuffix = ".wait"

// errHeld is the answer of flock when another open file has the lock.
var errHeld = errors.New("held by another process")

// fileLock is the flock that one process has while it uses the store. The kernel drops it when the process dies, however
// it dies; children do not inherit it, because Go opens files with O_CLOEXEC.
type fileLock struct {
	f    *os.File
	wait *os.File // nil if it cannot be opened: then nobody can announce himself
}

// holder is what the lock file says. It is for people: only the flock decides.
type holder struct {
	PID   int       `json:"pid"`
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
}

const holderSize = 256

// turns is how many times as long the wait may be while the holder is one after another: that is a queue that moves, on
// a slow machine, and not a process that is stuck.
const turns = 10

// acquire waits for the lock. A process that has just let go comes here like any other, and is behind those who wait:
// they stand in the kernel's queue, where who came first is first and waiting costs nothing.
func (c *Config) acquire(ctx context.Context) (*fileLock, error) {
	l, err := c.openLock()
	if err != nil {
		return nil, err
	}
	if !l.wanted() {
		if err := c.take(l, lockExclusive); err == nil {
			return l, nil
		} else if !errors.Is(err, errHeld) {
			l.closeFiles()
			return nil, err
		}
	}
	waited, has := time.Duration(0), l.holder()
	patience, look := time.NewTimer(c.Wait), time.NewTicker(lookEvery)
	defer patience.Stop()
	defer look.Stop()
	got := make(chan error, 1)
	go func() { got <- c.take(l, lockInTurn) }()
	for announced := l.wait == nil; ; {
		if !announced {
			// The holder's look may collide with the announcement: try again.
			if announced = flock(l.wait, lockShared) == nil; announced {
				look.Stop()
			}
		}
		select {
		case err := <-got:
			if err != nil {
				l.closeFiles()
				return nil, err
			}
			if l.wait != nil {
				_ = flock(l.wait, lockNone)
			}
			return l, nil
		case <-look.C:
		case <-ctx.Done():
			err := fmt.Errorf("store: wait for the lock: %w", ctx.Err())
			if errors.Is(err, context.DeadlineExceeded) {
				err = c.busy(l, waited).Because(ctx.Err())
			}
			l.leave(got)
			return nil, err
		case <-patience.C:
			waited += c.Wait
			now := l.holder()
			if now == has || waited >= turns*c.Wait {
				err := c.busy(l, waited)
				l.leave(got)
				return nil, err
			}
			has = now
			patience.Reset(c.Wait)
		}
	}
}

// leave gives up the place in the queue: nobody can step out of it, so the lock is let go when it comes.
func (l *fileLock) leave(got <-chan error) {
	go func() {
		if <-got == nil {
			_ = l.release()
			return
		}
		l.closeFiles()
	}()
}

// tryOnce takes the lock or says who has it.
func (c *Config) tryOnce() (*fileLock, error) {
	l, err := c.openLock()
	if err != nil {
		return nil, err
	}
	err = c.take(l, lockExclusive)
	if err == nil {
		return l, nil
	}
	defer l.closeFiles()
	if errors.Is(err, errHeld) {
		return nil, c.busy(l, 0)
	}
	return nil, err
}

// tryFree takes the lock if nobody has it or waits for it.
func (c *Config) tryFree() (*fileLock, error) {
	l, err := c.openLock()
	if err != nil {
		return nil, err
	}
	if err = errHeld; !l.wanted() {
		err = c.take(l, lockExclusive)
	}
	if err != nil {
		l.closeFiles()
		return nil, err
	}
	return l, nil
}

// openLock never creates the lock file: two processes that create it anew after it was removed would both hold a lock.
func (c *Config) openLock() (*fileLock, error) {
	f, err := openForLock(c.LockFile, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := c.FS.Stat(c.FS.PathJoin(c.Dir, formatFile)); err == nil {
			return nil, problem.New(problem.StateUnusable, "lock %s of the store is gone", c.LockFile).
				WithHint("make sure that no runbook process runs (pgrep -a runbook), then: touch %s", c.LockFile)
		}
		return nil, c.missing()
	}
	if err != nil {
		return nil, c.unusable(err, "open lock %s", c.LockFile)
	}
	l := &fileLock{f: f}
	if wait, err := openForLock(c.LockFile+waitSuffix, os.O_CREATE); err == nil {
		l.wait = wait
	}
	return l, nil
}

// openForLock opens for writing if that is allowed; a lock needs only an open file.
func openForLock(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o660)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if r, rerr := os.Open(path); rerr == nil {
		return r, nil
	}
	return nil, err
}

// take gets the lock, as how says, and puts this process's name in.
func (c *Config) take(l *fileLock, how int) error {
	if err := flock(l.f, how); err != nil {
		if errors.Is(err, errHeld) {
			return err
		}
		return c.unusable(err, "lock %s", c.LockFile)
	}
	if err := c.sameLock(l); err != nil {
		return c.unusable(err, "lock %s", c.LockFile)
	}
	text, err := json.Marshal(holder{os.Getpid(), c.Holder, c.Now().UTC().Truncate(time.Millisecond)})
	if err == nil && len(text) < holderSize {
		// Failing only makes the message to those who wait poorer.
		_, _ = l.f.WriteAt(append(bytes.TrimSpace(text), bytes.Repeat([]byte{' '}, holderSize-len(text))...), 0)
	}
	return nil
}

// sameLock checks that the locked file is still the lock file: one that was replaced protects nothing.
func (c *Config) sameLock(l *fileLock) error {
	have, err := l.f.Stat()
	if err != nil {
		return err
	}
	want, err := os.Stat(c.LockFile)
	if err == nil && !os.SameFile(have, want) {
		err = errors.New("the file was replaced by another one")
	}
	return err
}

// wanted says whether somebody has announced that he waits.
func (l *fileLock) wanted() bool {
	if l == nil || l.wait == nil {
		return false
	}
	if err := flock(l.wait, lockExclusive); err != nil {
		return errors.Is(err, errHeld)
	}
	_ = flock(l.wait, lockNone)
	return false
}

func (l *fileLock) release() error {
	_, _ = l.f.WriteAt(bytes.Repeat([]byte{' '}, holderSize), 0)
	// Unlocked before it is closed: a child between fork and exec still has the open file, and would keep the lock.
	err := flock(l.f, lockNone)
	l.closeFiles()
	return err
}

func (l *fileLock) closeFiles() {
	_ = l.f.Close()
	if l.wait != nil {
		_ = l.wait.Close()
	}
}

// holder is what the file says of who has the lock, empty if it says nothing.
func (l *fileLock) holder() string {
	b := make([]byte, holderSize)
	n, _ := l.f.ReadAt(b, 0)
	return string(bytes.TrimSpace(b[:n]))
}

// busy names the holder. waited is 0 if the caller did not, or not for as long as it may.
func (c *Config) busy(l *fileLock, waited time.Duration) *problem.Problem {
	var h holder
	if err := json.Unmarshal([]byte(l.holder()), &h); err != nil || h.PID == 0 {
		return problem.New(problem.StoreBusy, "store %s is busy: many processes take turns, or its holder could not leave its name", c.Dir).
			WithHint("see who has it: fuser -v %s", c.LockFile)
	}
	howLong := ""
	if waited > 0 {
		howLong = fmt.Sprintf(" (waited %s)", waited)
	}
	return problem.New(problem.StoreBusy, "store %s is busy: pid %d %q has held it since %s%s", c.Dir, h.PID, h.Name, h.Since.Format(time.RFC3339), howLong).
		WithHint("look at that process: ps -fp %d", h.PID)
}

// busyHere is for a transaction that waits for another one of the same process.
func (c *Config) busyHere(wedged bool) *problem.Problem {
	if wedged {
		return problem.New(problem.StateUnusable, "store %s: the disk has not answered an earlier commit yet", c.Dir).
			WithHint("look at the disk and the kernel's log: dmesg | tail")
	}
	return problem.New(problem.StoreBusy, "store %s is busy: another transaction of this process (pid %d) has not ended in %s",
		c.Dir, os.Getpid(), c.Wait).WithHint("try again; if it stays so, please report it as a bug")
}
