//go:build !linux

package proc

import (
	"errors"
	"syscall"
)

func (p *Process) run(o Options) error {
	if o.Confine != nil {
		return errors.New("confine: only Linux can")
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	var err error
	p.reap = func() error { return err } // there is no waiting without reaping here
	exited := make(chan struct{})
	p.exited = exited
	go func() {
		err = p.cmd.Wait()
		close(exited)
	}()
	return nil
}

// signal reaches the process alone.
func (p *Process) signal(syscall.Signal) { _ = p.cmd.Process.Kill() }

// StartTime is not known here.
func StartTime(int) uint64 { return 0 }

// Stat is what is known of a process.
type Stat struct {
	Parent, Group int
	Start         uint64
}

// ReadStat is not known here.
func ReadStat(int) (Stat, error) { return Stat{}, errors.ErrUnsupported }
