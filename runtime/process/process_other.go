//go:build !linux

package process

import (
	"errors"
	"os"

	"github.com/seed1de3961f/runbook/runtime/action"
)

// Without /proc neither the boot nor the start time of a process is known here. An owner is then its host and pid alone: a
// reused pid keeps a dead owner alive, which is the safe side, and no process is killed.

// Self names this process.
func Self() action.Owner { return action.Owner{Host: hostname(), PID: os.Getpid()} }

func space(string) string { return "" }

// StartTime returns 0 for a process that exists, or ErrGone.
func StartTime(pid int) (uint64, error) {
	if pid == os.Getpid() {
		return 0, nil
	}
	if !exists(pid) {
		return 0, ErrGone
	}
	return 0, nil
}

func members(action.Child) (bool, error) { return false, nil }

func killGroup(action.Child) error { return errors.ErrUnsupported }

func ownGroup() int { return -1 }
