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
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/testrun"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func backtestCommand() spec {
	return spec{
		name: "backtest", group: "Run", summary: "say what runbooks would have decided over recorded metrics",
		about: `Replays a window of recorded metrics through the runbooks, with the engine, its guards
and its records, one run at each step; nothing of the project's state. It is open-loop:
recorded metrics do not react to an action. The data are what runbook record writes,
OpenMetrics files with times, or answers of Prometheus' API, inside of the project.`,
		args: "[PATH...]", max: many, takes: takesProject,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "data", Usage: "a recording, `FILE`; several may be given"},
			&cli.StringFlag{Name: "source", Usage: "live: record what runbooks ask from the project's Prometheus first; needs --from"},
			&cli.StringFlag{Name: "compare", Usage: "only show what is decided otherwise than by the project at this git `REV`"},
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
	opts, err := c.backtestOptions(o)
	if err != nil {
		return nil, err
	}
	p := o.testProject()
	if c.String("source") != "" {
		data, done, err := c.recordLive(ctx, o, &opts)
		if err != nil {
			return nil, err
		}
		defer done()
		p.Data = data
	}
	b, err := testrun.RunBacktest(ctx, p, opts)
	if err != nil {
		return nil, err
	}
	if file := c.String("svg"); file != "" {
		if err := os.WriteFile(file, []byte(b.SVG()), 0o644); err != nil {
			return backtestResult{b}, problem.Wrap(problem.Usage, err, "--svg")
		}
	}
	if rev := c.String("compare"); rev != "" {
		return c.compare(ctx, o, p, opts, b)
	}
	return backtestResult{b}, nil
}

// backtestOptions are what the flags say.
func (c *call) backtestOptions(o *opened) (testrun.BacktestOptions, error) {
	opts := testrun.BacktestOptions{Step: c.Duration("step"), Mode: guard.Mode(c.String("mode"))}
	if !slices.Contains([]guard.Mode{guard.Shadow, guard.Recommend, guard.Approve, guard.Auto}, opts.Mode) {
		return opts, problem.New(problem.Usage, "there is no mode %q", opts.Mode).WithHint("the modes are shadow, recommend, approve and auto")
	}
	var err error
	for name, at := range map[string]*time.Time{"from": &opts.From, "to": &opts.To} {
		if *at, err = moment(name, c.String(name), c.stdio.Now()); err != nil {
			return opts, err
		}
	}
	if opts.Runbooks, err = o.settings.Runbooks(o.tree, c.args); err != nil {
		return opts, err
	}
	data, source := c.StringSlice("data"), c.String("source")
	switch {
	case len(opts.Runbooks) == 0:
		return opts, problem.New(problem.Usage, "there is no runbook in %s", o.tree.Root())
	case source != "" && source != "live":
		return opts, problem.New(problem.Usage, "there is no source %q", source).WithHint("the one source is live: what the project's Prometheus has")
	case source != "" && len(data) > 0:
		return opts, problem.New(problem.Usage, "--data has no place beside --source live")
	case source != "" && opts.From.IsZero():
		return opts, problem.New(problem.Usage, "--source live needs --from").WithHint("for example: --from 7d")
	case source == "" && len(data) == 0:
		return opts, problem.New(problem.Usage, "nothing to replay").WithHint("name recordings, --data march.om.gz, or ask Prometheus: --source live --from 7d")
	}
	for _, file := range data {
		rel, err := inProject(o.tree.Root(), file)
		if err != nil {
			return opts, err
		}
		opts.Data = append(opts.Data, recorded.Recording{Name: "//" + rel})
	}
	for _, file := range c.StringSlice("rules") {
		rel, err := inProject(o.tree.Root(), file)
		if err != nil {
			return opts, err
		}
		opts.Rules = append(opts.Rules, rel)
	}
	shown := -1
	opts.Progress = func(done, all int) {
		if done == 1 { // all is loaded
			keepMemory()
		}
		if p := 100 * done / all; p != shown {
			shown = p
			c.ui.Percent("replaying", done, all)
		}
	}
	return opts, nil
}

