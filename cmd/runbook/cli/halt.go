package cli

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/project"
)

func haltCommand() spec {
	return spec{
		name: "halt", group: "Decide",
		summary: "stop everything: when this returns 0, no action on this machine begins to act",
		about: `With --state it needs no project, no store, no plugin and no network. A restart, a
deploy or a crash never lifts it; only runbook resume does, or the end that --for
gives it. Actions that have begun go on, and are listed; --kill ends them, and
then they are in doubt.`,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for everybody who meets it"},
			durationFlag("for", "lift it by itself after this `DURATION`; default: when a person does"),
			&cli.StringFlag{Name: "until", Usage: "the same, at this `TIME`: 2026-12-20T22:00:00Z"},
			&cli.BoolFlag{Name: "kill", Usage: "end the actions that have begun"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what is in flight; stop nothing"},
		},
		required: []string{"reason"},
		example:  `runbook halt --reason "payments incident"`,
		run:      runHalt,
	}
}

// haltResult says what was done.
type haltResult struct {
	State string `json:"state"`
	// Set means that a stop is set that every later check sees; Confirmed, that no action begins any more either.
	Set       bool      `json:"set"`
	Confirmed bool      `json:"confirmed"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	Until     time.Time `json:"until,omitzero"`
	Steps     []string  `json:"steps"`     // what was done, and what was not
	InFlight  []flight  `json:"in_flight"` // null if it is not known
	DryRun    bool      `json:"dry_run,omitempty"`
	now       time.Time
}

// usualState is the directory "state" of the project, if there is one. A project.star that cannot be read must not keep a
// person from stopping everything.
func (c *call) usualState() (control.State, bool) {
	root, err := project.Find(c.projectDir())
	if err != nil {
		return control.State{}, false
	}
	s, err := control.Open(filepath.Join(root, "state"))
	return s, err == nil
}

func runHalt(ctx context.Context, c *call) (result, error) {
	until, err := c.until()
	if err != nil {
		return nil, problem.New(problem.Usage, "NOT halted: %v", err).WithHint("runbook halt --help")
	}
	s, err := c.openState(ctx)
	if err != nil {
		if found, ok := c.usualState(); ok && s.Dir == "" {
			c.ui.Warn("%v; halting %s, where the state directory usually is", err, found.Dir)
			s, err = found, nil
		}
	}
	if err != nil {
		p := asProblem(ctx, err)
		// Nothing can run on a directory that is missing, but it is more likely that another one was meant.
		if s.Dir == "" || p.Code == problem.StateMissing {
			return nil, problem.New(p.Code, "NOT halted: %s", strings.TrimSuffix(err.Error(), ": halted")).WithHint("name the state directory: runbook halt --state DIR --reason ...")
		}
		c.ui.Warn("%v; halting with what is known", err)
	}
	// A signal must not cut the stop short: it takes seconds at most, and a person wants it.
	ctx = context.WithoutCancel(ctx)
	r := haltResult{State: s.Dir, Reason: c.String("reason"), By: control.Who(), now: c.stdio.Now()}
	r.Until = until
	length := time.Duration(0)
	if !until.IsZero() {
		length = until.Sub(r.now)
	}
	if c.Bool("dry-run") {
		r.DryRun = true
		flights, err := inFlight(ctx, s, 0)
		r.InFlight = flights
		return r, err
	}
	request := control.HaltRequest{Reason: r.Reason, By: r.By, For: length, Report: func(line string) {
		r.Steps = append(r.Steps, line)
		c.log.Debug("halt", "step", line)
	}}
	err = s.Halt(ctx, request)
	if err != nil && c.Bool("kill") {
		if failed := killHolders(s); failed != nil {
			c.ui.Warn("%v", failed)
		}
		err = s.Halt(ctx, request)
	}
	r.Confirmed = err == nil
	r.Set = err == nil || asProblem(ctx, err).Code == problem.HaltUnsure
	if r.Set {
		r.lookAround(ctx, c, s)
	}
	return r, err
}

// lookAround lists what has begun and, if it was asked for, ends it. The stop is set by then, whatever becomes of this.
func (r *haltResult) lookAround(ctx context.Context, c *call, s control.State) {
	wait := lookPatience
	if c.Bool("kill") {
		wait = 0 // what is not known cannot be ended
	}
	flights, err := inFlight(ctx, s, wait)
	if err != nil {
		c.ui.Warn("what is in flight is not known: %v; look with: runbook status", err)
		return
	}
	if c.Bool("kill") {
		for i := range flights {
			flights[i].kill()
		}
	}
	r.InFlight = flights
}

func (r haltResult) text(u *ui) {
	if r.Confirmed {
		u.Printf("%s: no action begins to act any more\n", bold("halted"))
		u.Printf("  reason  %s\n", r.Reason)
		u.Printf("  by      %s\n", r.By)
		if r.Until.IsZero() {
			u.Printf("  until   a person lifts it: runbook resume --reason \"...\"\n")
		} else {
			u.Printf("  until   %s, or: runbook resume --reason \"...\"\n", clockTime(r.Until))
		}
	}
	if r.DryRun {
		u.Printf("would halt %s; %d actions are in flight\n", r.State, len(r.InFlight))
	}
	for _, f := range r.InFlight {
		what := "goes on; end it with: runbook halt --kill --reason \"...\""
		switch {
		case f.Killed:
			what = "killed: it is in doubt now"
		case f.Error != "":
			what = "could NOT be killed: " + f.Error
		}
		u.Printf("  in flight  %s on %s (%s), since %s: %s\n", f.Action, f.Target, f.ID, howLong(r.now.Sub(f.Since)), what)
	}
}
