package sdk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/seed1de3961f/runbook/plugins/sdk/gate"
	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// startGate starts this very program again, as a process that waits in package gate and then becomes the command under the same
// process id.
func startGate(c Command) (*gated, *pluginpb.Child, error) {
	leaveR, leaveW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, leaveR.Close(), leaveW.Close())
	}
	cmd, out := c.build()
	cmd.Path = "/proc/self/exe"
	cmd.Args = os.Args
	cmd.SysProcAttr = nil // it becomes the user together with the command: whoever that is need not be able to start this program
	cmd.Env = append(os.Environ(), gate.Env+"="+strconv.Itoa(os.Getpid()))
	cmd.ExtraFiles = []*os.File{leaveR, reportW}
	p, err := proc.Start(cmd, proc.Options{})
	_, _ = leaveR.Close(), reportW.Close()
	if err != nil {
		_, _ = leaveW.Close(), reportR.Close()
		return nil, nil, err
	}
	g := &gated{proc: p, out: out}
	g.drop = func() {
		_, _ = leaveW.Close(), reportR.Close()
		p.Kill()
		_, _ = p.Wait()
	}
	g.leave = func(c Command) error {
		if _, err := leaveW.Write(gate.Order(c.Argv, c.Env, c.User)); err != nil {
			return fmt.Errorf("the waiting process is gone: %w", err)
		}
		_ = leaveW.Close()
		why, err := io.ReadAll(reportR)
		_ = reportR.Close()
		switch {
		case err != nil:
			return Unknown(err)
		case len(why) > 0:
			return errors.New(string(why))
		}
		return nil
	}
	return g, &pluginpb.Child{Pid: int64(p.PID()), Start: p.StartTime(), Group: int64(p.PID())}, nil
}
