package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// The descriptors of a gate process.
const (
	gateLeave  = 3 // what to become arrives here; its end without that is the order to exit
	gateReport = 4 // closed by becoming the command; otherwise says why not
)

// become is what a gate process becomes.
type become struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
}

// startGate starts this very program again, as a process that waits in gate and then becomes the command under the same
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
	cmd.Env = append(os.Environ(), envGate+"=1")
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
		order, err := json.Marshal(become{c.Argv, c.Env})
		if err != nil {
			return err
		}
		if _, err := leaveW.Write(order); err != nil {
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

// gate waits for leave and becomes the command. It returns only if it may not or cannot.
func gate() error {
	parent := os.Getppid()
	leave, report := os.NewFile(gateLeave, "leave"), os.NewFile(gateReport, "report")
	if leave == nil || report == nil {
		return errors.New("gate: its descriptors are missing")
	}
	syscall.CloseOnExec(gateLeave)
	syscall.CloseOnExec(gateReport)
	order, err := io.ReadAll(leave)
	if err != nil || len(order) == 0 {
		return errors.New("gate: no leave was given")
	}
	var b become
	if err := json.Unmarshal(order, &b); err != nil || len(b.Argv) == 0 {
		// A cut order: whoever sent it is gone.
		return errors.New("gate: no leave was given")
	}
	if err = dieWith(parent); err == nil {
		err = syscall.Exec(b.Argv[0], b.Argv, b.Env)
	}
	_, _ = report.WriteString(err.Error())
	return err
}

// dieWith asks for the end of the command when the plugin ends. That was asked for when this process was started, but it is
// a property of a thread: the command inherits it from the one that becomes it, which need not be the first.
func dieWith(parent int) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie the command to the plugin: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("gate: the plugin has ended")
	}
	return nil
}
