package spare

import (
	"os"
	"syscall"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc/thread"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/pipes"
)

// start starts the process as proc.Start would, which would take the initialisation of more packages.
func start() (*Spare, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := pipes.Open()
	if err != nil {
		return nil, err
	}
	s := &Spare{Pipes: p}
	s.Exited, err = thread.Start(func() (int, error) {
		thread.Patient(true)
		err := thread.NoNewPrivs()
		if err == nil {
			s.Process, err = os.StartProcess(exe, []string{exe, Command}, &os.ProcAttr{
				Dir: "/", Env: []string{}, Files: p.Theirs, Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
			})
		}
		if err != nil {
			return 0, err
		}
		return s.Process.Pid, nil
	})
	p.Started()
	if err != nil {
		p.Close()
		return nil, err
	}
	return s, nil
}

// End ends a process that was not told anything, and waits for its end.
func (s *Spare) End() {
	_ = syscall.Kill(-s.Process.Pid, syscall.SIGKILL) // it is not reaped, so the group is still its own
	s.Close()
	_, _ = s.Process.Wait()
}
