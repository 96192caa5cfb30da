package cli

import (
	"context"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func whyNotCommand() spec {
	return spec{
		name: "why-not", group: "Look", summary: "say why a runbook did not act",
		about: `From the records alone: not due, not sick (with the value and the threshold), a branch
that went the other way, a guard, an error, halted, or never evaluated. Names the
first of them, lists the rest, and shows the way of the decision.`,
		args: "RUNBOOK", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "target", Usage: "about this `TARGET`; every sick one if not given"},
			&cli.StringFlag{Name: "at", Usage: "at this `TIME`, such as 2026-03-01T10:20:00Z or 10:20 of today; now if not given"},
		},
		example: "runbook why-not worker --target w3 --at 10:20",
		run:     runWhyNot,
	}
}

// lookBack is how many runs are looked at for one that looked at the runbook.
const lookBack = 5000

func runWhyNot(ctx context.Context, c *call) (result, error) {
	now := c.stdio.Now()
	at := now
	if text := c.String("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			clock, cerr := time.ParseInLocation("15:04", text, now.Location())
			if cerr != nil {
				return nil, problem.New(problem.Usage, "--at: %q is no time", text).WithHint("write it as 2026-03-01T10:20:00Z, or as 10:20 of today")
			}
			at = time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), 59, 0, now.Location())
		}
	}
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "why-not")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	runs, err := ledger.Runs(ctx, st, lookBack, time.Time{}, nil)
	if err != nil {
		return nil, err
	}
	return whyNotResult{trace.WhyNot(runs, c.args[0], c.String("target"), at)}, nil
}

type whyNotResult struct{ trace.Answer }

func (r whyNotResult) text(u *ui) {
	what := r.Runbook
	if r.Target != "" {
		what += " on " + r.Target
	}
	if r.Acted {
		u.Printf("%s acted at %s\n", what, r.At.UTC().Format("2006-01-02 15:04:05Z"))
	}
	for i, x := range r.Reasons {
		lead := "besides, "
		if i == 0 && !r.Acted {
			lead = what + " did not act: "
		}
		u.Printf("%s%s: %s\n", lead, x.Kind, x.Text)
	}
	if r.Way != nil {
		u.tree(r.Way, "  ")
	}
	if r.Run != "" {
		u.Printf("the whole run: runbook explain %s\n", r.Run)
	}
}
