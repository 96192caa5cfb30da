package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func approveCommand() spec {
	return spec{
		name: "approve", group: "Decide", summary: "let a runbook that asked do it, now",
		about: `A runbook in mode approve asks, and acts only if a person approves within 30
minutes; after that the answer is no. It is approved for this source, this target
and these arguments, once. The runbook is started for the target at once; whether
the target is still sick, and every other guard, is judged afresh.`,
		args: "ID", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for the record"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would be approved; change nothing"},
		},
		example: "runbook approve k3v9qx",
		run:     runApprove,
	}
}

func declineCommand() spec {
	return spec{
		name: "decline", group: "Decide", summary: "say no to a runbook that asked",
		about: `It is not asked again while this problem of the target lasts.`,
		args:  "ID", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY` not"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would be declined; change nothing"},
		},
		required: []string{"reason"},
		example:  `runbook decline k3v9qx --reason "it is being replaced"`,
		run: func(ctx context.Context, c *call) (result, error) {
			a, err := c.respond(ctx, guard.Declined)
			if err != nil {
				return nil, err
			}
			return approvalResult{Approval: a, DryRun: c.Bool("dry-run"), now: c.stdio.Now()}, nil
		},
	}
}

func (c *call) respond(ctx context.Context, answer guard.Answer) (guard.Approval, error) {
	var a guard.Approval
	err := c.withStore(ctx, string(answer), func(st auditedStore) (err error) {
		a, err = ledger.Respond(ctx, st, clock.Read, strings.ToLower(c.args[0]), answer, control.Who(), c.String("reason"), c.Bool("dry-run"))
		return err
	})
	return a, err
}

func runApprove(ctx context.Context, c *call) (result, error) {
	// First what is needed to act on it: an approval of which nothing comes would look like one that was carried out.
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	a, err := c.respond(ctx, guard.Approved)
	if err != nil {
		return nil, err
	}
	r := approvalResult{Approval: a, DryRun: c.Bool("dry-run"), now: c.stdio.Now()}
	if r.DryRun {
		return r, nil
	}
	res, err := c.pass(ctx, o, "approve", engine.Options{Paths: []string{a.Path}, Target: a.Target.Key, Approval: a.ID})
	if run, ok := res.(runResult); ok {
		r.Run = &run
	}
	return r, err
}

type approvalResult struct {
	Approval guard.Approval `json:"approval"`
	Run      *runResult     `json:"run,omitempty"`
	DryRun   bool           `json:"dry_run,omitempty"`
	now      time.Time
}

func (r approvalResult) text(u *ui) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	u.Printf("request %s %s%s, asked %s\n", r.Approval.ID, would, bold(string(r.Approval.Answer)), when(r.Approval.AskedAt.Wall, r.now))
	for _, line := range foreseen(r.Approval) {
		u.Printf("  %s\n", line)
	}
	if r.Run != nil {
		r.Run.text(u)
	}
}

// foreseen are the steps that were asked for, one a line.
func foreseen(a guard.Approval) []string {
	var lines []string
	for i, s := range a.Steps {
		then := ""
		if i > 0 {
			then = "then "
		}
		lines = append(lines, fmt.Sprintf("%s%s %s on %s, because %s", then, s.Action, compact(s.Args), a.Target.Name, s.Reason))
	}
	return lines
}

// approvals are the lines of status about what waits for a person.
func approvals(all []guard.Approval, now time.Time, trusted action.Clock) []string {
	var rows []string
	for _, a := range all {
		left := howLong(a.LiftsAt(trusted).Sub(trusted.Wall).Truncate(time.Second))
		state := fmt.Sprintf("asked %s, a no in %s; runbook approve %s, or runbook decline %s", when(a.AskedAt.Wall, now), left, a.ID, a.ID)
		if a.Answer == guard.Approved {
			state = fmt.Sprintf("approved by %s, not done yet, expires in %s", a.By, left)
		}
		rows = append(rows, fmt.Sprintf("%s  %s (%s): %s", yellow(a.ID), strings.Join(foreseen(a), "; "), a.Runbook, state))
	}
	return rows
}
