package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/check"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/recorded/capture"
)

func recordCommand() spec {
	return spec{
		name: "record", group: "Run", summary: "record from Prometheus what runbooks ask, for tests and backtests",
		about: `Writes FILE with every sample of the series that the runbooks' queries touch, all
runbooks of the project if none is named, and of what the queries look back on, so
that they have the answers they had in Prometheus. Queries that a runbook puts
together while it runs are not known: they are named, and --selector adds them.
What was fetched is kept if it is interrupted: the same command goes on.`,
		args: "[RUNBOOK...]", max: many, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "begin at `TIME`, such as 2026-03-01T10:00:00Z, or how long ago, such as 6h"},
			&cli.StringFlag{Name: "to", Usage: "end at `TIME`, written as for --from; now if not given"},
			&cli.StringFlag{Name: "out", Usage: "write `FILE`, which ends in .jsonl or .jsonl.gz"},
			&cli.DurationFlag{Name: "step", Usage: "the time between two runs of a test or backtest over it", Value: time.Minute},
			&cli.StringSliceFlag{Name: "rules", Usage: "a rule `FILE` of Prometheus: record what its rules ask, too"},
			&cli.StringSliceFlag{Name: "selector", Usage: "record this `PROMQL`, too; several may be given"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say how much it would be"},
		},
		required: []string{"from", "out"},
		example:  "runbook record worker.star --from 6h --out testdata/today.jsonl.gz",
		run:      runRecord,
	}
}

type recordResult struct {
	File   string          `json:"file"`
	Server string          `json:"server"`
	From   time.Time       `json:"from"`
	To     time.Time       `json:"to"`
	Plan   recordPlan      `json:"plan"`
	Is     *capture.Result `json:"recorded,omitempty"`
	bytes  int64
}

type recordPlan struct {
	Selectors []string `json:"selectors"`
	Series    int64    `json:"series"`
	Samples   int64    `json:"samples"`
	Requests  int      `json:"requests"`
	Empty     []string `json:"empty,omitempty"`
}

func runRecord(ctx context.Context, c *call) (result, error) {
	file := c.String("out")
	if !strings.HasSuffix(strings.TrimSuffix(file, ".gz"), ".jsonl") {
		return nil, problem.New(problem.Usage, "--out: %s does not end in .jsonl or .jsonl.gz", file)
	}
	if _, err := os.Lstat(file); err == nil {
		return nil, problem.New(problem.Usage, "--out: %s is there already", file).WithHint("name another file, or remove it")
	}
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	r, err := c.recordTo(ctx, o, file)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// recordTo records what the runbooks ask, as the flags say.
func (c *call) recordTo(ctx context.Context, o *opened, file string) (recordResult, error) {
	reads, err := c.reads(ctx, o)
	if err != nil {
		return recordResult{}, err
	}
	live, done, err := o.live()
	if err != nil {
		return recordResult{}, err
	}
	defer done()
	plan, err := c.plan(ctx, live, file, reads)
	if err != nil {
		return recordResult{}, err
	}
	r := recordResult{
		File: file, Server: plan.Header.Server, From: plan.Header.From, To: plan.Header.To,
		Plan: recordPlan{Selectors: plan.Header.Selectors, Series: plan.Series, Samples: plan.Samples, Requests: 2 * len(plan.Chunks), Empty: plan.Empty},
	}
	for _, s := range plan.Empty {
		c.ui.Warn("%s has no sample in that time", s)
	}
	if w := recorded.VersionWarning(plan.Header.Version); w != "" {
		c.ui.Warn("%s", w)
	}
	if c.Bool("dry-run") {
		return r, nil
	}
	if plan.Samples == 0 {
		return r, problem.New(problem.NotFound, "there is nothing to record: no query has a sample from %s to %s", clockTime(r.From), clockTime(r.To))
	}
	c.ui.Progress("recording %d samples of %d series from %s", plan.Samples, plan.Series, plan.Header.Server)
	got, err := plan.Run(ctx, live, file, func(done, all int64) { c.ui.Percent("recording", int(done), int(all)) })
	if err != nil {
		if _, serr := os.Stat(capture.Partial(file)); serr == nil && c.IsSet("out") {
			c.ui.Warn("what was fetched is kept in %s; the same command goes on from there", capture.Partial(file))
		}
		return r, err
	}
	r.Is = &got
	if info, err := os.Stat(file); err == nil {
		r.bytes = info.Size()
	}
	return r, nil
}

// live is the project's metric source; done ends its plugin.
func (o *opened) live() (live engine.Live, done func(), err error) {
	config, err := o.settings.Resolve(o.settings.Metrics)
	if err != nil {
		return live, nil, err
	}
	host, err := o.host(filepath.Join(o.settings.StateDir, "plugins"))
	if err != nil {
		return live, nil, err
	}
	m := o.settings.Metrics
	return engine.Live{Host: host, Connection: pluginhost.Connection{Name: m.Name, Plugin: m.Plugin, Config: config, Confine: (*pluginhost.Confine)(m.Confine)}}, func() { host.Close() }, nil
}

// reads are the selectors of the runbooks' queries, of rules, and those that were named.
func (c *call) reads(ctx context.Context, o *opened) ([]promexpr.Read, error) {
	runbooks, err := o.settings.Runbooks(o.tree, c.args)
	if err != nil {
		return nil, err
	}
	q, err := check.FindQueries(ctx, &check.Project{Tree: o.tree, Settings: o.settings, Families: o.families, Manifests: o.manifests, Spawn: o.spawn}, runbooks)
	if err != nil {
		return nil, err
	}
	for _, pos := range q.Computed {
		c.ui.Warn("%s: this query is put together while the runbook runs, so what it asks is not recorded: name it with --selector", pos)
	}
	for _, file := range c.StringSlice("rules") {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, problem.Wrap(problem.Usage, err, "--rules")
		}
		exprs, err := recorded.RuleExprs(recorded.RuleFile{Name: file, Text: text})
		if err != nil {
			return nil, err
		}
		for _, x := range exprs {
			if err := add(&q.Reads, x.Expr, x.For); err != nil {
				return nil, err
			}
		}
	}
	for _, text := range c.StringSlice("selector") {
		if err := add(&q.Reads, text, 0); err != nil {
			return nil, problem.Wrap(problem.Usage, err, "--selector")
		}
	}
	if len(q.Reads) == 0 {
		return nil, problem.New(problem.Usage, "the runbooks ask nothing that is known before they run").WithHint("name what to record: --selector 'up{job=\"worker\"}'")
	}
	return q.Reads, nil
}

