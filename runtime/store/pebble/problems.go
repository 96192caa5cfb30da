package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	pdb "github.com/cockroachdb/pebble/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// unknown is the answer when a commit was begun and its end not seen.
func unknown(err error) *problem.Problem {
	return problem.Wrap(problem.StateUnusable, fmt.Errorf("%w: %w", store.ErrUnknown, err), "store: commit").
		WithHint("nothing was begun because of it; look at the disk with: runbook doctor")
}

// unusable explains an error of the file system.
func (c *Config) unusable(err error, format string, args ...any) *problem.Problem {
	var p *problem.Problem
	if errors.As(err, &p) {
		return p
	}
	p = problem.Wrap(problem.StateUnusable, err, format, args...)
	return p.WithHint("%s", c.hint(err))
}

func (c *Config) hint(err error) string {
	dir := parent(c.Dir)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Sprintf("make room on the disk of %s: df -h %s; df -i %s", dir, dir, dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("%s is mounted read-only, often after a disk error: findmnt -T %s; dmesg | tail", dir, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("run as the user or in the group that owns %s: ls -ld %s; id", dir, dir)
	case errors.Is(err, fs.ErrNotExist):
		return "create the state directory once with: runbook init --state DIR"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit of open files: ulimit -n"
	default:
		return "look at the disk and the kernel's log: dmesg | tail; then: runbook doctor"
	}
}

// hangs is an open that has not ended when the time was over.
func (c *Config) hangs(err error) *problem.Problem {
	return problem.Wrap(problem.StateUnusable, err, "open store %s: no answer from the disk", c.Dir).
		WithHint("look at the disk and the kernel's log: dmesg | tail")
}

// damaged says that records are gone or unreadable.
func (c *Config) damaged(format string, args ...any) *problem.Problem {
	return problem.New(problem.StoreDamaged, "store %s is damaged: %s", c.Dir, fmt.Sprintf(format, args...)).
		WithHint("nothing acts until it is repaired: see runbook doctor, then restore the state directory from a backup")
}

// unreadable explains a failed read of the open database.
func (c *Config) unreadable(err error, format string, args ...any) *problem.Problem {
	if pdb.IsCorruptionError(err) {
		return c.damaged("%s: %v", fmt.Sprintf(format, args...), err)
	}
	return c.unusable(err, "store %s: "+format, append([]any{c.Dir}, args...)...)
}

// cannotOpen explains why Pebble refused. What is not plainly the file system's fault counts as damage.
func (c *Config) cannotOpen(err error) *problem.Problem {
	switch {
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
		return problem.New(problem.StoreBusy, "another program has the database in %s open", c.Dir).
			WithHint("find it with: fuser -v %s/LOCK", c.Dir)
	case pdb.IsCorruptionError(err), errors.Is(err, pdb.ErrDBDoesNotExist), errors.Is(err, fs.ErrNotExist):
		return c.damaged("%v", err)
	case errors.Is(err, fs.ErrPermission):
		return c.unusable(err, "open store %s", c.Dir)
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return c.unusable(err, "open store %s", c.Dir)
	}
	return c.damaged("%v", err)
}

// fatal ends the process: Pebble cannot say any more what is on the disk.
func (c *Config) fatal(reason string) {
	p := problem.New(problem.StateUnusable, "store %s: stopped: %s", c.Dir, reason)
	// Pebble hands over text, not an error.
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES} {
		if strings.Contains(reason, e.Error()) {
			p.Hint = c.hint(e)
		}
	}
	if p.Hint == "" {
		p.Hint = c.hint(nil)
	}
	c.Fatal(p)
	if c.without == fatalReturns {
		return
	}
	select {} // Fatal must not return; a commit that failed must not report success
}

// logger gives Pebble's last word a way out. What it logs besides is about its own housekeeping.
type logger struct{ c *Config }

func (logger) Infof(string, ...any)                {}
func (logger) Errorf(string, ...any)               {}
func (l logger) Fatalf(format string, args ...any) { l.c.fatal(fmt.Sprintf(format, args...)) }
