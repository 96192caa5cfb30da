package engine

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func symptomOf(t *testing.T, text string) promexpr.Symptom {
	t.Helper()
	e, err := promexpr.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Symptom()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is said of a target from the values of its symptom at the four points of a window, the last of which is now.
func TestJudge(t *testing.T) {
	t.Parallel()
	nan, inf, none := math.NaN(), math.Inf(1), math.SmallestNonzeroFloat64
	now := epoch
	for _, c := range []struct {
		name     string
		sick     string
		values   [4]float64
		measured time.Duration // ago
		want     trace.Condition
		why      string
	}{
		{"healthy", "depth > 100", [4]float64{5, 5, 5, 5}, 0, trace.Healthy, "5, not > 100"},
		{"healthy at the threshold", "depth > 100", [4]float64{200, 200, 200, 100}, 0, trace.Healthy, "100, not > 100"},
		{"sick", "depth > 100", [4]float64{101, 200, 300, 400}, 0, trace.Sick, "400 > 100, held for 45s"},
		{"sick below", "depth < 1", [4]float64{0, 0, 0, 0.5}, 0, trace.Sick, "0.5 < 1"},
		{"sick as long as max_age", "depth > 100", [4]float64{200, 200, 200, 200}, time.Minute, trace.Sick, ""},
		{"not for long enough", "depth > 100", [4]float64{5, 200, 200, 200}, 0, trace.Pending, "3 of 4 samples"},
		{"healthy in between", "depth > 100", [4]float64{200, 5, 200, 200}, 0, trace.Pending, "2 of 4"},
		{"a gap at the beginning", "depth > 100", [4]float64{none, 200, 200, 200}, 0, trace.Pending, "3 of 4"},
		{"a gap in between", "depth > 100", [4]float64{200, none, 200, 200}, 0, trace.Pending, "3 of 4"},
		{"NaN in between", "depth > 100", [4]float64{200, nan, 200, 200}, 0, trace.Pending, "2 of 4"},
		{"infinity in between", "depth > 100", [4]float64{200, inf, 200, 200}, 0, trace.Pending, "2 of 4"},
		{"no data", "depth > 100", [4]float64{none, none, none, none}, 0, trace.Unknown, "no data for depth"},
		{"no data now", "depth > 100", [4]float64{200, 200, 200, none}, 0, trace.Unknown, "no data now; the last value was 200"},
		{"NaN now", "depth != 100", [4]float64{200, 200, 200, nan}, 0, trace.Unknown, "NaN, which is not a measurement"},
		{"infinity now", "depth > 100", [4]float64{200, 200, 200, inf}, 0, trace.Unknown, "+Inf, which is not a measurement"},
		{"stale", "depth > 100", [4]float64{200, 200, 200, 200}, time.Minute + time.Millisecond, trace.Unknown, "stale: measured 1m0s ago, more than 1m"},
		{"healthy, but stale", "depth > 100", [4]float64{5, 5, 5, 5}, time.Hour, trace.Unknown, "stale"},
		{"not known when", "depth > 100", [4]float64{200, 200, 200, 200}, -1, trace.Unknown, "not known when it was measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rb := &project.Runbook{Targets: project.Targets{Sick: symptomOf(t, c.sick), Held: 45 * time.Second}}
			var s kit.Series
			for i, v := range c.values {
				if v != none {
					s.Points = append(s.Points, kit.Point{At: now.Add(time.Duration(i-3) * 15 * time.Second), Value: v})
				}
			}
			measured := now.Add(-c.measured)
			if c.measured < 0 {
				measured = time.Time{}
			}
			target := action.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3"}}
			got := judge(rb, target, s, measured, 4, now, time.Minute)
			if got.Condition != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("%s: %s", got.Condition, got.Why)
			}
			if (got.Labels == nil) != (c.want == trace.Healthy) {
				t.Errorf("labels %v", got.Labels)
			}
			if got.Value != nil && (math.IsNaN(*got.Value) || math.IsInf(*got.Value, 0)) {
				t.Errorf("the trace cannot hold %v", *got.Value)
			}
		})
	}
}

