// Package cli is the command line: one file per command, and this one with the list of them.
package cli

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"runtime/metrics"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// commands is the list of commands, in the order in which help shows them.
func commands() []spec {
	return []spec{
		demoCommand(),
		initCommand(),
		runCommand(),
		testCommand(),
		backtestCommand(),
		recordCommand(),
		checkCommand(),
		fmtCommand(),
		docsCommand(),
		statusCommand(),
		runsCommand(),
		actionsCommand(),
		reportCommand(),
		explainCommand(),
		replayCommand(),
		whyNotCommand(),
		haltCommand(),
		resumeCommand(),
		disableCommand(),
		enableCommand(),
		maintenanceCommand(),
		breakerCommand(),
		changeCommand(),
		approveCommand(),
		declineCommand(),
		resolveCommand(),
		doctorCommand(),
		pluginCommand(),
		backupCommand(),
		restoreCommand(),
		clockCommand(),
		auditCommand(),
		versionCommand(),
	}
}

// gcPercent is how far the heap may grow before garbage is collected. These processes end within milliseconds, most of
// them before it has grown to the 16 MiB at which that makes the first collection, and a collection costs as much as three commits.
const gcPercent = 400

// memoryGoal is what a process that holds a lot, a month of samples, stays under if it can: towards it garbage is collected more often.
const memoryGoal = 1 << 30

// keepMemory sets the goal to twice what is held if that is more: collecting again and again what is not garbage helps nobody.
func keepMemory() {
	held := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(held)
	debug.SetMemoryLimit(max(memoryGoal, 2*int64(held[0].Value.Uint64())))
}

// Main runs one command and returns the exit code of the process.
func Main(args []string, stdio Stdio) (code int) {
	if code, ok := serveInternal(args, stdio); ok {
		return code
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryGoal)
	u := newUI(stdio)
	defer func() {
		if r := recover(); r != nil {
			p := problem.New(problem.Internal, "internal error: %v", r).
				WithHint("this is a bug: report it with the lines below and the output of runbook version")
			u.fail(p)
			_, _ = stdio.Err.Write(debug.Stack())
			code = int(problem.ExitInternal)
		}
	}()
	ctx, stop := withSignals(context.Background(), func(s string) { u.Warn("%s", s) })
	defer stop()
	return int(run(ctx, commands(), args, stdio, u))
}

// run parses, runs and reports. It is apart from Main so that tests can give it commands of their own.
func run(ctx context.Context, cmds []spec, args []string, stdio Stdio, u *ui) problem.Exit {
	l, err := takeApart(cmds, args)
	u.json = l.json
	switch {
	case err == nil && l.help:
		u.Printf("%s", helpFor(cmds, l))
	case err == nil && len(l.path) == 0 && len(l.args) == 0:
		fmt.Fprint(stdio.Err, helpFor(cmds, l))
		err = exitWith(problem.ExitUsage)
	case err == nil && len(l.path) == 0:
		err = unknownWord(l, cmds, l.args[0])
	case err == nil:
		err = newApp(cmds, l.path[0], stdio, u).RunContext(ctx, l.forUrfave())
	}
	u.report(ctx, err)
	u.ending.Wait()
	if failed := u.writeError(); failed != nil && err == nil {
		err = problem.Wrap(problem.Internal, failed, "write the result")
		u.report(ctx, err)
	}
	return exitCode(ctx, err)
}

// newApp is the urfave/cli application of one command of cmds. It gets lines that takeApart has put in order, prints nothing by itself, and never
// ends the process.
func newApp(cmds []spec, name string, stdio Stdio, u *ui) *cli.App {
	app := &cli.App{
		Name: "runbook", HideHelp: true, HideHelpCommand: true, HideVersion: true,
		DisableSliceFlagSeparator: true, // a comma in a label is a comma
		Writer:                    io.Discard, ErrWriter: io.Discard,
		ExitErrHandler: func(*cli.Context, error) {}, // exitCode maps errors, in one place
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return badFlag("runbook", err) },
	}
	for _, s := range cmds {
		if s.name == name {
			app.Commands = append(app.Commands, command(s, "runbook", stdio, u))
		}
	}
	return app
}
