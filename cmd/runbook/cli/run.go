package cli

import (
	"context"
	"errors"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func runCommand() spec {
	return spec{
		name: "run", group: "Run", summary: "evaluate the runbooks that are due, once, and act",
		about: `Recovers what an earlier run left behind, verifies earlier actions, then
evaluates each runbook whose schedule says so, for each of its sick targets.
Acts only where every guard allows it. This is what cron or a systemd timer
starts; see docs/schedule.md.`,
		args: "[PATH...]", max: many, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "decide and show each guard's verdict; change nothing"},
			&cli.StringFlag{Name: "target", Usage: "only `TARGET`, now, whatever the schedule says; it must be sick"},
		},
		example: "runbook run --dry-run",
		run:     runRun,
	}
}

func runRun(ctx context.Context, c *call) (result, error) {
	tree, err := c.findTree()
	if err != nil {
		return nil, err
	}
	var ahead *auditedStore
	if !c.Bool("dry-run") {
		ahead = c.openAhead(tree, "run")
	}
	o, err := c.openTree(ctx, tree)
	if err != nil {
		if ahead != nil {
			_ = ahead.Close()
		}
		return nil, err
	}
	o.ahead = ahead
	defer o.close()
	paths, err := o.settings.Runbooks(o.tree, c.args)
	if err != nil {
		return nil, err
	}
	return c.pass(ctx, o, "run", engine.Options{Paths: paths, Target: c.String("target"), DryRun: c.Bool("dry-run")})
}

// pass is one run of the engine.
func (c *call) pass(ctx context.Context, o *opened, command string, opts engine.Options) (result, error) {
	state, err := control.Open(o.settings.StateDir)
	if err != nil {
		return nil, err
	}
	config := storeConfig(state, command)
	config.Writer = !opts.DryRun
	st, err := o.store(c, config)
	if err != nil {
		return nil, err
	}
	ending := &c.ui.ending
	defer ending.Go(func() { _ = st.Close() })
	host, err := o.host(state.SocketDir())
	if err != nil {
		return nil, err
	}
	defer ending.Go(host.Close)
	engine.Begin(host, o.settings)
	sinks, err := o.sinks(c)
	if err != nil {
		return nil, err
	}
	gate := tested.Gate{Data: o.tree.Data, Source: o.tree, Manifests: o.manifests}
	last := recall(state.Dir)
	opts.Expected = last.Needed
	r, err := engine.Run(ctx, engine.Deps{
		State: state, Store: st, Host: host, Spawn: o.spawn, Tree: o.tree, Settings: o.settings, Families: o.families,
		Sample: clock.Read, Now: c.stdio.Now, Env: c.stdio.Env, Self: process.Self(), Person: control.Who(), Look: process.Look, KillGroup: process.KillGroup,
		Sinks: sinks, Heartbeat: o.heartbeat, Log: c.log, Version: buildInfo().Version, Hook: c.stdio.Hook, Coverage: gate.Judge, Leaving: ending,
	}, opts)
	if !opts.DryRun {
		_ = o.memory.Save() // without it the next run asks a worker again
		if r != nil {
			ending.Go(func() { _ = remember(state.Dir, lastRun{o.tree.Root(), engine.ExpectAfter(r)}) }) // without it the next run waits for what it needs
		}
	}
	if r == nil {
		return nil, err
	}
	var errs []error
	if err != nil && !alreadyIn(r, err) {
		errs = append(errs, err)
	} else if r.Exit != problem.ExitOK {
		errs = append(errs, exitWith(r.Exit)) // first, so that it decides: the run has weighed all that happened
	}
	for _, p := range r.Problems {
		errs = append(errs, p)
	}
	return runResult{r}, errors.Join(errs...)
}

// alreadyIn says whether the run's own problems tell of err.
func alreadyIn(r *trace.Run, err error) bool {
	p, ok := errors.AsType[*problem.Problem](err)
	for _, q := range r.Problems {
		if ok && q.Code == p.Code && q.Message == p.Message {
			return true
		}
	}
	return false
}

// runResult is a run. For a person it says what is not as it should be, and one line for the rest. The run's own problems are the command's
// error, and not said twice.
type runResult struct{ *trace.Run }

func (r runResult) text(u *ui) {
	u.tree(trace.Summary(r.Run), "")
	if len(r.Runbooks) > 0 && !r.DryRun && trace.Eventful(r.Run) {
		u.Printf("\nwhy, in full: runbook explain %s\n", r.ID)
	}
}
