package cli

import (
	"context"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func changeCommand() spec {
	return spec{
		name: "change", group: "Decide", summary: "record and list deploys, after which targets settle",
		about: `A delivery pipeline tells what it deploys. Targets of the component are left alone
while it goes on and for a while after (policy(change_settle=), 10m), and those
that a rollout replaces do not count as missing.`,
		example: "runbook change list",
		sub:     []spec{changeAdd(), changeList()},
	}
}

func changeAdd() spec {
	return spec{
		name: "add", summary: "record the start or the end of a deploy",
		about: `The targets of a component are those whose label "component" is its name, or the
label that policy(component=) says. Without --started the deploy has ended now. One
of which only the start is known counts as going on for an hour.`,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "component", Usage: "`NAME` of what is deployed"},
			&cli.StringFlag{Name: "version", Usage: "`VERSION` that is deployed"},
			&cli.BoolFlag{Name: "started", Usage: "it begins now, or at --at"},
			&cli.StringFlag{Name: "at", Usage: "`TIME` at which it began or ended; default: now"},
			&cli.StringFlag{Name: "reason", Usage: "`WORDS` about it"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be recorded; change nothing"},
		},
		required: []string{"component"},
		example:  "runbook change add --component checkout --version v1.42",
		run:      runChangeAdd,
	}
}

type changeResult struct {
	ledger.Change
	DryRun bool `json:"dry_run,omitempty"`
	now    time.Time
}

func runChangeAdd(ctx context.Context, c *call) (result, error) {
	now := c.stdio.Now().UTC().Truncate(time.Second)
	ch := ledger.Change{Component: c.String("component"), Version: c.String("version"), By: control.Who(), Reason: c.String("reason")}
	if err := (control.Selector{Target: ch.Component}).Check(); err != nil || len(ch.Component) > 200 {
		return nil, problem.New(problem.Usage, "--component %q is not the name of a component", ch.Component)
	}
	at := now
	if text := c.String("at"); text != "" {
		var err error
		if at, err = control.ParseMoment(text, "UTC"); err != nil {
			return nil, err
		}
		if at.After(now.Add(time.Minute)) {
			return nil, problem.New(problem.Usage, "--at %s is in the future", clockTime(at)).WithHint("for what is planned: runbook maintenance add")
		}
	}
	if c.Bool("started") {
		ch.Started = at
	} else {
		ch.Ended = at
	}
	if c.Bool("dry-run") {
		return changeResult{ch, true, now}, nil
	}
	err := c.withStore(ctx, "change", func(st auditedStore) (err error) {
		ch, err = ledger.AddChange(ctx, st, clock.Read, ch)
		return err
	})
	if err != nil {
		return nil, err
	}
	return changeResult{ch, false, now}, nil
}

func (r changeResult) text(u *ui) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	u.Printf("%s%s: %s\n", would, bold("recorded"), changeLine(r.Change, r.now))
}

func changeLine(c ledger.Change, now time.Time) string {
	out := "deploy of " + c.Component
	if c.Version != "" {
		out += " " + c.Version
	}
	if c.Ended.IsZero() {
		return out + ", going on since " + when(c.Started, now)
	}
	return out + ", ended " + when(c.Ended, now)
}

func changeList() spec {
	return spec{
		name: "list", summary: "list deploys, the newest first", takes: takesProject | takesState,
		flags:   []cli.Flag{&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"}},
		example: "runbook change list",
		run:     runChangeList,
	}
}

type changesResult struct {
	Changes []ledger.Change `json:"changes"`
	now     time.Time
}

func runChangeList(ctx context.Context, c *call) (result, error) {
	if c.Int("limit") < 1 {
		return nil, problem.New(problem.Usage, "runbook change list: --limit must be at least 1").WithHint("runbook change list --help")
	}
	r := changesResult{Changes: []ledger.Change{}, now: c.stdio.Now()}
	err := c.withStore(ctx, "change", func(st auditedStore) error {
		all, err := ledger.Changes(ctx, st, c.Int("limit"))
		r.Changes = append(r.Changes, all...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r changesResult) text(u *ui) {
	if len(r.Changes) == 0 {
		u.Printf("no deploys are recorded\n")
		return
	}
	for _, c := range r.Changes {
		u.Printf("%s, by %s\n", changeLine(c, r.now), c.By)
	}
}
