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
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// path is the PATH of a command, unless the connection's env has one.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// saidBytes is how much of a failed command's output its message quotes.
const saidBytes = 4 << 10

type config struct {
	Commands map[string][]string `rb:"commands" doc:"actions: name -> argv, argv[0] an absolute path; {target} and {label:NAME} in later arguments stand for the target's name and labels"`
	Reads    map[string][]string `rb:"reads" doc:"queries: name -> argv; they must change nothing"`
	Dir      string              `rb:"dir" default:"/" doc:"working directory"`
	User     string              `rb:"user" doc:"the user, by name or number, as whom commands run, for which the engine has to run as root; the engine's own if not given"`
	Env      map[string]string   `rb:"env" doc:"environment, besides RUNBOOK_KEY, RUNBOOK_TARGET and a fixed PATH; not for secrets"`
}

type command struct {
	Command string `rb:"command,required,positional" doc:"name of a command of the connection"`
}

type result struct {
	Exit   int    `rb:"exit"`
	Stdout string `rb:"stdout"` // at most the last 64 KiB
	Stderr string `rb:"stderr"`
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
}

func (x *plugin) configure(_ context.Context, c config) error {
	for kind, list := range map[string]map[string][]string{"commands": c.Commands, "reads": c.Reads} {
		for name, argv := range list {
			if err := checkArgv(argv, kind == "commands"); err != nil {
				return problem.New(problem.Project, "%s: %q: %v", kind, name, err)
			}
		}
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
	return nil
}

func checkArgv(argv []string, placeholders bool) error {
	if len(argv) == 0 {
		return errors.New("it is empty")
	}
	if !filepath.IsAbs(argv[0]) || placeholder.MatchString(argv[0]) {
		return fmt.Errorf("%q is not the absolute path of a program", argv[0])
	}
	for _, a := range argv {
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument contains a zero byte")
		}
		if !placeholders && placeholder.MatchString(a) {
			return fmt.Errorf("%q: a read has no target", a)
		}
	}
	return nil
}

func (x *plugin) read(ctx context.Context, a command) (result, error) {
	argv, err := find(x.config.Reads, "reads", a.Command)
	if err != nil {
		return result{}, err
	}
	r, err := sdk.RunCommand(ctx, sdk.Command{Argv: argv, Dir: x.config.Dir, Env: x.env(), User: x.user})
	if err != nil {
		return result{}, withOutput(err)
	}
	return toResult(r), nil
}

func (x *plugin) run(c *sdk.Call, a command) (result, error) {
	argv, err := find(x.config.Commands, "commands", a.Command)
	if err != nil {
		return result{}, err
	}
	if argv, err = expand(argv, c.Target); err != nil {
		return result{}, err
	}
	cmd, err := c.Prepare(sdk.Command{
		Argv: argv, Dir: x.config.Dir, User: x.user, Env: append(x.env(), "RUNBOOK_KEY="+c.Key, "RUNBOOK_TARGET="+c.Target.Name),
	})
	if err != nil {
		return result{}, err
	}
	if err := c.Begin([]byte(a.Command)); err != nil {
		return result{}, err
	}
	r, err := cmd.Run()
	if err != nil {
		return result{}, withOutput(err)
	}
	if r.Exit != 0 {
		return result{}, problem.New(problem.ActionFailed, "%s ended with status %d%s", argv[0], r.Exit, said(r))
	}
	return toResult(r), nil
}

func (x *plugin) plan(_ context.Context, t sdk.Target, a command) (sdk.Plan, error) {
	argv, err := find(x.config.Commands, "commands", a.Command)
	if err == nil {
		argv, err = expand(argv, t)
	}
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: fmt.Sprintf("run %q", argv)}}}, nil
}

// env is the environment of every command.
func (x *plugin) env() []string {
	env := []string{"PATH=" + path}
	for _, k := range slices.Sorted(maps.Keys(x.config.Env)) {
		env = append(env, k+"="+x.config.Env[k])
	}
	return env
}

func find(list map[string][]string, kind, name string) ([]string, error) {
	if argv, ok := list[name]; ok {
		return argv, nil
	}
	names := slices.Sorted(maps.Keys(list))
	return nil, problem.New(problem.Argument, "the connection's %s have no %q%s", kind, name, problem.DidYouMean(name, names)).
		WithHint("list it in the connection in project.star, or use one of: %s", strings.Join(names, ", "))
}

// placeholder is what stands for a part of the target. Other braces, as in an awk program, mean nothing.
var placeholder = regexp.MustCompile(`\{(target|label:[^{}]*)\}`)

// expand puts the target into the arguments. Each stays one argument, whatever the target is called.
func expand(argv []string, t sdk.Target) ([]string, error) {
	out := slices.Clone(argv)
	for i, arg := range argv {
		var failed error
		out[i] = placeholder.ReplaceAllStringFunc(arg, func(ph string) string {
			v, what := t.Name, "the target's name"
			if label, ok := strings.CutPrefix(ph, "{label:"); ok {
				label = strings.TrimSuffix(label, "}")
				v, what = t.Labels[label], "the target's label "+label
			}
			switch {
			case v == "":
				failed = problem.New(problem.Argument, "%s is missing, and argument %d needs it", what, i)
			case strings.ContainsRune(v, 0):
				failed = problem.New(problem.Argument, "%s contains a zero byte", what)
			case v[0] == '-' && strings.HasPrefix(arg, ph):
				failed = problem.New(problem.Argument, "%s is %q, which the command could take for an option", what, v).
					WithHint("put the placeholder behind something in the argument, such as --unit=%s", ph)
			}
			return v
		})
		if failed != nil {
			return nil, failed
		}
	}
	return out, nil
}

func toResult(r sdk.CommandResult) result {
	return result{Exit: r.Exit, Stdout: text(r.Stdout), Stderr: text(r.Stderr)}
}

func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// said is the end of what the command printed, for a message.
func said(r sdk.CommandResult) string {
	out := strings.TrimSpace(text(r.Stderr))
	if out == "" {
		out = strings.TrimSpace(text(r.Stdout))
	}
	if out == "" {
		return ""
	}
	if len(out) > saidBytes {
		out = "..." + strings.ToValidUTF8(out[len(out)-saidBytes:], "")
	}
	return ": " + out
}

// withOutput adds what a command printed before it was ended, and keeps what kind of error it is.
func withOutput(err error) error {
	var ce *sdk.CommandError
	if !errors.As(err, &ce) {
		return err
	}
	if s := said(ce.Result); s != "" {
		return fmt.Errorf("%w%s", err, s)
	}
	return err
}
