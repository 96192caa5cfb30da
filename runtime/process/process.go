// Package process says whether the process that owns a record is still alive, and ends the processes that it left.
//
// A pid alone means nothing: it is reused. A process is named by its boot, its pid and its start time; a record that was
// written in another boot has no living owner. That holds whatever host the record names, because the store is on a local
// disk, which only one kernel has at a time, and network file systems are refused.
package process

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// ErrGone is returned by StartTime for a process that does not exist, or that has ended and was not collected yet.
var ErrGone = errors.New("no such process")

// Liveness is what can be known about an owner.
type Liveness string

// The answers. Unseen is an owner in another container under the same kernel, or, where there is no /proc, on another host:
// from here it cannot be told from a dead one.
const (
	Live   Liveness = "live"
	Dead   Liveness = "dead"
	Unseen Liveness = "unseen"
)

// Look says what is known about an owner.
func Look(o action.Owner) Liveness { return look(o, Self()) }

func look(o, self action.Owner) Liveness {
	switch {
	case o.PID <= 0:
		return Dead // no process has such a pid: the record never had an owner
	case o.Boot != self.Boot:
		return Dead
	case space(o.Host) != space(self.Host):
		return Unseen
	case o.Boot == "" && o.Host != self.Host:
		return Unseen
	}
	start, err := StartTime(o.PID)
	switch {
	case errors.Is(err, ErrGone):
		return Dead
	case err != nil:
		return Live // it exists and cannot be looked at
	case start != o.Start:
		return Dead // somebody else has its pid now
	}
	return Live
}

// Alive says whether the owner must be taken for alive. One that cannot be seen counts as alive: taking a live one for dead
// would let two processes act on one record. So that nothing waits for ever, a caller that has other proof, such as the
// runbook's flock, or a deadline of the record that has passed with a margin, asks Look and treats Unseen as dead.
func Alive(o action.Owner) bool { return Look(o) != Dead }

// gonePatience is how long KillGroup waits for the kernel: a process that waits for a disk cannot die.
const gonePatience = 2 * time.Second

// KillGroup kills every process of the child's group and returns nil when none is left. It kills nothing if the child's pid
// belongs to another process by now. Call it only for a record whose owner is of this boot: pids of another boot mean
// nothing here, and there is nothing to kill.
func KillGroup(c action.Child) error {
	if c.PID <= 1 || c.Group <= 1 {
		return problem.New(problem.Internal, "kill process group %d of child %d: not a group of a child", c.Group, c.PID)
	}
	if c.Group == ownGroup() {
		return problem.New(problem.Internal, "kill process group %d: it is this process's own", c.Group)
	}
	deadline := time.Now().Add(gonePatience) //nolint:forbidigo // a wait in the kernel, not a decision
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		gone, err := Gone(c)
		if err != nil {
			return err
		}
		if gone {
			return nil
		}
		// Every time: a member may have forked while the group was being killed.
		if err := killGroup(c); err != nil {
			return problem.Wrap(problem.Internal, err, "kill process group %d", c.Group).
				WithHint("run as the user who started it, or end it yourself: ps -o pid,user,stat,args -g %d", c.Group)
		}
		if time.Now().After(deadline) { //nolint:forbidigo // as above
			return problem.New(problem.Internal, "process group %d was killed and has not ended in %s", c.Group, gonePatience).
				WithHint("a process in state D waits for a disk or a network: ps -o pid,stat,wchan,args -g %d", c.Group)
		}
		<-time.After(pause)
	}
}

// Gone says whether no process of the child's group is left. The group is the child's as long as it has a member: the
// kernel does not reuse a pid while it names a group.
func Gone(c action.Child) (bool, error) {
	if c.PID <= 0 || c.Group <= 0 {
		return true, nil
	}
	start, err := StartTime(c.PID)
	switch {
	case err == nil && start != c.Start:
		return true, nil // the pid was reused, so the group is no more
	case err == nil:
		return false, nil
	case !errors.Is(err, ErrGone):
		return false, problem.Wrap(problem.Internal, err, "look at process %d", c.PID)
	}
	left, err := members(c)
	if err != nil {
		return false, problem.Wrap(problem.Internal, err, "list process group %d", c.Group)
	}
	return !left, nil
}

// hostname never fails: a host without a name is this one.
func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return h
}

// A host is the host's name, and behind a slash the name of its pid namespace if it is not the machine's own.
func joinHost(host, space string) string {
	if space == "" {
		return host
	}
	return fmt.Sprintf("%s/%s", host, space)
}
