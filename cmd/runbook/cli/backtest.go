package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/testrun"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func backtestCommand() spec {
	return spec{
		name: "backtest", group: "Run", summary: "say what runbooks would have decided over recorded metrics",
		about: `Replays a window of recorded metrics through the runbooks, with the engine, its guards
and its records, one run at each step. No network, no plugin, nothing of the project's
state. It is open-loop: recorded metrics do not react to an action. The data are what
runbook record writes, OpenMetrics files with times, as promtool tsdb dump-openmetrics
writes them, or answers of Prometheus' API, inside of the project.`,
		args: "[PATH...]", max: many, takes: takesProject,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "data", Usage: "a recording, `FILE`; several may be given"},
			&cli.StringSliceFlag{Name: "rules", Usage: "a rule `FILE` of Prometheus, whose alerts start runbooks"},
			&cli.StringFlag{Name: "from", Usage: "begin at `TIME`, such as 2026-03-01T10:00:00Z; where the data begins if not given"},
			&cli.StringFlag{Name: "to", Usage: "end at `TIME`; where the data ends if not given"},
			&cli.DurationFlag{Name: "step", Usage: "the time between two runs", Value: time.Minute},
			&cli.StringFlag{Name: "mode", Usage: "shadow, recommend, approve or auto, whatever the runbooks say", Value: "auto"},
			&cli.StringFlag{Name: "svg", Usage: "draw a timeline into `FILE`, too"},
		},
		example: "runbook backtest worker.star --data march.om.gz --svg march.svg",
		run:     runBacktest,
	}
}

type backtestResult struct{ *testrun.Backtest }

func runBacktest(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	opts := testrun.BacktestOptions{Step: c.Duration("step"), Mode: guard.Mode(c.String("mode"))}
	if !slices.Contains([]guard.Mode{guard.Shadow, guard.Recommend, guard.Approve, guard.Auto}, opts.Mode) {
		return nil, problem.New(problem.Usage, "there is no mode %q", opts.Mode).WithHint("the modes are shadow, recommend, approve and auto")
	}
	for name, at := range map[string]*time.Time{"from": &opts.From, "to": &opts.To} {
		if *at, err = moment(name, c.String(name), c.stdio.Now()); err != nil {
			return nil, err
		}
	}
	if opts.Runbooks, err = o.settings.Runbooks(o.tree, c.args); err != nil {
		return nil, err
	}
	if len(opts.Runbooks) == 0 {
		return nil, problem.New(problem.Usage, "there is no runbook in %s", o.tree.Root())
	}
	if len(c.StringSlice("data")) == 0 {
		return nil, problem.New(problem.Usage, "nothing to replay").WithHint("name recordings: --data march.om.gz")
	}
	for _, file := range c.StringSlice("data") {
		rel, err := inProject(o.tree.Root(), file)
		if err != nil {
			return nil, err
		}
		opts.Data = append(opts.Data, recorded.Recording{Name: "//" + rel})
	}
	for _, file := range c.StringSlice("rules") {
		rel, err := inProject(o.tree.Root(), file)
		if err != nil {
			return nil, err
		}
		opts.Rules = append(opts.Rules, rel)
	}
	shown := -1
	opts.Progress = func(done, all int) {
		if p := 100 * done / all; p != shown {
			shown = p
			c.ui.Percent("replaying", done, all)
		}
	}
	b, err := testrun.RunBacktest(ctx, &testrun.Project{
		Tree: o.tree, Settings: o.settings, Families: o.families, Manifests: o.manifests, Version: version, Spawn: o.spawn,
	}, opts)
	if err != nil {
		return nil, err
	}
	if file := c.String("svg"); file != "" {
		if err := os.WriteFile(file, []byte(b.SVG()), 0o644); err != nil {
			return backtestResult{b}, problem.Wrap(problem.Usage, err, "--svg")
		}
	}
	return backtestResult{b}, nil
}

// inProject is the path of a file from the project's root: nothing outside of it is read.
func inProject(root, file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err == nil {
		if abs, err = filepath.EvalSymlinks(abs); err == nil {
			if root, err = filepath.EvalSymlinks(root); err == nil {
				rel, rerr := filepath.Rel(root, abs)
				if rerr == nil && filepath.IsLocal(rel) {
					return filepath.ToSlash(rel), nil
				}
				return "", problem.New(problem.Usage, "%s is not in the project %s", file, root).WithHint("copy it there")
			}
		}
	}
	return "", problem.New(problem.Usage, "there is no file %s", file)
}

func (r backtestResult) text(u *ui) {
	const at = "01-02 15:04:05"
	var rows [][]string
	for _, s := range r.Spans {
		what := string(s.Condition)
		if s.Outcome != "" {
			what = string(s.Outcome)
		}
		why := s.Reason
		if s.Outcome == trace.Refused && len(s.Refused) > 0 {
			why = "by " + strings.Join(s.Refused, ", ")
		}
		rows = append(rows, []string{s.From.UTC().Format(at), s.To.UTC().Format(at), s.Runbook, s.Target, what, why})
	}
	if len(rows) > 0 {
		u.Table([]string{"from", "to", "runbook", "target", "what", "why"}, rows)
	}
	for _, p := range r.Problems {
		u.Printf("problem: %s\n", p)
	}
	var counts []string
	n := r.Count()
	for _, k := range slices.Sorted(maps.Keys(n)) {
		counts = append(counts, fmt.Sprintf("%d %s", n[k], k))
	}
	if len(counts) == 0 {
		counts = []string{"nothing was sick"}
	}
	u.Printf("%d runs from %s to %s, every %s: %s; people would have been told %d times\n", r.Ticks, r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339), value.FormatDuration(r.Step), strings.Join(counts, ", "), r.Notices)
	u.Printf("open-loop: recorded metrics do not react to an action\n")
}
