package cli

import (
	"context"
	"slices"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func disableCommand() spec {
	return spec{
		name: "disable", group: "Decide", summary: "keep a runbook, an action, a target or a label from acting",
		about: `What several flags name must all agree. Disables of one thing stack by name, and
all must be lifted. It also stops an attempt between two steps.`,
		takes: takesProject | takesState,
		flags: slices.Concat(selectorFlags(), untilFlags("lift it"), []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "`NAME` to lift it by; default: one is made"},
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for everybody who meets it"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be disabled; change nothing"},
		}),
		required: []string{"reason"},
		example:  `runbook disable --label customer=acme --for 2h --reason "they are migrating"`,
		run:      runDisable,
	}
}

type disableResult struct {
	control.Disable
	DryRun bool `json:"dry_run,omitempty"`
}

func runDisable(ctx context.Context, c *call) (result, error) {
	d := control.Disable{Reason: c.String("reason"), By: control.Who()}
	var err error
	if d.Selector, err = c.selector(ctx); err != nil {
		return nil, err
	}
	if err := d.Check(); err != nil {
		return nil, problem.New(problem.Usage, "runbook disable: %v", err).
			WithHint("name something: --runbook, --action, --target or --label; to stop everything: runbook halt")
	}
	if d.Until, err = c.until(); err != nil {
		return nil, err
	}
	if d.Name, err = c.controlName("d"); err != nil {
		return nil, err
	}
	if c.Bool("dry-run") {
		return disableResult{d, true}, nil
	}
	err = c.withStore(ctx, "disable", func(st auditedStore) (err error) {
		d, err = ledger.Disable(ctx, st, clock.Read, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	return disableResult{d, false}, nil
}

func (r disableResult) text(u *ui) {
	if r.DryRun {
		u.Printf("would disable %s\n", r.Selector)
		return
	}
	u.Printf("%s: %s\n", bold("disabled"), r.Selector)
	u.Printf("  name    %s\n", r.Name)
	u.Printf("  reason  %s\n", r.Reason)
	u.Printf("  by      %s\n", r.By)
	u.Printf("  until   %s\n", ends(r.Until, "runbook enable "+r.Name))
}

func enableCommand() spec {
	return spec{
		name: "enable", group: "Decide", summary: "lift a disable",
		about: `By its name, which runbook status shows, or by what it names. If several cover
the same, each must be lifted by its name: they are different people's.`,
		args: "[NAME]", max: 1, takes: takesProject | takesState,
		flags: append(selectorFlags(),
			&cli.StringFlag{Name: "reason", Usage: "`WHY` it may act again"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be lifted; change nothing"}),
		example: `runbook enable --label customer=acme --reason "migration is done"`,
		run:     runEnable,
	}
}

type enableResult struct {
	Lifted control.Disable   `json:"lifted"`
	Still  []control.Disable `json:"still"` // that cover the same
	DryRun bool              `json:"dry_run,omitempty"`
	now    time.Time
}

func runEnable(ctx context.Context, c *call) (result, error) {
	s, err := c.selector(ctx)
	if err != nil {
		return nil, err
	}
	named := s.Check() == nil
	if named == (len(c.args) == 1) {
		return nil, problem.New(problem.Usage, "runbook enable needs the name of a disable, or what it names, and not both").WithHint("runbook status shows them")
	}
	r := enableResult{Still: []control.Disable{}, now: c.stdio.Now(), DryRun: c.Bool("dry-run")}
	err = c.withStore(ctx, "enable", func(st auditedStore) error {
		all, err := ledger.ListControls(ctx, st, c.stdio.Now())
		if err != nil {
			return err
		}
		var found []control.Disable
		var known []string
		for _, d := range all.Disables {
			known = append(known, d.Name)
			if named && d.Same(s) || !named && d.Name == c.args[0] {
				found = append(found, d)
			}
		}
		switch {
		case len(found) == 0 && named:
			return problem.New(problem.NotFound, "there is no disable of exactly %s", s).WithHint("runbook status shows what is disabled")
		case len(found) == 0:
			return problem.New(problem.NotFound, "there is no disable %q%s", c.args[0], problem.DidYouMean(c.args[0], known)).WithHint("runbook status shows what is disabled")
		case len(found) > 1:
			var lines []string
			for _, d := range found {
				lines = append(lines, "runbook enable "+d.Name+"   ("+d.By+": "+d.Reason+")")
			}
			return problem.New(problem.Refused, "%d disables cover %s; ask who set them, and lift each by its name", len(found), s).WithDetail(lines...)
		}
		r.Lifted = found[0]
		if r.DryRun {
			return nil
		}
		var still []control.Disable
		r.Lifted, still, err = ledger.Enable(ctx, st, clock.Read, found[0].Name, control.Who(), c.String("reason"))
		r.Still = append(r.Still, still...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r enableResult) text(u *ui) {
	if r.DryRun {
		u.Printf("would lift %s of %s (%s)\n", r.Lifted.Name, r.Lifted.Selector, r.Lifted.Reason)
		return
	}
	u.Printf("%s: %s (set %s by %s: %s)\n", bold("lifted"), r.Lifted.Selector, when(r.Lifted.At, r.now), r.Lifted.By, r.Lifted.Reason)
	for _, d := range r.Still {
		u.Printf("  still disabled by %s: %s; runbook enable %s\n", d.By, d.Reason, d.Name)
	}
}