// Series of one target that follow each other are one; two values at a time are an error of the query.
func TestJoin(t *testing.T) {
	t.Parallel()
	at := func(s int) kit.Point {
		return kit.Point{At: epoch.Add(time.Duration(s) * time.Second), Value: float64(s)}
	}
	old := kit.Series{Labels: map[string]string{"version": "1"}, Points: []kit.Point{at(0), at(15)}}
	newer := kit.Series{Labels: map[string]string{"version": "2"}, Points: []kit.Point{at(30), at(45)}}
	for _, pair := range [][2]kit.Series{{old, newer}, {newer, old}} {
		s, ok := join(pair[0], pair[1])
		if !ok || s.Labels["version"] != "2" || len(s.Points) != 4 || !slices.IsSortedFunc(s.Points, func(a, b kit.Point) int { return a.At.Compare(b.At) }) {
			t.Errorf("%v, %+v", ok, s)
		}
	}
	newer.Points = append(newer.Points, at(15))
	if _, ok := join(old, newer); ok {
		t.Error("two values at one time were joined")
	}
	if got := pick([]kit.Series{old, newer}, nil); got != nil {
		t.Errorf("picked %+v", got)
	}
}

// When a symptom was measured is the oldest of what its selectors know of the target; one that does not tell targets apart counts as a whole.
func TestNewestFor(t *testing.T) {
	t.Parallel()
	rb := &project.Runbook{Targets: project.Targets{By: []string{"instance"}}}
	w3 := action.Target{Labels: map[string]string{"instance": "w3"}}
	stamp := func(instance string, ago int) kit.Sample {
		labels := map[string]string{}
		if instance != "" {
			labels["instance"] = instance
		}
		return kit.Sample{Labels: labels, Value: float64(epoch.Unix() - int64(ago))}
	}
	for _, c := range []struct {
		name   string
		stamps [][]kit.Sample
		ago    int // -1: not known
	}{
		{"its own", [][]kit.Sample{{stamp("w2", 1), stamp("w3", 20), stamp("w3", 10)}}, 10},
		{"only others", [][]kit.Sample{{stamp("w2", 1)}}, -1},
		{"the oldest selector", [][]kit.Sample{{stamp("w3", 1)}, {stamp("w3", 30)}}, 30},
		{"one selector without it", [][]kit.Sample{{stamp("w3", 1)}, {stamp("w2", 1)}}, -1},
		{"one that is for all", [][]kit.Sample{{stamp("w3", 1)}, {stamp("", 40), stamp("", 20)}}, 20},
		{"no samples", [][]kit.Sample{{}}, -1},
	} {
		got := newestFor(rb, w3, stampedBy(rb, c.stamps))
		if c.ago < 0 && !got.IsZero() || c.ago >= 0 && got.Unix() != epoch.Unix()-int64(c.ago) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func conditions(r *trace.Run) map[string]trace.Condition {
	out := map[string]trace.Condition{}
	for _, x := range r.Runbooks[0].Targets {
		out[x.Name] = x.Condition
	}
	return out
}

const watch = header + "def run(ctx):\n    return nothing(\"seen\")\n"

// What the real queries, over recorded metrics, make of a fleet.
func TestLook(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(w *world)
		want trace.Condition
		why  string
	}{
		{"well", func(*world) {}, trace.Healthy, ""},
		{"sick", func(w *world) { w.sick("w3") }, trace.Sick, ""},
		{"sick since a moment ago", func(w *world) { w.depth["w3"] = 1000; w.pass(15 * time.Second) }, trace.Pending, ""},
		{"not measured any more", func(w *world) { w.sick("w3"); delete(w.depth, "w3"); w.pass(75 * time.Second) }, trace.Unknown, "stale"},
		{"not measured in between", func(w *world) {
			w.sick("w3")
			delete(w.depth, "w3")
			w.pass(90 * time.Second)
			w.depth["w3"] = 1000
			w.pass(15 * time.Second)
		}, trace.Pending, "a gap is not evidence"},
		{"gone", func(w *world) {
			w.sick("w4")
			delete(w.depth, "w3")
			w.pass(6 * time.Minute)
		}, trace.Missing, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": watch})
			c.do(w)
			r := w.tick()
			if got := target(t, r, "w3"); got.Condition != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("%s: %s (%v)", got.Condition, got.Why, conditions(r))
			}
		})
	}
}

