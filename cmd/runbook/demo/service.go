// Package demo is `runbook demo`: a small service that really gets stuck, and a tour in which the real binary notices,
// restarts it, checks that it helped, and refuses to do more than it may.
//
// The service is the hidden command `runbook __demo-service`: a supervisor, as an init system would be, and worker
// processes. Nothing of it outlives the supervisor, and the supervisor does not outlive its parent.
package demo

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// ServiceCommand is the hidden word of the command line under which the service runs.
const ServiceCommand = "__demo-service"

// Exit codes of the service's commands, those of runbook itself.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// ServiceMain runs one command of the service and returns its exit code.
func ServiceMain(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func([]string, io.Writer, io.Writer) error{
		"work": work, "supervise": supervise, "restart": restart, "stick": stick,
	}
	word := ""
	if len(args) > 0 {
		word = args[0]
	}
	command, ok := commands[word]
	if !ok {
		_, _ = fmt.Fprintf(stderr, "%s: unknown command %q, want work, supervise, restart or stick\n", ServiceCommand, word)
		return exitUsage
	}
	err := command(args[1:], stdout, stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	_, _ = fmt.Fprintf(stderr, "%s %s: %v\n", ServiceCommand, word, err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailed
}

// usageError is a wrong command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// parse reads flags and exactly the named positional arguments that follow them.
func parse(f *flag.FlagSet, args []string, stderr io.Writer, positional ...string) ([]string, error) {
	f.SetOutput(stderr)
	f.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "usage: runbook %s %s [flags] %s\n", ServiceCommand, f.Name(), strings.Join(positional, " "))
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, usageError{err}
	}
	if f.NArg() != len(positional) {
		return nil, usagef("want the arguments %q after the flags, got %q", positional, f.Args())
	}
	return f.Args(), nil
}
