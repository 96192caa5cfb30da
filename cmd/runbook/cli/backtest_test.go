package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed1de3961f/runbook/builtins"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/declared"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

const backtestRunbook = `runbook(
    owner = "team",
    trigger = every("1m"),
    severity = "warning",
    targets = fleet(all = 'up{job="worker"}', sick = "depth > %d", by = "instance", held = "3m", max_bad = 50),
)

def run(ctx):
    if ctx.metrics.value("sum(up)") < 3:
        return escalate("hardly any worker is up")
    if ctx.metrics.value("rate(jobs_total[5m])", where = {"instance": ctx.target.name}) > 5:
        return nothing("it gets through its jobs")
    worst = ctx.metrics.vector("topk(1, depth)")[0]
    if worst["labels"]["instance"] != ctx.target.name:
        return nothing("another one is worse")
    for series in ctx.metrics.range("depth", window = "10m", step = "2m", where = {"instance": ctx.target.name}):
        if len(series["points"]) < 3:
            return nothing("too young")
    ctx.exec.run("restart", reason = "stuck", cooldown = "2h")
`

// backtested is a project with as many runbooks, and its workers measured once a minute.
func backtested(tb testing.TB, runbooks, workers int, length time.Duration) (*testrun.Project, testrun.BacktestOptions) {
	tb.Helper()
	dir := tb.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	write("project.star", `project(
    metrics = connection("prometheus", config = {"url": "http://localhost:9"}),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {"restart": ["/bin/true"]}})],
    sampling = "1m",
)
`)
	o := testrun.BacktestOptions{Data: []recorded.Recording{{Name: "//data.jsonl"}}, Step: time.Minute, Mode: guard.Auto}
	for i := range runbooks {
		name := fmt.Sprintf("r%02d.star", i)
		write(name, fmt.Sprintf(backtestRunbook, 100+i))
		o.Runbooks = append(o.Runbooks, name)
	}
	writeWorkers(tb, filepath.Join(dir, "data.jsonl"), workers, length)
	tree, err := project.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = tree.Close() })
	settings, err := loadSettings(tb, tree)
	if err != nil {
		tb.Fatal(err)
	}
	manifests, err := plugins.Manifests()
	if err != nil {
		tb.Fatal(err)
	}
	generated, err := pluginhost.Families(manifests)
	if err != nil {
		tb.Fatal(err)
	}
	memory := declared.Open("", "")
	return &testrun.Project{
		Tree: tree, Settings: settings, Families: append(builtins.All(), generated...), Manifests: manifests, Version: "test",
		Spawn: func(context.Context) (sandbox.Worker, error) {
			return memory.Worker(settings.Limits, sandbox.Spawner{Limits: settings.Limits}.Start), nil
		},
	}, o
}

func loadSettings(tb testing.TB, tree *project.Tree) (*project.Settings, error) {
	tb.Helper()
	w, err := sandbox.Spawner{}.Start(tb.Context())
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return project.LoadSettings(tb.Context(), w, tree)
}

// writeWorkers writes a recording of workers whose queues fill and empty, and that are not scraped now and then.
func writeWorkers(tb testing.TB, file string, workers int, length time.Duration) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var all []recorded.Piece
	for i := range workers {
		series := map[string]*recorded.Piece{}
		for _, name := range []string{"up", "depth", "jobs_total"} {
			series[name] = &recorded.Piece{Labels: map[string]string{"__name__": name, "job": "worker", "instance": fmt.Sprintf("w%d", i)}}
		}
		jobs, stuck := 0.0, 0
		for at := time.Duration(0); at <= length; at += time.Minute {
			if stuck--; r.IntN(3000) == 0 {
				stuck = 5 + r.IntN(30)
			}
			depth := float64(r.IntN(50))
			if stuck > 0 {
				depth += 500
			} else {
				jobs += float64(600 + r.IntN(100))
			}
			if r.IntN(300) == 0 {
				continue
			}
			for name, v := range map[string]float64{"up": 1, "depth": depth, "jobs_total": jobs} {
				p := series[name]
				p.Times, p.Values = append(p.Times, begin.Add(at).UnixMilli()), append(p.Values, v)
			}
		}
		for _, name := range []string{"up", "depth", "jobs_total"} {
			all = append(all, *series[name])
		}
	}
	f, err := os.Create(file)
	if err != nil {
		tb.Fatal(err)
	}
	h := recorded.Header{Version: "3.0.0", From: begin, To: begin.Add(length)}
	if err := recorded.WriteRecording(f, false, h, all); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// A query that is evaluated once for many ticks leads to the decisions to which it leads when it is asked at each.
func TestBacktestDecidesTheSame(t *testing.T) {
	t.Parallel()
	p, o := backtested(t, 2, 20, 6*time.Hour)
	for _, step := range []time.Duration{time.Minute, 90 * time.Second, 7 * time.Minute} {
		o.Step = step
		once, err := testrun.RunBacktest(t.Context(), p, o)
		if err != nil {
			t.Fatal(err)
		}
		each := o
		each.EachQuery = true
		want, err := testrun.RunBacktest(t.Context(), p, each)
		if err != nil {
			t.Fatal(err)
		}
		without := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Episode" }, cmp.Ignore())
		named := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Reason" }, cmp.Comparer(func(a, b string) bool {
			return a == b || strings.HasPrefix(a, "settling: attempt ") && strings.HasPrefix(b, "settling: attempt ")
		}))
		if diff := cmp.Diff(want, once, without, named, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("every %s:\n%.3000s", step, diff)
		}
		if n := once.Count(); step == time.Minute && (n["acted"] == 0 || n["refused"] == 0 || len(once.Problems) > 0) {
			t.Errorf("every %s: %v, %v", step, n, once.Problems)
		}
	}
}

// What a backtest costs, and how many times as long it takes to ask each query at each tick: over 1,000 series, for 1 and for 20 runbooks. The part of 30 days
// that is asked each time is short; cost is linear in it.
func BenchmarkBacktest(b *testing.B) {
	for _, runbooks := range []int{1, 20} {
		b.Run(fmt.Sprintf("runbooks=%d", runbooks), func(b *testing.B) {
			p, o := backtested(b, runbooks, 333, 2*time.Hour)
			var once, each time.Duration
			for b.Loop() {
				for _, way := range []struct {
					each bool
					took *time.Duration
				}{{false, &once}, {true, &each}} {
					o.EachQuery = way.each
					began := time.Now()
					r, err := testrun.RunBacktest(b.Context(), p, o)
					if err != nil {
						b.Fatal(err)
					}
					*way.took += time.Since(began)
					if r.Ticks != 121 {
						b.Fatalf("%d ticks", r.Ticks)
					}
				}
			}
			b.ReportMetric(each.Seconds()/once.Seconds(), "x-each-query")
			b.ReportMetric(once.Seconds()/float64(b.N)/(2*60)*1e3, "ms/tick")
		})
	}
}
