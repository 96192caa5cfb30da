//go:build !linux

package sandbox

import (
	"os"
	"syscall"
	"time"
)

// Weak says that this system has no limits that hold whatever a script does: no action may be taken.
const Weak = true

func ownExecutable() (string, error) { return os.Executable() }

func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func onMainThread() bool { return false }

func patience() {}

func noNewPrivileges() error { return nil }

func kill(p *os.Process) { _ = p.Kill() }

// cpuTime is not known here: a stall is ended by the clock.
func cpuTime(int) time.Duration { return 0 }

// sharedPage is not shared here: when a worker is killed nobody
// knows where it was.
type sharedPage struct{ *page }

func newSharedPage() (*sharedPage, error) { return &sharedPage{newPage(make([]byte, pageSize))}, nil }

func (p *sharedPage) files() []*os.File { return nil }

func (p *sharedPage) release() {}

func blockingPipe() (r, w *os.File, err error) { return os.Pipe() }
