package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// The exit codes, for the help and docs/design/0001-exit-codes.md. problem.ExitOf says which code of an error has which.
var exitCodes = []struct {
	code problem.Exit
	what string
}{
	{problem.ExitOK, "done"},
	{problem.ExitFailed, "ran and failed"},
	{problem.ExitUsage, "wrong usage, or a runbook that cannot be read"},
	{problem.ExitFindings, "findings only"},
	{problem.ExitRefused, "refused by a guard, halted, or waiting for a person"},
	{problem.ExitInternal, "our fault"},
	{problem.ExitInterrupted, "interrupted"},
}

// exitError ends a command with a code and no message: its result has said it all.
type exitError struct{ code problem.Exit }

func (e exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// exitWith ends a command whose result was printed with a code other than 0, for example ExitFindings.
func exitWith(code problem.Exit) error { return exitError{code} }

// exitCode is the one mapping from an error to the exit code of the process.
func exitCode(ctx context.Context, err error) problem.Exit {
	switch {
	case err == nil:
		return problem.ExitOK
	case interrupted(ctx):
		return problem.ExitInterrupted
	}
	first := each(err)[0]
	if p, ok := errors.AsType[*problem.Problem](first); ok {
		return problem.ExitOf(p.Code)
	}
	if e, ok := errors.AsType[exitError](first); ok {
		return e.code
	}
	return problem.ExitInternal
}

// asProblem finds the problem in err; an error without one is a bug of ours, or the interrupt's consequence.
func asProblem(ctx context.Context, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		if err.Error() == p.Error() {
			return p
		}
		outer := *p // keeps code, position and hint below the words that were put in front
		outer.Message = err.Error()
		return &outer
	}
	if interrupted(ctx) {
		return problem.Wrap(problem.Interrupted, err, "interrupted")
	}
	return problem.Wrap(problem.Internal, err, "internal error").
		WithHint("this is a bug: report it with this message and the output of runbook version")
}

// errSignal is why the context of a command is cancelled when a signal came.
var errSignal = errors.New("interrupted by a signal")

func interrupted(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSignal) }

// withSignals returns a context that the first SIGINT, SIGTERM or SIGHUP cancels, so that the command can end in order and
// record what it did. The second ends the process at once.
//
// A closed pipe on stdout must not end a process that is in the middle of an action: SIGPIPE is caught, and the write
// returns an error instead. It is caught and not ignored because children inherit what is ignored.
func withSignals(parent context.Context, say func(string)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	stop := make(chan os.Signal, 2)
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	signal.Notify(stop, signals...)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-stop:
				if n > 0 {
					os.Exit(int(problem.ExitInterrupted))
				}
				cancel(fmt.Errorf("%w: %s", errSignal, s))
				say(fmt.Sprintf("%s: stopping in order; a second signal stops at once", s))
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(stop)
		signal.Stop(pipe)
		close(done)
		cancel(nil)
	}
}