// A label that is not of by changes in the window, as a deploy does it.
func TestAChangedLabel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": watch})
	w.sick("w3")
	old := map[string]string{"__name__": "depth", "instance": "w3", "job": "worker"}
	if err := w.db.Stale(old, w.now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	delete(w.depth, "w3")
	for range 3 {
		w.pass(15 * time.Second)
		for metric, v := range map[string]float64{"up": 1, "depth": 1000} {
			l := map[string]string{"__name__": metric, "instance": "w3", "job": "worker"}
			if metric == "depth" {
				l["version"] = "2"
			}
			if err := w.db.Append(l, w.now, v); err != nil {
				t.Fatal(err)
			}
		}
		if r := w.tick(); r.Runbooks[0].Problem != nil || target(t, r, "w3").Condition != trace.Sick {
			t.Errorf("%v: %+v", r.Runbooks[0].Problem, target(t, r, "w3"))
		}
	}
}

// A source that fails is no evidence: nothing is evaluated, and it is told once whatever the number of runbooks.
func TestTheSourceFails(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"up", "depth", "timestamp(depth", "count_over_time", "timestamp(depth{job=\"worker\"}):range"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": restart, "b.star": strings.Replace(restart, "30s", "45s", 1)})
			w.sick("w3")
			p := w.process()
			broken, only, _ := strings.Cut(what, ":") // as a range: not the ages of now, but those in the window
			p.host.query = func(function, expr string) error {
				if !strings.HasPrefix(expr, broken) || only != "" && function != only {
					return nil
				}
				return problem.New(problem.MetricsSource, "the source does not answer")
			}
			r, err := p.run()
			if err != nil || r.Exit != problem.ExitFailed {
				t.Errorf("%v, exit %d", err, r.Exit)
			}
			for _, rb := range r.Runbooks {
				if rb.Problem == nil || rb.Problem.Code != problem.MetricsSource || len(rb.Targets) > 0 && rb.Targets[0].Evaluation != nil {
					t.Errorf("%+v", rb)
				}
			}
			if len(w.effects) != 0 || len(w.told) != 1 || len(w.told[0].Runbooks) != 2 {
				t.Errorf("%d effects, told %+v", len(w.effects), w.told)
			}
		})
	}
}

// What a runbook reads of its own must be measured, and lately.
func TestOwnQueries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr string
		code problem.Code
		why  string
	}{
		{"sum(depth)", "", ""},
		{"sum(rate(no_errors[5m])) or vector(0)", "", ""},
		{"old", problem.NoData, "2m"},
		{"sum(old) + sum(depth)", problem.NoData, "2m"},
		{"sum_over_time(older[15m])", problem.NoData, "old; older than 1m"},
		{"sum_over_time(older[15m]) + on() group_left() sum(depth)", problem.NoData, "older than 1m"},
		{"nothing_at_all", problem.NoData, "has no data"},
		{"0 / sum(depth - depth)", problem.NoData, "NaN"},
	} {
		t.Run(c.expr, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": header + "def run(ctx):\n    ctx.metrics.value(" + quoteStar(c.expr) + ")\n    ctx.metrics.range(" + quoteStar(c.expr) + ", window = \"20m\")\n"})
			for name, ago := range map[string]time.Duration{"old": 2 * time.Minute, "older": 10 * time.Minute} {
				if err := w.db.Append(map[string]string{"__name__": name}, w.now.Add(time.Minute-ago), 1); err != nil {
					t.Fatal(err)
				}
			}
			w.sick("w3")
			ev := evaluationOf(t, w.tick(), "w3")
			switch {
			case c.code == "" && ev.Problem != nil:
				t.Errorf("%v", ev.Problem)
			case c.code != "" && (ev.Problem == nil || ev.Problem.Code != c.code || !strings.Contains(ev.Problem.Message, c.why)):
				t.Errorf("%v", ev.Problem)
			}
		})
	}
}

