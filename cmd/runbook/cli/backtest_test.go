package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
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

// servicesRunbook is for services with a histogram of how long their requests take, of which a fleet is small and a query reads many series.
const servicesRunbook = `runbook(
    owner = "team",
    trigger = every("1m"),
    severity = "warning",
    targets = fleet(
        all = 'count by (service, job) (up{job="service"})',
        sick = "histogram_quantile(0.99, sum by (service, le) (rate(request_seconds_bucket[5m]))) > 0.3%d",
        by = "service", held = "3m", max_bad = 10,
    ),
)

def run(ctx):
    failing = ctx.metrics.value('sum(rate(requests_total{code="500"}[5m])) / sum(rate(requests_total[5m]))')
    if failing > 0.5:
        return escalate("half of all requests fail")
    if ctx.metrics.value("sum(rate(requests_total[5m]))", where = {"service": ctx.target.name}) < 1:
        return nothing("nobody asks for anything")
    slow = ctx.metrics.vector("histogram_quantile(0.99, sum by (service, le) (rate(request_seconds_bucket[15m]))) > 0.5")
    if len(slow) > 5:
        return escalate("several are slow: look at what they share")
    ctx.exec.run("restart", reason = "slow", cooldown = "2h")
`

// scenario is what is replayed: runbooks, of which each has a threshold of its own, over 3 or 25 series of each of its targets.
type scenario struct {
	name, runbook, job string
	targets            int // that together have 1,000 series
	seldom             int // how many minutes a target is well for one at which it falls ill
	write              func(tb testing.TB, file string, s scenario, length time.Duration)
}

var (
	workersScenario  = scenario{"workers", backtestRunbook, "worker", 333, 3000, writeWorkers}
	servicesScenario = scenario{"services", servicesRunbook, "service", 40, 400, writeServices}
)

