package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Pass lets one action begin: it takes the gate together with other runs, asks every halt source again, calls proceed, and leaves the gate.
// proceed sends Proceed and waits, not for long, until the plugin says Acting. If Pass refuses, proceed was not called.
func (s State) Pass(ctx context.Context, env func(string) (string, bool), proceed func() error) error {
	// Asked before as well: while halted nobody takes the gate, so that a halt never waits for a queue of runs that would be refused.
	if set := s.Check(env); len(set) > 0 {
		return Halted(set)
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if set := s.Check(env); len(set) > 0 {
		return Halted(set)
	}
	return proceed()
}

func (s State) stateGate() string  { return filepath.Join(s.Dir, "locks", "gate") }
func (s State) memoryGate() string { return filepath.Join(s.GateDir, "gate") }
func (s State) holderDir() string  { return filepath.Join(s.GateDir, "holders") }

// enter takes both parts of the gate, shared, and says who it is.
func (s State) enter(ctx context.Context) (leave func(), err error) {
	cannot := func(err error) error {
		if errors.Is(err, errHeld) {
			return problem.New(problem.Halted, "a halt or resume holds the gate: nothing begins").WithHint("runbook status")
		}
		return problem.Wrap(problem.StateUnusable, err, "the gate cannot be taken: nothing begins").WithHint("runbook doctor")
	}
	memory, err := s.lock(ctx, s.memoryGate(), false, gateTimeout)
	if err != nil {
		return nil, cannot(err)
	}
	state, err := s.lock(ctx, s.stateGate(), false, gateTimeout)
	if err != nil {
		memory.release()
		return nil, cannot(err)
	}
	note, err := s.noteHolder()
	if err != nil {
		state.release()
		memory.release()
		return nil, cannot(err)
	}
	return func() {
		_ = os.Remove(note)
		state.release()
		memory.release()
	}, nil
}

// Holder is a process that is letting an action begin.
type Holder struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, against a reused pid; 0 if not known
}

// holders counts the passes of this process, to tell their notes apart.
var holders atomic.Int64

func (s State) noteHolder() (string, error) {
	if err := os.Mkdir(s.holderDir(), 0o750); err == nil {
		adoptFrom(s.GateDir, s.holderDir())
	} else if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	content, err := json.Marshal(Holder{PID: os.Getpid(), Start: startOf(os.Getpid())})
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.holderDir(), strconv.Itoa(os.Getpid())+"."+strconv.FormatInt(holders.Add(1), 10))
	return path, os.WriteFile(path, content, 0o640)
}

// Holders are the processes that are at this moment letting an action begin. Notes of processes that have died are left out.
func (s State) Holders() []Holder {
	entries, err := os.ReadDir(s.holderDir())
	if err != nil {
		return nil
	}
	var all []Holder
	seen := map[int]bool{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(s.holderDir(), e.Name()))
		var h Holder
		if err != nil || json.Unmarshal(content, &h) != nil || seen[h.PID] || startOf(h.PID) != h.Start {
			continue
		}
		seen[h.PID] = true
		all = append(all, h)
	}
	return all
}

// errHeld means that somebody else has the lock.
var errHeld = errors.New("held by another process")

// held is a lock that we have.
type held struct {
	file  *os.File
	fresh bool // we made the file: whoever held a file that was there before is not held back by this one
}

func (h held) release() { unlock(h.file) }

// lock takes a lock file, making it if need be, and waits for it no longer than patience.
func (s State) lock(caller context.Context, path string, exclusive bool, patience time.Duration) (held, error) {
	ctx, cancel := context.WithTimeout(caller, s.patience(patience))
	defer cancel()
	wait := 200 * time.Microsecond
	for {
		f, fresh, err := openLock(path)
		if err != nil {
			return held{}, err
		}
		ok, err := tryLock(f, exclusive)
		if err == nil && ok && current(f, path) {
			return held{f, fresh}, nil
		}
		unlock(f)
		switch {
		case err != nil:
			return held{}, err
		case ok && ctx.Err() == nil:
			continue // the file was replaced under us: again, with the new one
		}
		select {
		case <-ctx.Done():
			if caller.Err() != nil {
				return held{}, caller.Err()
			}
			return held{}, fmt.Errorf("%s: %w", path, errHeld)
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Millisecond)
		}
	}
}

func openLock(path string) (f *os.File, fresh bool, err error) {
	f, err = os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, false, err
	}
	f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE|noFollow, 0o640)
	if err != nil {
		return nil, false, err
	}
	adoptFrom(filepath.Dir(path), path)
	return f, true, nil
}

// current says whether path still is the file that we have locked.
func current(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// LockRunbook takes the lock of one runbook, so that its ticks do not overlap. held is true if this call has it now; if it is false, another
// tick has it and unlock does nothing.
func (s State) LockRunbook(name string) (unlock func(), held bool, err error) {
	path := filepath.Join(s.Dir, "locks", lockName(name))
	l, err := s.lock(context.Background(), path, true, time.Nanosecond)
	switch {
	case errors.Is(err, errHeld):
		return func() {}, false, nil
	case err != nil:
		return func() {}, false, problem.Wrap(problem.StateUnusable, err, "the lock of runbook %s", name).WithHint("runbook doctor")
	}
	return l.release, true, nil
}

// lockName is a file name for any name of a runbook: never a path, never the gate, and never too long.
func lockName(name string) string {
	escaped := url.PathEscape(name)
	if len(escaped) > 200 {
		escaped = hash(name)
	}
	return "runbook." + strings.ReplaceAll(escaped, "/", "%2F")
}
