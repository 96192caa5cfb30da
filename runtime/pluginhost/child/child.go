// Package child is a plugin's process as its host holds it: the process and our ends of its pipes.
package child

import (
	"errors"
	"os"
	"os/exec"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
)

// Child is a process that is going to be started, or was. Its standard input is a pipe to which nobody else holds the end: the process sees
// its end when ours is closed, also because this process ended.
type Child struct {
	Cmd                      *exec.Cmd
	Lifeline, Stdout, Stderr *os.File   // our ends
	theirs                   []*os.File // until it was started
}

// New makes the pipes. The process is to run path under the name, with nothing but env in its environment and nothing of ours open but files.
func New(path, name string, args, env []string, files ...*os.File) (*Child, error) {
	c := &Child{Cmd: &exec.Cmd{Path: path, Args: append([]string{name}, args...), Dir: string(os.PathSeparator), Env: env, ExtraFiles: files}}
	if c.Cmd.Env == nil {
		c.Cmd.Env = []string{} // nil would be all of ours
	}
	in, lifeline, err := os.Pipe()
	out, toOut, err1 := os.Pipe()
	errs, toErrs, err2 := os.Pipe()
	c.Lifeline, c.Stdout, c.Stderr, c.theirs = lifeline, out, errs, []*os.File{in, toOut, toErrs}
	if err := errors.Join(err, err1, err2); err != nil {
		c.Close()
		return nil, err
	}
	c.Cmd.Stdin, c.Cmd.Stdout, c.Cmd.Stderr = in, toOut, toErrs
	return c, nil
}

// Start starts it. What it was handed is closed here in any case; the files are the caller's.
func (c *Child) Start(o proc.Options) (*proc.Process, error) {
	p, err := proc.Start(c.Cmd, o)
	c.closeTheirs()
	return p, err
}

// Close closes all that is ours.
func (c *Child) Close() {
	c.closeTheirs()
	_, _, _ = c.Lifeline.Close(), c.Stdout.Close(), c.Stderr.Close() // of no file it is an error, and nothing else
}

func (c *Child) closeTheirs() {
	for _, f := range c.theirs {
		_ = f.Close()
	}
	c.theirs = nil
}
