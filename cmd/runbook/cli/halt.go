package cli

import (
	"context"
	"errors"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
)

func haltCommand() spec {
	return spec{
		name: "halt", group: "Stop and decide",
		summary: "stop everything: when this returns 0, no action on this machine begins to act",
		about: `Needs no store, no plugin and no network. A restart, a deploy or a crash never lifts
it; only runbook resume does, or the end that --for gives it. It does not end actions
that have begun: runbook status shows them.`,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for everybody who meets it"},
			durationFlag("for", "lift it by itself after this `DURATION`; default: when a person does"),
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
	Steps     []string  `json:"steps"` // what was done, and what was not
}

func runHalt(ctx context.Context, c *call) (result, error) {
	dir, err := c.stateDir(ctx)
	if err != nil {
		return nil, err
	}
	s, err := control.Open(dir)
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == problem.StateMissing {
		// Nothing can run on it, but it is more likely that another one was meant.
		return nil, problem.New(problem.StateMissing, "NOT halted: %s", p.Message).WithHint("name the state directory with --state DIR")
	}
	if err != nil {
		c.ui.Warn("%v; halting with what is known", err)
	}
	r := haltResult{State: s.Dir, Reason: c.String("reason"), By: control.Who()}
	if d := c.Duration("for"); d > 0 {
		r.Until = c.stdio.Now().UTC().Add(d)
	}
	// A signal must not cut the stop short: it takes seconds at most, and a person wants it.
	err = s.Halt(context.WithoutCancel(ctx), control.HaltRequest{
		Reason: r.Reason, By: r.By, For: c.Duration("for"),
		Report: func(line string) {
			r.Steps = append(r.Steps, line)
			c.log.Debug("halt", "step", line)
		},
	})
	p, _ := errors.AsType[*problem.Problem](err)
	r.Set = err == nil || p != nil && p.Code == problem.HaltUnsure
	r.Confirmed = err == nil
	return r, err
}

func (r haltResult) text(u *ui) {
	if !r.Confirmed {
		return // the error says it all
	}
	u.Printf("%s: no action begins to act any more\n", bold("halted"))
	u.Printf("  reason  %s\n", r.Reason)
	u.Printf("  by      %s\n", r.By)
	if r.Until.IsZero() {
		u.Printf("  until   a person lifts it: runbook resume --reason \"...\"\n")
	} else {
		u.Printf("  until   %s, or: runbook resume --reason \"...\"\n", clockTime(r.Until))
	}
}
