// Package proc starts processes that lead their own process group and never outlive who started them.
//
// Promise, on Linux: the process is killed when this process ends, however it ends (Pdeathsig); Signal reaches its whole
// group, and only that one, because the group's number is never used after it could belong to somebody else. Elsewhere
// only the process itself is signalled, and it outlives a kill -9 of its parent.
package proc

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// Options are what Start adds to a command.
type Options struct {
	// NoNewPrivs keeps the process and all that it starts from gaining privileges by executing a file (setuid, sudo).
	NoNewPrivs bool
	// Confine takes from it what it need not touch; nil: nothing. What cannot be taken is an error, and nothing is started.
	Confine *Confine
	// Patient says that it and what it starts need no timers that are exact to less than a millisecond: see package thread.
	Patient bool
}

// Process is a running process group.
type Process struct {
	cmd    *exec.Cmd
	start  uint64
	exited <-chan struct{}
	reap   func() error

	mu     sync.Mutex
	reaped bool
}

// Start starts cmd as the leader of a new process group. Its output should go to files or carry a WaitDelay: a process that
// it leaves behind may hold pipes open.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	p := &Process{cmd: cmd}
	if err := p.run(o); err != nil {
		return nil, err
	}
	return p, nil
}

// Adopt is the Process of one that was started elsewhere, with all that Start does. exited is closed when it has ended and was not reaped.
func Adopt(p *os.Process, exited <-chan struct{}) *Process {
	cmd := &exec.Cmd{Process: p}
	return &Process{cmd: cmd, start: StartTime(p.Pid), exited: exited, reap: func() (err error) {
		cmd.ProcessState, err = p.Wait()
		return err
	}}
}

// PID is the number of the process, and on Linux of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// StartTime is when the process started, in clock ticks since boot: with the PID it names a process for the time that
// the machine is up. 0 where that is not known.
func (p *Process) StartTime() uint64 { return p.start }

// Exited is closed once the process has ended. Until Wait its number is not given to another.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Signal sends sig to every process of the group. It does nothing after Wait.
func (p *Process) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		p.signal(sig)
	}
}

// Kill ends every process of the group at once.
func (p *Process) Kill() { p.Signal(syscall.SIGKILL) }

// Wait waits for the end, reaps the process and waits, for no longer than the command's WaitDelay, for its output. It is
// called once.
func (p *Process) Wait() (*os.ProcessState, error) {
	<-p.exited
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	err := p.reap()
	return p.cmd.ProcessState, err
}
