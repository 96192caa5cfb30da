package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	"github.com/seed1de3961f/runbook/plugins/sdk/tail"
)

// Command is a program to run, without a shell.
type Command struct {
	Argv   []string // Argv[0] is an absolute path
	Dir    string   // "": the root directory
	Env    []string // all of the environment: nothing is inherited
	Output int      // how many bytes of each stream to keep, from its end; 0: 64 KiB
	User   *User    // as whom it runs; nil: as the plugin's own user
	// Grace is the time between asking the group to end and killing it; 0: 400ms. It is cut to half of what is left until
	// the engine kills the plugin.
	Grace time.Duration
	// Ahead is a process that was started for a command that is prepared in its directory; nil: there is none.
	Ahead *Ahead
}

// The defaults of a Command.
const (
	defaultOutput = 64 << 10
	// defaultGrace is the time between asking a process group to end and killing it.
	defaultGrace = 400 * time.Millisecond
	// pipeWait is how long a daemon that a command left behind may hold its output open.
	pipeWait = 250 * time.Millisecond
)

// CommandResult is how a command ended by itself.
type CommandResult struct {
	Exit           int
	Stdout, Stderr []byte
	// Cut says that an earlier part of the output was dropped.
	Cut bool
}

// CommandError is a command that did not end by itself.
type CommandError struct {
	Path   string
	Why    string // "killed by SIGKILL", "stopped after 2s: ..."
	Result CommandResult
}

// Error implements error.
func (e *CommandError) Error() string { return e.Path + " " + e.Why }

// RunCommand runs a command that only reads. It leads a process group of its own, which is asked to end (SIGTERM) when ctx does
// and killed after the grace, and which dies with the plugin. An exit status other than 0 is a result, not an error.
func RunCommand(ctx context.Context, c Command) (CommandResult, error) {
	if err := c.check(); err != nil {
		return CommandResult{}, err
	}
	cmd, out := c.build()
	p, err := proc.Start(cmd, proc.Options{})
	if err != nil {
		return CommandResult{}, fmt.Errorf("start %s: %w", c.Argv[0], cause(err))
	}
	return c.await(ctx, p, out)
}

// check refuses what cannot be started.
func (c Command) check() error {
	if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
		return fmt.Errorf("command %q: it must begin with an absolute path", c.Argv)
	}
	st, err := os.Stat(c.Argv[0])
	switch {
	case err != nil:
		return fmt.Errorf("command %s: %w", c.Argv[0], cause(err))
	case st.IsDir() || st.Mode()&0o111 == 0:
		return fmt.Errorf("command %s: not an executable file", c.Argv[0])
	}
	if c.Dir != "" {
		if st, err := os.Stat(c.Dir); err != nil || !st.IsDir() {
			return fmt.Errorf("command %s: %s is not a directory", c.Argv[0], c.Dir)
		}
	}
	return nil
}

type output struct{ stdout, stderr *tail.Buffer }

// build is the command with its output kept, and nothing of this process's own.
func (c Command) build() (*exec.Cmd, output) {
	size := c.Output
	if size <= 0 {
		size = defaultOutput
	}
	out := output{stdout: tail.New(size), stderr: tail.New(size)}
	cmd := &exec.Cmd{Path: c.Argv[0], Args: c.Argv, Dir: c.Dir, Env: c.Env, Stdout: out.stdout, Stderr: out.stderr, WaitDelay: pipeWait}
	if cmd.Dir == "" {
		cmd.Dir = string(filepath.Separator)
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.SysProcAttr = asUser(c.User)
	return cmd, out
}

// await waits for the end of the command, or brings it about.
func (c Command) await(ctx context.Context, p *proc.Process, out output) (CommandResult, error) {
	began := time.Now()
	grace := c.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	if margin, ok := ctx.Value(marginKey{}).(time.Duration); ok {
		grace = min(grace, margin/2)
	}
	stopped := ""
	select {
	case <-p.Exited():
	case <-ctx.Done():
		stopped = fmt.Sprintf("was stopped after %s: %v", time.Since(began).Round(time.Millisecond), context.Cause(ctx))
		p.Signal(syscall.SIGTERM)
		timer := time.NewTimer(grace)
		select {
		case <-p.Exited():
		case <-timer.C:
		}
		timer.Stop()
		p.Kill() // also what the leader left behind in its group
	}
	state, err := p.Wait()
	res := CommandResult{
		Exit: state.ExitCode(), Stdout: out.stdout.Bytes(), Stderr: out.stderr.Bytes(), Cut: out.stdout.Cut() || out.stderr.Cut(),
	}
	var exit *exec.ExitError
	switch {
	case stopped != "":
		return res, &CommandError{c.Argv[0], stopped, res}
	case !state.Exited():
		return res, &CommandError{c.Argv[0], "ended: " + state.String(), res}
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return res, fmt.Errorf("read the output of %s: %w", c.Argv[0], err)
	}
	return res, nil
}

// cause drops the operation and path of an error whose message names them already.
func cause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