func add(reads *[]promexpr.Read, text string, before time.Duration) error {
	e, err := promexpr.Parse(text, nil)
	if err != nil {
		return err
	}
	for _, r := range e.Reads() {
		r.Back += before
		*reads = append(*reads, r)
	}
	return nil
}

// plan is that of a recording that was interrupted, or a new one.
func (c *call) plan(ctx context.Context, live engine.Live, file string, reads []promexpr.Read) (*capture.Plan, error) {
	now := c.stdio.Now()
	from, err := moment("from", c.String("from"), now)
	if err != nil {
		return nil, err
	}
	to, err := moment("to", c.String("to"), now)
	if err != nil {
		return nil, err
	}
	if to.IsZero() {
		to = now
	}
	old, err := capture.Unfinished(file)
	if err != nil {
		return nil, err
	}
	if old != nil {
		for _, r := range reads {
			if !slices.Contains(old.Header.Selectors, r.Selector) {
				return nil, problem.New(problem.Usage, "%s does not hold %s, which is asked now", capture.Partial(file), r.Selector).WithHint("remove it to begin again")
			}
		}
		c.ui.Warn("going on with what was interrupted: %s to %s", clockTime(old.Header.From), clockTime(old.Header.To))
		return old, nil
	}
	server, version, err := about(ctx, live)
	if err != nil {
		return nil, err
	}
	return capture.Make(ctx, live, capture.Options{Reads: reads, From: from, To: to, Step: c.Duration("step"), Server: server, Version: version})
}

// about asks the plugin what it asks, if it can say.
func about(ctx context.Context, live engine.Live) (server, version string, err error) {
	m, err := live.Host.Manifest(ctx, live.Connection.Plugin)
	if err != nil {
		return "", "", err
	}
	if !slices.ContainsFunc(m.Functions, func(f sdk.Function) bool { return f.Name == "server" }) {
		return live.Connection.Plugin, "", nil
	}
	v, err := live.Host.Query(ctx, live.Connection, "server", nil)
	if err != nil {
		return "", "", err
	}
	d, _ := v.(value.Dict)
	text := func(name string) string {
		x, _ := d.Get(name)
		s, _ := x.(value.String)
		return string(s)
	}
	return text("server"), text("version"), nil
}

func (r recordResult) text(u *ui) {
	if r.Is == nil {
		for _, s := range r.Plan.Selectors {
			u.Printf("%s\n", s)
		}
		u.Printf("%d samples of %d series from %s, %s to %s, in %d requests\n", r.Plan.Samples, r.Plan.Series, r.Server, clockTime(r.From), clockTime(r.To), r.Plan.Requests)
		return
	}
	u.Printf("%s: %d samples of %d series, %s to %s, %s\n", r.File, r.Is.Samples-r.Is.Ends, r.Is.Series, clockTime(r.From), clockTime(r.To), inBytes(uint64(r.bytes)))
	u.Printf("use it: t.metrics(%q) in a test, runbook backtest --data %s\n", r.File, r.File)
}
