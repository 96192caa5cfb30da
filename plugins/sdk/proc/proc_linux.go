package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc/thread"
)

// run starts the command on an operating system thread of its own: see package thread.
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
	var err error
	p.exited, err = thread.Start(func() (int, error) {
		thread.Patient(o.Patient)
		if o.NoNewPrivs {
			if err := thread.NoNewPrivs(); err != nil {
				return 0, fmt.Errorf("set no_new_privs: %w", err)
			}
		}
		if o.Confine != nil {
			if err := o.Confine.restrict(); err != nil {
				return 0, fmt.Errorf("confine: %w", err)
			}
		}
		if err := p.cmd.Start(); err != nil {
			return 0, o.Confine.explain(err)
		}
		return p.cmd.Process.Pid, nil
	})
	if err != nil {
		return err
	}
	p.start = StartTime(p.cmd.Process.Pid) // not on that thread, which may not read it
	return nil
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
