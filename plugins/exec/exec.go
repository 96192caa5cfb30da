// Package exec is the plugin that runs commands that an operator has listed. It has no shell.
//
// Promise: only a command of the connection's list runs, with exactly its arguments; what a runbook contributes is the
// command's name, and the target contributes single arguments or parts of one that cannot become an option. The command
// sees an environment that the connection spells out. Exit status 0 is success, another is a definite failure, and an end
// by a signal or by the timeout leaves the action in doubt.
package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/argv"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// path is the PATH of a command, unless the connection's env has one.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type config struct {
	Commands argv.List         `rb:"commands" doc:"actions: name -> argv, argv[0] an absolute path; {target} and {label:NAME} in later arguments stand for the target's name and labels"`
	Reads    argv.List         `rb:"reads" doc:"queries: name -> argv; they must change nothing"`
	Dir      string            `rb:"dir" default:"/" doc:"working directory"`
	User     string            `rb:"user" doc:"the user, by name or number, as whom commands run, for which the engine has to run as root; the engine's own if not given"`
	Env      map[string]string `rb:"env" doc:"environment, besides RUNBOOK_KEY, RUNBOOK_TARGET and a fixed PATH; not for secrets"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("exec", "1", "Run commands that the connection lists, without a shell.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "read", "Run a command of the connection's reads, and return {exit, stdout, stderr}.", x.read,
		sdk.Timeout(30*time.Second, 10*time.Minute), sdk.Capabilities("exec"))
	sdk.ActionFunc(p, "run", "Run a command of the connection's commands on the target. Exit status 0 is success.", x.run,
		sdk.Timeout(time.Minute, 30*time.Minute), sdk.Capabilities("exec"))
	sdk.PlanFunc(p, "run", x.plan)
	return p
}

type plugin struct {
	config config
	user   *sdk.User
	ahead  *sdk.Ahead
}

func (x *plugin) configure(_ context.Context, c config) error {
	if err := errors.Join(c.Commands.Check("commands", true), c.Reads.Check("reads", false)); err != nil {
		return err
	}
	if !filepath.IsAbs(c.Dir) {
		return problem.New(problem.Project, "dir: %q is not an absolute path", c.Dir)
	}
	for name := range c.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.HasPrefix(name, "RUNBOOK_") {
			return problem.New(problem.Project, "env: %q cannot be set", name)
		}
	}
	x.user = nil
	if c.User != "" {
		u, err := sdk.FindUser(c.User)
		if err != nil {
			return problem.New(problem.Project, "%v", err)
		}
		x.user = u
	}
	x.config = c
	if len(c.Commands) > 0 { // or else nothing is ever prepared
		x.ahead = sdk.StartAhead(c.Dir)
	}
	return nil
}

func (x *plugin) read(ctx context.Context, a argv.Named) (argv.Result, error) {
	line, err := x.config.Reads.Find("reads", a.Command)
	if err != nil {
		return argv.Result{}, err
	}
	r, err := sdk.RunCommand(ctx, sdk.Command{Argv: line, Dir: x.config.Dir, Env: x.env(), User: x.user})
	if err != nil {
		return argv.Result{}, withOutput(err)
	}
	return toResult(r), nil
}

func (x *plugin) run(c *sdk.Call, a argv.Named) (argv.Result, error) {
	line, err := x.config.Commands.Find("commands", a.Command)
	if err != nil {
		return argv.Result{}, err
	}
	if line, err = argv.Expand(line, c.Target); err != nil {
		return argv.Result{}, err
	}
	cmd, err := c.Prepare(sdk.Command{
		Argv: line, Dir: x.config.Dir, User: x.user, Env: append(x.env(), "RUNBOOK_KEY="+c.Key, "RUNBOOK_TARGET="+c.Target.Name), Ahead: x.ahead,
	})
	if err != nil {
		return argv.Result{}, err
	}
	if err := c.Begin([]byte(a.Command)); err != nil {
		return argv.Result{}, err
	}
	r, err := cmd.Run()
	if err != nil {
		return argv.Result{}, withOutput(err)
	}
	if r.Exit != 0 {
		return argv.Result{}, problem.New(problem.ActionFailed, "%s ended with status %d%s", line[0], r.Exit, argv.Said(r.Stdout, r.Stderr))
	}
	return toResult(r), nil
}

func (x *plugin) plan(_ context.Context, t sdk.Target, a argv.Named) (sdk.Plan, error) {
	line, err := x.config.Commands.Find("commands", a.Command)
	if err == nil {
		line, err = argv.Expand(line, t)
	}
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: fmt.Sprintf("run %q", line)}}}, nil
}

// env is the environment of every command.
func (x *plugin) env() []string {
	env := []string{"PATH=" + path}
	for _, k := range slices.Sorted(maps.Keys(x.config.Env)) {
		env = append(env, k+"="+x.config.Env[k])
	}
	return env
}

func toResult(r sdk.CommandResult) argv.Result {
	return argv.Result{Exit: r.Exit, Stdout: argv.Text(r.Stdout), Stderr: argv.Text(r.Stderr)}
}

// withOutput adds what a command printed before it was ended, and keeps what kind of error it is.
func withOutput(err error) error {
	var ce *sdk.CommandError
	if !errors.As(err, &ce) {
		return err
	}
	if s := argv.Said(ce.Result.Stdout, ce.Result.Stderr); s != "" {
		return fmt.Errorf("%w%s", err, s)
	}
	return err
}
