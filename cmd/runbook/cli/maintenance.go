package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func maintenanceCommand() spec {
	return spec{
		name: "maintenance", group: "Decide", summary: "windows in which nothing acts",
		about: `Beside the windows that project.star has. A window that covers everything is a
change freeze.`,
		example: "runbook maintenance list",
		sub:     []spec{maintenanceAdd(), maintenanceList(), maintenanceRemove()},
	}
}

func maintenanceAdd() spec {
	return spec{
		name: "add", summary: "add a window",
		about: `Once, from --from (default now) to --until or --for, or each week for --for.`,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "everything: a change freeze"},
			&cli.StringFlag{Name: "target", Usage: "this `TARGET`, by name or key"},
			labelFlag(),
			&cli.StringFlag{Name: "from", Usage: "opens at this `TIME`: \"2026-12-20 22:00\""},
			&cli.StringFlag{Name: "until", Usage: "closes at this `TIME`"},
			durationFlag("for", "closes after this `DURATION`"),
			&cli.StringFlag{Name: "weekly", Usage: "opens at these `DAYS TIME`: \"sat,sun 02:00\""},
			&cli.StringFlag{Name: "zone", Value: "UTC", Usage: "time `ZONE`, such as Europe/Berlin; default UTC"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` to remove it by; default: one is made"},
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for everybody who meets it"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be added; change nothing"},
		},
		required: []string{"reason"},
		example:  `runbook maintenance add --label component=db --weekly "sun 02:00" --for 4h --reason patching`,
		run:      runMaintenanceAdd,
	}
}

type windowResult struct {
	control.Window
	Open   bool `json:"open"` // now
	DryRun bool `json:"dry_run,omitempty"`
	word   string
}

func runMaintenanceAdd(ctx context.Context, c *call) (result, error) {
	now := c.stdio.Now().UTC().Truncate(time.Second)
	w := control.Window{Reason: c.String("reason"), By: control.Who()}
	var err error
	if w.Selector, err = c.selector(ctx); err != nil {
		return nil, err
	}
	w.All = c.Bool("all")
	if err := w.Selector.Check(); err != nil {
		return nil, problem.New(problem.Usage, "runbook maintenance add: %v", err).WithHint("name something: --runbook, --target or --label; or --all for a change freeze")
	}
	if err := c.times(&w, now); err != nil {
		return nil, err
	}
	if err := w.Check(); err != nil {
		return nil, err
	}
	if w.Name, err = c.controlName("m"); err != nil {
		return nil, err
	}
	if !c.Bool("dry-run") {
		err = c.withStore(ctx, "maintenance", func(st auditedStore) (err error) {
			w, err = ledger.AddWindow(ctx, st, clock.Read, w)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	_, open := w.Covering(now)
	return windowResult{w, open, c.Bool("dry-run"), "added"}, nil
}

// times fills in when the window is open.
func (c *call) times(w *control.Window, now time.Time) (err error) {
	zone := c.String("zone")
	if weekly := c.String("weekly"); weekly != "" {
		days, at, _ := strings.Cut(weekly, " ")
		if c.String("from") != "" || c.String("until") != "" {
			return problem.New(problem.Usage, "a weekly window has --for, not --from and --until")
		}
		if w.Days, err = control.ParseDays(strings.Split(days, ",")); err != nil {
			return err
		}
		if w.At, err = control.ParseTimeOfDay(strings.TrimSpace(at)); err != nil {
			return err
		}
		w.Length, w.Zone = c.Duration("for"), zone
		return nil
	}
	w.Start = now
	if text := c.String("from"); text != "" {
		if w.Start, err = control.ParseMoment(text, zone); err != nil {
			return err
		}
	}
	switch text, length := c.String("until"), c.Duration("for"); {
	case (text == "") == (length == 0):
		return problem.New(problem.Usage, "a window needs an end: one of --for and --until").WithHint("--for 2h; without an end it would be: runbook disable")
	case text != "":
		w.End, err = control.ParseMoment(text, zone)
	default:
		w.End = w.Start.Add(length)
	}
	return err
}

func (r windowResult) text(u *ui) {
	if r.DryRun {
		u.Printf("would be %s: %s, %s\n", r.word, r.Selector, r.When())
		return
	}
	u.Printf("maintenance %s: %s\n", bold(r.word), r.Selector)
	u.Printf("  name    %s\n", r.Name)
	u.Printf("  when    %s\n", r.When())
	u.Printf("  reason  %s\n", r.Reason)
	u.Printf("  by      %s\n", r.By)
	if r.Open && r.word == "added" {
		u.Printf("  it is open now; end it with: runbook maintenance remove %s\n", r.Name)
	}
}

func maintenanceList() spec {
	return spec{
		name: "list", summary: "list the windows of project.star and of persons",
		takes: takesProject | takesState, example: "runbook maintenance list",
		run: runMaintenanceList,
	}
}

type windowLine struct {
	control.Window
	Open    bool      `json:"open"`
	Closes  time.Time `json:"closes,omitzero"`
	Project bool      `json:"project"` // project.star says so
}

type windowsResult struct {
	Windows []windowLine `json:"windows"`
	now     time.Time
}

func runMaintenanceList(ctx context.Context, c *call) (result, error) {
	r := windowsResult{Windows: []windowLine{}, now: c.stdio.Now()}
	add := func(w control.Window, project bool) {
		until, open := w.Covering(r.now)
		if !open {
			until = time.Time{}
		}
		r.Windows = append(r.Windows, windowLine{w, open, until, project})
	}
	given, err := c.givenState()
	if err != nil {
		return nil, err
	}
	if o, err := c.openProject(ctx); err == nil {
		for _, w := range o.settings.Policy.Maintenance {
			add(w, true)
		}
		o.close()
	} else if given == "" {
		return nil, err
	}
	err = c.withStore(ctx, "maintenance", func(st auditedStore) error {
		all, err := ledger.ListControls(ctx, st, r.now)
		for _, w := range all.Windows {
			add(w, false)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r windowsResult) text(u *ui) {
	if len(r.Windows) == 0 {
		u.Printf("there are no maintenance windows\n")
		return
	}
	var rows [][]string
	for _, w := range r.Windows {
		state := "closed"
		if w.Open {
			state = "OPEN, closes " + when(w.Closes, r.now)
		}
		name := w.Name
		if w.Project {
			name = w.By
		}
		rows = append(rows, []string{name, state, w.When(), w.String(), w.Reason})
	}
	u.Table([]string{"NAME", "NOW", "WHEN", "COVERS", "REASON"}, rows)
}

func maintenanceRemove() spec {
	return spec{
		name: "remove", summary: "remove a window that a person added", args: "NAME", min: 1, max: 1,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY` it may act again"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be removed; change nothing"},
		},
		example: "runbook maintenance remove m-x7k2q",
		run:     runMaintenanceRemove,
	}
}

func runMaintenanceRemove(ctx context.Context, c *call) (result, error) {
	var w control.Window
	err := c.withStore(ctx, "maintenance", func(st auditedStore) (err error) {
		if !c.Bool("dry-run") {
			w, err = ledger.RemoveWindow(ctx, st, clock.Read, c.args[0], control.Who(), c.String("reason"))
			return err
		}
		all, err := ledger.ListControls(ctx, st, c.stdio.Now())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all.Windows, func(w control.Window) bool { return w.Name == c.args[0] })
		if i < 0 {
			return problem.New(problem.NotFound, "there is no maintenance window %q", c.args[0]).WithHint("runbook maintenance list")
		}
		w = all.Windows[i]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return windowResult{w, false, c.Bool("dry-run"), "removed"}, nil
}
