package sdk

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// Prepared is a command that is ready and has not begun.
type Prepared struct {
	call *Call
	cmd  Command
	gate *gated // nil where the platform has none: the command is started by Run
}

// gated is a process that waits to become the command.
type gated struct {
	proc  *proc.Process
	out   output
	leave func(Command) error // lets it become the command; an error means that it certainly has not
	drop  func()              // ends it without
}

// Ahead is a process that waits before it is known for which command: its start is most of what Prepare takes.
type Ahead struct {
	dir     string
	started chan waiting // one, once; none if it could not be started or was taken
}

type waiting struct {
	gate  *gated
	child *pluginpb.Child
}

// StartAhead starts one in the background, on Linux. Whoever does so is likely to prepare a command that says no more of how it is started than its
// directory.
func StartAhead(dir string) *Ahead {
	a := &Ahead{dir: dir, started: make(chan waiting, 1)}
	go func() {
		defer close(a.started)
		if g, child, err := startGate(Command{Argv: []string{""}, Dir: dir}); err == nil && g != nil {
			a.started <- waiting{g, child}
		}
	}()
	return a
}

// take hands over the process, if it is right for a command. One that has ended, or whose directory is not the one of that name any more, is none.
func (a *Ahead) take(c Command) (*gated, *pluginpb.Child) {
	if a == nil || c.Dir != a.dir || c.Output > 0 {
		return nil, nil
	}
	w, ok := <-a.started
	if !ok {
		return nil, nil
	}
	is, err1 := os.Stat(fmt.Sprintf("/proc/%d/cwd", w.gate.proc.PID()))
	want, err2 := os.Stat(cmp.Or(c.Dir, "/"))
	if err1 != nil || err2 != nil || !os.SameFile(is, want) {
		w.gate.drop()
		return nil, nil
	}
	return w.gate, w.child
}

// Prepare makes everything ready to run a command: on Linux a process that leads its own group and waits. Begin then names
// that group to the engine, which records it before anything happens, so that the command and all that it starts can be
// ended whatever becomes of this plugin. A command that is prepared and never run has no effect.
func (c *Call) Prepare(cmd Command) (*Prepared, error) {
	if err := cmd.check(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != preparing {
		return nil, errors.New("Prepare belongs before Begin")
	}
	if c.child != nil {
		return nil, errors.New("Prepare was called before: an action runs one command")
	}
	g, child := cmd.Ahead.take(cmd)
	if g == nil {
		var err error
		if g, child, err = startGate(cmd); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", cmd.Argv[0], err)
		}
	}
	p := &Prepared{call: c, cmd: cmd, gate: g}
	if g != nil {
		c.child = child
		c.cleanup = append(c.cleanup, func() {
			if p.gate != nil {
				p.gate.drop()
			}
		})
	}
	return p, nil
}

// Run runs the command, after Begin. A command that ended by a signal or because the call's time was over leaves the
// action in doubt: the error is Unknown already. An exit status other than 0 is a result.
func (p *Prepared) Run() (CommandResult, error) {
	if p.call.at() != acting {
		return CommandResult{}, errors.New("Run belongs after Begin")
	}
	if p.gate == nil {
		return unsure(RunCommand(p.call, p.cmd))
	}
	g := p.gate
	p.gate = nil
	if err := g.leave(p.cmd); err != nil {
		g.drop()
		return CommandResult{}, fmt.Errorf("start %s: %w", p.cmd.Argv[0], err)
	}
	return unsure(p.cmd.await(p.call, g.proc, g.out))
}

func unsure(r CommandResult, err error) (CommandResult, error) {
	if _, ok := errors.AsType[*CommandError](err); ok {
		err = Unknown(err)
	}
	return r, err
}

// at is how far the call came.
func (c *Call) at() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}
