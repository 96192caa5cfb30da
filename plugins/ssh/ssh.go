// Package ssh is the plugin that runs commands that an operator has listed on another machine, by ssh.
//
// Promise: the machine has proved that it has the key that was pinned before anything is told to it. Only a command of the connection's list runs, with exactly its
// arguments: each is quoted for the shell that every sshd starts, which has to be one of POSIX. Exit status 0 is success, another is a definite failure. A connection that broke, an end by a
// signal and the timeout leave the action in doubt, because what was started there may go on.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/argv"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/sshlogin"
	"github.com/seed1de3961f/runbook/plugins/sdk/tail"
)

// output is how much of each stream is kept, in bytes, from its end.
const output = 64 << 10

type config struct {
	Host     string            `rb:"host,required" doc:"the machine: name or name:port"`
	User     string            `rb:"user,required" doc:"who logs in there"`
	Key      string            `rb:"key,sensitive" doc:"the private key to log in with, in PEM, without a passphrase"`
	Agent    string            `rb:"agent" doc:"instead of key, the socket of an ssh-agent that has it"`
	HostKey  string            `rb:"host_key,required" doc:"the public key of that machine, as in known_hosts: ssh-ed25519 AAAA..."`
	Commands argv.List         `rb:"commands" doc:"actions: name -> argv, argv[0] an absolute path there; {target} and {label:NAME} in later arguments stand for the target's name and labels"`
	Reads    argv.List         `rb:"reads" doc:"queries: name -> argv; they must change nothing"`
	Env      map[string]string `rb:"env" doc:"environment of commands, besides that of the login, RUNBOOK_KEY and RUNBOOK_TARGET; not for secrets"`
	Timeout  time.Duration     `rb:"timeout" default:"10s" doc:"how long logging in may take"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("ssh", "1", "Run commands that the connection lists on another machine.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "read", "Run a command of the connection's reads, and return {exit, stdout, stderr}.", x.read, sdk.Timeout(30*time.Second, 10*time.Minute), sdk.Capabilities("net"))
	sdk.ActionFunc(p, "run", "Run a command of the connection's commands for the target. Exit status 0 is success.", x.run, sdk.Timeout(time.Minute, 30*time.Minute), sdk.Capabilities("net"))
	sdk.PlanFunc(p, "run", x.plan)
	return p
}

type plugin struct{ config config }

// variable is what every shell takes for the name of a variable.
var variable = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })

func (x *plugin) configure(_ context.Context, c config) error {
	if err := errors.Join(c.Commands.Check("commands", true), c.Reads.Check("reads", false), c.remote().Check()); err != nil {
		return err
	}
	for name, v := range c.Env {
		if !variable().MatchString(name) || strings.HasPrefix(name, "RUNBOOK_") || strings.ContainsRune(v, 0) {
			return problem.New(problem.Project, "env: %q cannot be set", name)
		}
	}
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	x.config = c
	return nil
}

func (c config) remote() sshlogin.Config {
	return sshlogin.Config{Host: c.Host, User: c.User, Key: c.Key, Agent: c.Agent, HostKey: c.HostKey}
}

// quote makes one word of a text, for a shell of POSIX.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// line is the command line that runs a program in place of the shell that reads it.
func (x *plugin) line(args []string, more ...string) string {
	words := []string{"exec", "/usr/bin/env"}
	for _, name := range slices.Sorted(maps.Keys(x.config.Env)) {
		words = append(words, quote(name+"="+x.config.Env[name]))
	}
	for _, word := range append(more, args...) {
		words = append(words, quote(word))
	}
	return strings.Join(words, " ")
}

// open logs in and opens a session. end closes both.
func (x *plugin) open(ctx context.Context) (s *ssh.Session, end func(), err error) {
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	c, err := x.config.remote().Login(limited)
	if err == nil {
		stop := context.AfterFunc(limited, func() { _ = c.Close() })
		defer stop()
		if s, err = c.NewSession(); err == nil {
			return s, func() { _ = s.Close(); _ = c.Close() }, nil
		}
		_ = c.Close()
	}
	var known *problem.Problem
	switch {
	case errors.As(err, &known):
		return nil, nil, err
	case limited.Err() != nil && ctx.Err() == nil:
		return nil, nil, problem.New(problem.PluginTimeout, "%s: could not log in within %s", x.config.Host, x.config.Timeout)
	}
	return nil, nil, problem.Wrap(problem.PluginFailed, err, "%s", x.config.Host)
}

// started is a command that was started there.
type started struct {
	x              *plugin
	s              *ssh.Session
	hangUp         func() // ends the connection: what only closes the session waits for the program to end
	stdout, stderr *tail.Buffer
}

// start starts a command line. An error of the other machine means that it has not.
func (x *plugin) start(s *ssh.Session, hangUp func(), line string) (*started, error) {
	r := &started{x, s, hangUp, tail.New(output), tail.New(output)}
	s.Stdout, s.Stderr = r.stdout, r.stderr
	return r, s.Start(line)
}

// wait waits for its end. An error says that nobody knows how it ended.
func (r *started) wait(ctx context.Context, program string) (argv.Result, error) {
	stop := context.AfterFunc(ctx, r.hangUp)
	err := r.s.Wait()
	stop()
	out := argv.Result{Stdout: argv.Text(r.stdout.Bytes()), Stderr: argv.Text(r.stderr.Bytes())}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return out, nil
	case errors.As(err, &exit) && exit.Signal() == "":
		out.Exit = exit.ExitStatus()
		return out, nil
	case errors.As(err, &exit):
		return out, problem.New(problem.PluginFailed, "%s on %s was ended by signal %s%s", program, r.x.config.Host, exit.Signal(), r.said())
	case ctx.Err() != nil:
		return out, problem.New(problem.PluginTimeout, "%s on %s did not end in time, and may go on%s", program, r.x.config.Host, r.said())
	}
	return out, problem.Wrap(problem.PluginFailed, err, "%s on %s: the connection broke before it ended, and it may go on%s", program, r.x.config.Host, r.said())
}

func (r *started) said() string { return argv.Said(r.stdout.Bytes(), r.stderr.Bytes()) }

func (x *plugin) read(ctx context.Context, a argv.Named) (argv.Result, error) {
	args, err := x.config.Reads.Find("reads", a.Command)
	if err != nil {
		return argv.Result{}, err
	}
	s, end, err := x.open(ctx)
	if err != nil {
		return argv.Result{}, err
	}
	defer end()
	r, err := x.start(s, end, x.line(args))
	if err != nil {
		return argv.Result{}, problem.Wrap(problem.PluginFailed, err, "%s: start %s", x.config.Host, args[0])
	}
	return r.wait(ctx, args[0])
}

func (x *plugin) run(call *sdk.Call, a argv.Named) (argv.Result, error) {
	args, err := x.config.Commands.Find("commands", a.Command)
	if err != nil {
		return argv.Result{}, err
	}
	if args, err = argv.Expand(args, call.Target); err != nil {
		return argv.Result{}, err
	}
	s, end, err := x.open(call)
	if err != nil {
		return argv.Result{}, err
	}
	defer end()
	if err := call.Begin([]byte(a.Command)); err != nil {
		return argv.Result{}, err
	}
	r, err := x.start(s, end, x.line(args, "RUNBOOK_KEY="+call.Key, "RUNBOOK_TARGET="+call.Target.Name))
	if err != nil {
		// Refused, or not answered: the latter may have started it.
		return argv.Result{}, sdk.Unknown(problem.Wrap(problem.PluginFailed, err, "%s: start %s", x.config.Host, args[0]))
	}
	out, err := r.wait(call, args[0])
	if err != nil {
		return out, sdk.Unknown(err)
	}
	if out.Exit != 0 {
		return out, problem.New(problem.ActionFailed, "%s on %s ended with status %d%s", args[0], x.config.Host, out.Exit, r.said())
	}
	return out, nil
}

func (x *plugin) plan(_ context.Context, t sdk.Target, a argv.Named) (sdk.Plan, error) {
	args, err := x.config.Commands.Find("commands", a.Command)
	if err == nil {
		args, err = argv.Expand(args, t)
	}
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: fmt.Sprintf("run %q on %s", args, x.config.Host)}}}, nil
}