func quoteStar(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

// A question without data costs none about the time before; one that has some asks only for the selector of which nothing is there now.
func TestOwnQueriesLookBackOnlyIfThereIsData(t *testing.T) {
	t.Parallel()
	for expr, back := range map[string]int{
		`errors_total{job="none"}`:                                  0,
		`sum(errors_total{job="none"}) + sum(errors{job="none"})`:   0,
		`sum(depth{job="worker"})`:                                  0,
		`sum(depth{job="worker"}) or sum(errors_total{job="none"})`: 1,
	} {
		w := newWorld(t, map[string]string{"a.star": header + "def run(ctx):\n    ctx.metrics.value(" + quoteStar(expr) + ", default = None)\n" +
			"    ctx.metrics.range(" + quoteStar(expr) + ", window = \"5m\")\n"})
		w.sick("w3")
		p := w.process()
		if _, err := p.run(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, asked := range p.host.asked {
			if strings.Contains(asked, "max_over_time") {
				n++
			}
		}
		if n != 2*back { // by both functions
			t.Errorf("%s: looked back %d times, want %d: %q", expr, n, 2*back, p.host.asked)
		}
	}
}

// The verdicts of real queries: of a target that is scraped less often than we look, and of each ending.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		then func(w *world)
		want action.AttemptState
		exit problem.Exit
	}{
		{"well", func(w *world) { w.depth["w3"] = 5; w.pass(3 * time.Minute) }, action.Verified, problem.ExitOK},
		{"well for a while", func(w *world) { w.depth["w3"] = 5; w.pass(75 * time.Second); w.sick("w3"); w.pass(time.Minute) }, action.Verified, problem.ExitOK},
		{"still sick", func(w *world) { w.pass(3 * time.Minute) }, action.Ineffective, problem.ExitFailed},
		{"gone", func(w *world) { delete(w.depth, "w3"); w.pass(3 * time.Minute) }, action.Inconclusive, problem.ExitRefused},
		{"measured each 45s", func(w *world) {
			all := w.depth
			all["w3"] = 5
			for range 4 {
				w.depth = nil
				w.pass(30 * time.Second)
				w.depth = all
				w.pass(15 * time.Second)
			}
		}, action.Verified, problem.ExitOK},
		{"measured too seldom", func(w *world) {
			all := w.depth
			all["w3"] = 5
			for range 2 {
				w.depth = nil
				w.pass(75 * time.Second)
				w.depth = all
				w.pass(15 * time.Second)
			}
		}, action.Inconclusive, problem.ExitRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": restart})
			w.sick("w3")
			w.tick()
			c.then(w)
			w.paths = nil // whatever the run is about
			p := w.process()
			p.opts.Paths = []string{}
			r, err := p.run()
			if err != nil || len(r.Verified) != 1 || r.Verified[0].State != c.want || r.Exit != c.exit {
				t.Errorf("%v, exit %d: %+v", err, r.Exit, r.Verified)
			}
			if told := len(w.told); (told == 1) != (c.want != action.Verified) {
				t.Errorf("told %q", w.reasons())
			}
			if r := w.tick(); len(r.Verified) != 0 {
				t.Errorf("judged again: %+v", r.Verified)
			}
		})
	}
}

// An episode ends after an hour of observed health, or when its target has been gone for a day.
func TestEpisodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": watch})
	episodes := func() map[string]ledger.Episode {
		w.t.Helper()
		return readEpisodes(t, w)
	}
	w.sick("w3")
	w.sick("w4")
	first := evaluationOf(t, w.tick(), "w3").Episode
	w.depth["w3"] = 5
	w.pass(59 * time.Minute)
	w.tick()
	if len(episodes()) != 2 {
		t.Fatal("unobserved health ended an episode")
	}
	w.sick("w3")
	if again := evaluationOf(t, w.tick(), "w3").Episode; again != first {
		t.Error("a recovery that nobody saw began another episode")
	}
	w.depth["w3"] = 5
	for range 62 {
		w.pass(time.Minute)
		w.tick()
	}
	if eps := episodes(); len(eps) != 1 {
		t.Errorf("%+v", eps)
	}
	delete(w.depth, "w4")
	w.pass(23 * time.Hour)
	w.tick()
	if len(episodes()) != 1 {
		t.Error("an episode ended too early")
	}
	w.pass(2 * time.Hour)
	w.tick()
	if eps := episodes(); len(eps) != 0 {
		t.Errorf("%+v", eps)
	}
	w.sick("w3")
	if again := evaluationOf(t, w.tick(), "w3").Episode; again == first {
		t.Error("the old episode goes on")
	}
}

func readEpisodes(t *testing.T, w *world) map[string]ledger.Episode {
	t.Helper()
	var eps map[string]ledger.Episode
	err := w.store.View(t.Context(), []string{ledger.KeyEpisodes("a")}, func(tx store.ReadTx) (err error) {
		eps, err = ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes("a"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return eps
}
