package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed1de3961f/runbook/runtime/action"
)

// initSpace is the inode of the machine's own pid namespace, a constant of the kernel.
const initSpace = "pid:[4026531836]"

// Self names this process.
func Self() action.Owner {
	o := action.Owner{Host: hostname(), PID: os.Getpid()}
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != initSpace {
		o.Host = joinHost(o.Host, ns)
	}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		o.Boot = strings.TrimSpace(string(boot))
	}
	o.Start, _ = StartTime(o.PID)
	return o
}

// space is the pid namespace in a host's name.
func space(host string) string {
	_, ns, _ := strings.Cut(host, "/")
	return ns
}

// StartTime returns when the process started, in clock ticks since the boot, or ErrGone.
func StartTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	return s.start, err
}

type stat struct {
	group int
	start uint64
}

// readStat reads /proc/PID/stat. A zombie is gone: it does nothing any more.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return stat{}, ErrGone
	}
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

func parseStat(b []byte) (stat, error) {
	// The name, second, may hold anything, brackets and spaces too; what follows the last bracket is fields 3 and up.
	_, rest, ok := cutLast(b, ')')
	f := bytes.Fields(rest)
	if !ok || len(f) < 20 {
		return stat{}, fmt.Errorf("unexpected text %.60q", b)
	}
	switch string(f[0]) {
	case "Z", "X", "x":
		return stat{}, ErrGone
	}
	group, err := strconv.Atoi(string(f[5-3]))
	if err != nil {
		return stat{}, err
	}
	start, err := strconv.ParseUint(string(f[22-3]), 10, 64)
	return stat{group, start}, err
}

func cutLast(b []byte, sep byte) (before, after []byte, ok bool) {
	i := bytes.LastIndexByte(b, sep)
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+1:], true
}

// members says whether a process of the group is left after its leader has ended.
func members(c action.Child) (bool, error) {
	switch err := syscall.Kill(-c.Group, 0); {
	case errors.Is(err, syscall.ESRCH):
		return false, nil
	case err != nil:
		return true, nil // another user's, perhaps hidden from /proc too
	}
	// Somebody has the group; a zombie does not count.
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return false, err
		}
		// A group that was made anew under the same number has members that are all younger, as have forks of ours; one
		// that is older than the child is not ours.
		if s.group == c.Group && s.start >= c.Start {
			return true, nil
		}
	}
	return false, nil
}

// killGroup signals the group once. A leader that is alive must be in it: else the record is wrong, and the group may be
// anybody's.
func killGroup(c action.Child) error {
	if s, err := readStat(c.PID); err == nil && s.group != c.Group {
		return fmt.Errorf("process %d is in group %d", c.PID, s.group)
	}
	err := syscall.Kill(-c.Group, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func ownGroup() int { return syscall.Getpgrp() }
