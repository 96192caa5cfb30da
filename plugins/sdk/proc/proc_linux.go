package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// run starts the command on an operating system thread of its own and keeps that thread until the process has ended:
// Pdeathsig fires when the starting thread ends, not the process, and what is set on the thread, no_new_privs and a confinement, passes to the child
// and to nothing else.
func (p *Process) run(o Options) error {
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Setpgid = true
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if o.Confine != nil {
		o.Confine.attributes(p.cmd.SysProcAttr)
	}
	p.reap = p.cmd.Wait
	started := make(chan error, 1)
	onThread(func() {
		if o.NoNewPrivs {
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				started <- fmt.Errorf("set no_new_privs: %w", err)
				return
			}
		}
		if o.Confine != nil {
			if err := o.Confine.restrict(); err != nil {
				started <- fmt.Errorf("confine: %w", err)
				return
			}
		}
		if err := p.cmd.Start(); err != nil {
			started <- o.Confine.explain(err)
			return
		}
		started <- nil
		waitExit(p.cmd.Process.Pid)
		close(p.exited)
	})
	if err := <-started; err != nil {
		return err
	}
	p.start = StartTime(p.cmd.Process.Pid) // not on that thread, which may not read it
	return nil
}

// onThread runs fn on a thread that ends with it and is not the main thread: a main thread cannot end, and what is set on
// it would be seen as the whole process's.
func onThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn() // never unlocked, so the thread ends here
			return
		}
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			fn()
		}()
		<-elsewhere // as long as this goroutine holds the main thread, the other one cannot get it
		runtime.UnlockOSThread()
	}()
}

// waitExit waits until pid has ended and leaves it to be reaped.
func waitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// signal sends to the group. The leader is not reaped, so the group's number is still its own.
func (p *Process) signal(sig syscall.Signal) { _ = unix.Kill(-p.cmd.Process.Pid, sig) }

// StartTime is field 22 of /proc/PID/stat, 0 if there is no such process.
func StartTime(pid int) uint64 {
	s, err := ReadStat(pid)
	if err != nil {
		return 0
	}
	return s.Start
}

// Stat is a part of /proc/PID/stat.
type Stat struct {
	Parent, Group int
	Start         uint64
}

// ReadStat reads /proc/PID/stat.
func ReadStat(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	// The second field is the name in parentheses, which may itself contain blanks and parentheses.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 20 {
		return Stat{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	parent, err1 := strconv.Atoi(string(f[1]))
	group, err2 := strconv.Atoi(string(f[2]))
	start, err3 := strconv.ParseUint(string(f[19]), 10, 64)
	return Stat{Parent: parent, Group: group, Start: start}, errors.Join(err1, err2, err3)
}