// recordLive records what the runbooks ask into a directory of its own, which done removes, and puts the rule files beside it.
func (c *call) recordLive(ctx context.Context, o *opened, opts *testrun.BacktestOptions) (data *project.Tree, done func(), err error) {
	dir, err := os.MkdirTemp("", "runbook-live-")
	if err != nil {
		return nil, nil, problem.Wrap(problem.Internal, err, "make a directory for the recording")
	}
	remove := func() { _ = os.RemoveAll(dir) }
	const name = "live.jsonl"
	if _, err = c.recordTo(ctx, o, filepath.Join(dir, name)); err == nil {
		opts.Data = []recorded.Recording{{Name: "//" + name}}
		for i, rules := range opts.Rules {
			var text []byte
			to := fmt.Sprintf("rules%d.yaml", i)
			if text, err = os.ReadFile(filepath.Join(o.tree.Root(), filepath.FromSlash(rules))); err == nil {
				err = os.WriteFile(filepath.Join(dir, to), text, 0o600)
			}
			opts.Rules[i] = to
		}
	}
	if err == nil {
		data, err = project.Open(dir)
	}
	if err != nil {
		remove()
		return nil, nil, err
	}
	return data, func() { _ = data.Close(); remove() }, nil
}

// compare runs the same backtest by the project as it was at a revision. The recordings and rules are those of now.
func (c *call) compare(ctx context.Context, o *opened, p *testrun.Project, opts testrun.BacktestOptions, is *testrun.Backtest) (result, error) {
	rev := c.String("compare")
	tree, done, err := atRevision(ctx, o.tree, rev)
	if err != nil {
		return nil, err
	}
	defer done()
	before, err := c.openTree(ctx, tree)
	if err != nil {
		return nil, err
	}
	defer before.close()
	if opts.Runbooks, err = before.settings.Runbooks(tree, c.args); err != nil {
		return nil, err
	}
	opts.From, opts.To = is.From, is.To
	old := before.testProject()
	if old.Data = p.Data; old.Data == nil {
		old.Data = o.tree
	}
	was, err := testrun.RunBacktest(ctx, old, opts)
	if err != nil {
		return nil, problem.Wrap(problem.Usage, err, "the project at %s", rev)
	}
	r := compareResult{Revision: rev, Was: was, Is: is, Changes: testrun.Compare(was, is)}
	if len(r.Changes) > 0 {
		return r, exitWith(problem.ExitFindings)
	}
	return r, nil
}

// compareResult is what two versions of the runbooks decide differently.
type compareResult struct {
	Revision string            `json:"revision"`
	Changes  []testrun.Change  `json:"changes"`
	Was      *testrun.Backtest `json:"was"`
	Is       *testrun.Backtest `json:"is"`
}

func (r compareResult) text(u *ui) {
	var rows [][]string
	for _, x := range r.Changes {
		rows = append(rows, []string{x.From.UTC().Format(spanTime), x.To.UTC().Format(spanTime), x.Runbook, x.Target, x.Was, x.Is})
	}
	if len(rows) > 0 {
		u.Table([]string{"from", "to", "runbook", "target", "at " + r.Revision, "now"}, rows)
	} else {
		u.Printf("everything is decided as by the project at %s\n", r.Revision)
	}
	u.Printf("at %s: ", r.Revision)
	backtestResult{r.Was}.summary(u)
	u.Printf("now: ")
	backtestResult{r.Is}.summary(u)
	u.Printf(openLoop)
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
		rows = append(rows, []string{s.From.UTC().Format(spanTime), s.To.UTC().Format(spanTime), s.Runbook, s.Target, what, why})
	}
	if len(rows) > 0 {
		u.Table([]string{"from", "to", "runbook", "target", "what", "why"}, rows)
	}
	r.summary(u)
	u.Printf(openLoop)
}

const (
	spanTime = "01-02 15:04:05"
	openLoop = "open-loop: recorded metrics do not react to an action\n"
)

// summary is what went wrong, and how often what was decided.
func (r backtestResult) summary(u *ui) {
	for _, w := range r.Warnings {
		u.Printf("warning: %s\n", w)
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
}
