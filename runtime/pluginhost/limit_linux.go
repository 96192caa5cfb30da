package pluginhost

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// limit keeps a plugin, which holds secrets, from leaving a core dump. The soft limit alone is set: a daemon that an action
// starts may raise it again.
func limit(pid int) {
	var now unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &now); err == nil {
		_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: now.Max}, nil)
	}
}

// killGroup kills the process group of a child at once, without waiting, unless its number belongs to somebody else by now. It reports whether there
// was anything left to kill. The child must be of this boot.
func killGroup(c action.Child) bool {
	if c.Group <= 1 || c.Start == 0 || c.Group == unix.Getpgrp() {
		return false
	}
	// While any process of the group lives, the kernel gives its number to nobody. A process of that number that started
	// at another time therefore means that the group is gone.
	st, err := proc.ReadStat(c.Group)
	if err == nil && (st.Start != c.Start || st.Group != c.Group) {
		return false
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false
	}
	return unix.Kill(-c.Group, syscall.SIGKILL) == nil
}

// leads says whether c is a child of parent that leads the process group, and returns it with the time of its start: a plugin that is confined
// cannot see that itself and leaves it out.
func leads(c action.Child, parent int) (action.Child, bool) {
	st, err := proc.ReadStat(c.PID)
	if err != nil || c.PID != c.Group || st.Group != c.Group || st.Parent != parent || c.Start != 0 && st.Start != c.Start {
		return c, false
	}
	c.Start = st.Start
	return c, true
}