// backtested is a project with as many runbooks, and its targets measured once a minute.
func backtested(tb testing.TB, s scenario, runbooks int, length time.Duration) (*testrun.Project, testrun.BacktestOptions) {
	tb.Helper()
	dir := tb.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	write("project.star", fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": "http://localhost:9"}),
    connections = [connection("exec", match = {"job": %q}, config = {"commands": {"restart": ["/bin/true"]}})],
    sampling = "1m",
)
`, s.job))
	const before = 20 * time.Minute // for what looks back
	o := testrun.BacktestOptions{Data: []recorded.Recording{{Name: "//data.jsonl"}}, From: recordedFrom.Add(before), Step: time.Minute, Mode: guard.Auto}
	for i := range runbooks {
		name := fmt.Sprintf("r%02d.star", i)
		write(name, fmt.Sprintf(s.runbook, 100+i))
		o.Runbooks = append(o.Runbooks, name)
	}
	s.write(tb, filepath.Join(dir, "data.jsonl"), s, before+length)
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

var recordedFrom = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// writeWorkers writes a recording of workers whose queues fill and empty, and that are not scraped now and then.
func writeWorkers(tb testing.TB, file string, s scenario, length time.Duration) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var all []recorded.Piece
	for i := range s.targets {
		series := map[string]*recorded.Piece{}
		for _, name := range []string{"up", "depth", "jobs_total"} {
			series[name] = &recorded.Piece{Labels: map[string]string{"__name__": name, "job": "worker", "instance": fmt.Sprintf("w%d", i)}}
		}
		jobs, stuck := 0.0, 0
		for at := time.Duration(0); at <= length; at += time.Minute {
			if stuck--; r.IntN(s.seldom) == 0 {
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
				p.Times, p.Values = append(p.Times, recordedFrom.Add(at).UnixMilli()), append(p.Values, v)
			}
		}
		for _, name := range []string{"up", "depth", "jobs_total"} {
			all = append(all, *series[name])
		}
	}
	writeRecording(tb, file, length, all)
}

// writeServices writes a recording of services with 25 series each: requests by code, and how long they took. One or two are slow at most times.
func writeServices(tb testing.TB, file string, s scenario, length time.Duration) {
	tb.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	bounds := []float64{0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10}
	var all []recorded.Piece
	for i := range s.targets {
		var own []*recorded.Piece
		counter := func(name, label, text string) *recorded.Piece {
			p := &recorded.Piece{Labels: map[string]string{"__name__": name, "job": "service", "service": fmt.Sprintf("s%d", i)}}
			if label != "" {
				p.Labels[label] = text
			}
			own = append(own, p)
			return p
		}
		up, ok, failed, sum := counter("up", "", ""), counter("requests_total", "code", "200"), counter("requests_total", "code", "500"), counter("request_seconds_sum", "", "")
		buckets := make([]*recorded.Piece, len(bounds)+1)
		for j, b := range bounds {
			buckets[j] = counter("request_seconds_bucket", "le", strconv.FormatFloat(b, 'g', -1, 64))
		}
		buckets[len(bounds)] = counter("request_seconds_bucket", "le", "+Inf")
		values := map[*recorded.Piece]float64{up: 1}
		slow := 0
		for at := time.Duration(0); at <= length; at += time.Minute {
			if slow--; r.IntN(s.seldom) == 0 {
				slow = 5 + r.IntN(30)
			}
			for range 100 {
				took := r.ExpFloat64() * 0.02
				if slow > 0 {
					took *= 10
				}
				values[sum] += took
				for j := range buckets {
					if j == len(bounds) || took <= bounds[j] {
						values[buckets[j]]++
					}
				}
			}
			values[ok] += 99
			values[failed]++
			for _, p := range own {
				p.Times, p.Values = append(p.Times, recordedFrom.Add(at).UnixMilli()), append(p.Values, values[p])
			}
		}
		for _, p := range own {
			all = append(all, *p)
		}
	}
	writeRecording(tb, file, length, all)
}

// writeRestless writes a recording of workers that are well most of the time, and of which much goes wrong with the measuring: scrapes that fail for minutes,
// deploys that change a label, with both series for a while or neither, values that are no numbers, workers that come and go.
func writeRestless(tb testing.TB, file string, s scenario, length time.Duration) {
	tb.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	var all []recorded.Piece
	for i := range s.targets {
		series := map[string]*recorded.Piece{}
		add := func(name, version string, at time.Duration, v float64) {
			p := series[name+version]
			if p == nil {
				p = &recorded.Piece{Labels: map[string]string{"__name__": name, "job": "worker", "instance": fmt.Sprintf("w%d", i), "version": version}}
				series[name+version] = p
			}
			p.Times, p.Values = append(p.Times, recordedFrom.Add(at).UnixMilli()), append(p.Values, v)
		}
		left := map[string]int{} // for how many minutes more
		begins := func(what string, seldom, most int) bool {
			if left[what]--; left[what] < 0 && r.IntN(seldom) == 0 {
				left[what] = r.IntN(most)
			}
			return left[what] >= 0
		}
		version, jobs := 1, 0.0
		for at := time.Duration(0); at <= length; at += time.Minute {
			depth := float64(r.IntN(50))
			if begins("stuck", s.seldom, 12) {
				depth += 500
			} else {
				jobs += 600
			}
			late := at > length*4/5 // until then, each target has one series
			if late && r.IntN(100) == 0 {
				version++
			}
			gone, unmeasured := begins("gone", 300, 30), begins("unmeasured", 150, 10)
			if gone {
				continue
			}
			if r.IntN(100) == 0 {
				depth = math.NaN()
			}
			if name := fmt.Sprint("v", version); !unmeasured {
				add("depth", name, at, depth)
				add("jobs_total", "", at, jobs)
			}
			if late && begins("both", 100, 3) {
				add("depth", fmt.Sprint("v", version+1), at, depth)
			}
			add("up", "", at, 1)
		}
		for _, key := range slices.Sorted(maps.Keys(series)) {
			all = append(all, *series[key])
		}
	}
	writeRecording(tb, file, length, all)
}

func writeRecording(tb testing.TB, file string, length time.Duration, all []recorded.Piece) {
	tb.Helper()
	f, err := os.Create(file)
	if err != nil {
		tb.Fatal(err)
	}
	h := recorded.Header{Version: "3.0.0", From: recordedFrom, To: recordedFrom.Add(length)}
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
	workers, services := workersScenario, servicesScenario
	workers.targets, services.targets = 20, 10
	restless := scenario{"restless", backtestRunbook, "worker", 5, 150, writeRestless}
	seldom := scenario{"seldom due", strings.Replace(backtestRunbook, `every("1m")`, `every("3m")`, 1), "worker", 8, 60, writeRestless}
	for _, s := range []scenario{workers, services, restless, seldom} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			decidesTheSame(t, s)
		})
	}
}

func decidesTheSame(t *testing.T, s scenario) {
	t.Helper()
	p, o := backtested(t, s, 2, 6*time.Hour)
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
		if n := once.Count(); step == time.Minute && (n["acted"] == 0 || n["refused"] == 0 || len(once.Problems) > 0 != (s.job == "worker" && s.targets < 20)) {
			t.Errorf("every %s: %v, %v", step, n, once.Problems)
		}
	}
}

// calm is the same fleet with five incidents a day.
func (s scenario) calm() scenario {
	s.name, s.seldom = "calm_"+s.name, 30*s.seldom
	return s
}

const day = 24 * 60 // ticks

// What a backtest costs, and how many times as long it takes to ask each query at each tick: over 1,000 series, for 1 and for 20 runbooks, of fleets of which
// somebody is sick at most times, and of calm ones. Eight hours are replayed.
func BenchmarkBacktest(b *testing.B) {
	for _, s := range []scenario{workersScenario, servicesScenario, workersScenario.calm(), servicesScenario.calm()} {
		for _, runbooks := range []int{1, 20} {
			b.Run(fmt.Sprintf("%s/runbooks=%d", s.name, runbooks), func(b *testing.B) { benchmarkBacktest(b, s, runbooks, day/3+1) })
		}
	}
}

// The same for 30 days, 43 million samples.
func BenchmarkMonth(b *testing.B) {
	for _, s := range []scenario{workersScenario.calm(), servicesScenario.calm()} {
		b.Run(s.name, func(b *testing.B) { benchmarkBacktest(b, s, 1, 30*day+1) })
	}
}

func benchmarkBacktest(b *testing.B, s scenario, runbooks, ticks int) {
	b.Helper()
	p, o := backtested(b, s, runbooks, time.Duration(ticks-1)*time.Minute)
	debug.SetGCPercent(gcPercent)
	var took [2]time.Duration // ahead, and each query at each tick
	for b.Loop() {
		for way := range took {
			o.EachQuery = way == 1
			began := time.Now()
			r, err := testrun.RunBacktest(b.Context(), p, o)
			if err != nil {
				b.Fatal(err)
			}
			took[way] += time.Since(began)
			if r.Ticks != ticks {
				b.Fatalf("%d ticks", r.Ticks)
			}
		}
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "x-each-query")
	b.ReportMetric(took[0].Seconds()/float64(b.N*ticks)*1e3, "ms/tick")
}
