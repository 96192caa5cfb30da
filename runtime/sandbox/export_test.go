package sandbox

import (
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// PID is the worker's process, for tests that do harm to it.
func (w *worker) PID() int { return w.cmd.Process.Pid }

// Line is where the worker has noted that it is in the file main.star.
func (w *worker) Line() value.Pos { return w.shared.pos([]string{"main.star"}) }

// CPUTime is the time for which a process has computed.
func CPUTime(pid int) time.Duration { return cpuTime(pid) }
