package recorded

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Many steps of a rule are evaluated together, because a range query has at each of its steps what an instant query has at that time. That is so
// as long as no rule sees what another one writes later: see ahead. Where it is not so, and where a step fails, rules are evaluated step by
// step, as Prometheus does.

// spanSteps bounds how many steps of a rule are evaluated together, and so the memory that their answer takes.
const spanSteps = 512

// steps are n times, a step apart.
type steps struct {
	first time.Time
	step  time.Duration
	n     int
}

func (s steps) at(i int) time.Time { return s.first.Add(time.Duration(i) * s.step) }

// schedule says when a group is evaluated: the first time after another one, and how far from it the next one is.
type schedule func(g *ruleGroup, after time.Time) (first time.Time, step time.Duration)

// Advance evaluates what is due in (from, to]: each group at the multiples of its interval. A rule that cannot be evaluated is an error, and nothing is
// evaluated after that.
func (r *Rules) Advance(ctx context.Context, from, to time.Time) error {
	return r.advance(ctx, from, to, func(g *ruleGroup, after time.Time) (time.Time, time.Duration) {
		return after.Truncate(g.interval).Add(g.interval), g.interval
	})
}

// Every evaluates every group at start, start+step, ... up to end. Errors are as those of Advance.
func (r *Rules) Every(ctx context.Context, start, end time.Time, step time.Duration) error {
	return r.advance(ctx, start.Add(-time.Nanosecond), end, func(_ *ruleGroup, after time.Time) (time.Time, time.Duration) {
		return start.Add((after.Sub(start) + step) / step * step), step
	})
}

func (r *Rules) advance(ctx context.Context, from, to time.Time, when schedule) error {
	ahead := r.ahead()
	for from.Before(to) {
		end, due := to, false
		for _, g := range r.groups {
			first, step := when(g, from)
			due = due || !first.After(to)
			last := first // step by step, to the next time that is due
			if ahead {
				last = first.Add((spanSteps - 1) * step)
			}
			if last.Before(end) {
				end = last
			}
		}
		if !due {
			return nil
		}
		var errs []error
		for _, g := range r.groups {
			first, step := when(g, from)
			if first.After(end) {
				continue
			}
			s := steps{first: first, step: step, n: int(end.Sub(first)/step) + 1}
			for _, x := range g.rules {
				errs = append(errs, r.evalSpan(ctx, g, x, s))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// ahead says whether each rule can be evaluated for many steps before the next one is: it reads only what the rules before it write, nothing that
// lies ahead of the time of a step, and nobody else writes its series.
func (r *Rules) ahead() bool {
	type identity struct {
		name     string
		alerting bool
	}
	var all []*rule
	seen := map[identity]bool{}
	for _, g := range r.groups {
		if g.offset != r.groups[0].offset {
			return false
		}
		for _, x := range g.rules {
			id := identity{x.name, x.alerting}
			if seen[id] || !steady(x.parsed) {
				return false
			}
			seen[id] = true
			all = append(all, x)
		}
	}
	for i, x := range all {
		need := needs{names: map[string]bool{}, alerts: map[string]bool{}}
		need.of(x.parsed)
		need.templates(x)
		if slices.ContainsFunc(all[i:], need.rule) {
			return false
		}
	}
	return true
}

// steady says that an expression reads the same in a range query as in an instant query, and nothing that is later than its time.
func steady(x parser.Expr) bool {
	ok := true
	parser.Inspect(x, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			ok = ok && n.OriginalOffset >= 0 && n.OriginalOffsetExpr == nil && n.Timestamp == nil && n.StartOrEnd == 0
		case *parser.SubqueryExpr:
			ok = ok && n.OriginalOffset >= 0 && n.OriginalOffsetExpr == nil && n.Timestamp == nil && n.StartOrEnd == 0
		}
		return nil
	})
	return ok
}

// evalSpan evaluates a rule at some steps, up to the first that fails.
func (r *Rules) evalSpan(ctx context.Context, g *ruleGroup, x *rule, s steps) error {
	if s.n > 1 {
		if m, done, err := r.queryRange(ctx, x.expr, steps{s.first.Add(-g.offset), s.step, s.n}); err == nil {
			defer done()
			return r.writeSpan(ctx, g, x, m, s)
		}
	}
	for i := range s.n {
		if err := r.evalOne(ctx, g, x, s.at(i)); err != nil {
			return err
		}
	}
	return nil
}

// queryRange is a range query as rules ask it. The answer is good until done.
func (r *Rules) queryRange(ctx context.Context, expr string, s steps) (m promql.Matrix, done func(), err error) {
	q, err := r.db.engine.NewRangeQuery(ctx, r.db, nil, expr, s.first, s.at(s.n-1), s.step)
	if err != nil {
		return nil, nil, err
	}
	m, err = q.Exec(ctx).Matrix()
	if err != nil {
		q.Close()
		return nil, nil, err
	}
	return m, q.Close, nil
}

// writeSpan writes what came of a rule at some steps.
func (r *Rules) writeSpan(ctx context.Context, g *ruleGroup, x *rule, m promql.Matrix, s steps) error {
	if !x.alerting && g.limit == 0 {
		if names, ok := x.names(m); ok {
			return x.problem(g, s.first, r.writeSeries(x, m, names, steps{s.first.Add(-g.offset), s.step, s.n}))
		}
	}
	w := walk{m: m, floats: make([]int, len(m)), histograms: make([]int, len(m))}
	for i := range s.n {
		t := s.at(i)
		if err := r.write(ctx, g, x, w.at(t.Add(-g.offset).UnixMilli()), t); err != nil {
			return x.problem(g, t, err)
		}
	}
	return nil
}

// names are what the series of a recording rule are called; false if they have to be looked at step by step, because two of them are called the
// same, or have histograms.
func (x *rule) names(m promql.Matrix) ([]labels.Labels, bool) {
	b := labels.NewBuilder(labels.EmptyLabels())
	names := make([]labels.Labels, len(m))
	seen := make(map[string]bool, len(m))
	for i, s := range m {
		names[i] = x.recorded(b, s.Metric)
		key := string(names[i].Bytes(nil))
		if seen[key] || len(s.Histograms) > 0 {
			return nil, false
		}
		seen[key] = true
	}
	return names, true
}

// writeSeries writes series after series what a recording rule has at some steps.
func (r *Rules) writeSeries(x *rule, m promql.Matrix, names []labels.Labels, s steps) error {
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	wrote := make(map[string]labels.Labels, len(m))
	first, step, last := s.first.UnixMilli(), s.step.Milliseconds(), s.at(s.n-1).UnixMilli()
	for i, l := range names {
		key := string(l.Bytes(nil))
		_, there := x.wrote[key] // at the step before
		delete(x.wrote, key)
		next := first
		ser := r.db.of(l)
		for _, p := range m[i].Floats {
			if there && p.T > next {
				_ = r.db.stale(l, next)
			}
			if err := r.db.appendTo(ser, sample{labels: l, t: p.T, v: p.F}); err != nil {
				return err
			}
			there, next = true, p.T+step
		}
		if next <= last {
			if there {
				_ = r.db.stale(l, next)
			}
			continue
		}
		wrote[key] = l
	}
	for _, l := range x.wrote {
		_ = r.db.stale(l, first)
	}
	x.wrote = wrote
	return nil
}

// walk goes through a matrix step by step.
type walk struct {
	m                  promql.Matrix
	floats, histograms []int // how many of each series are behind
}

// at is what an instant query has at a time, which is later than the one before.
func (w *walk) at(t millis) promql.Vector {
	var out promql.Vector
	for i, s := range w.m {
		if k := w.floats[i]; k < len(s.Floats) && s.Floats[k].T == t {
			out = append(out, promql.Sample{Metric: s.Metric, T: t, F: s.Floats[k].F})
			w.floats[i]++
		}
		if k := w.histograms[i]; k < len(s.Histograms) && s.Histograms[k].T == t {
			out = append(out, promql.Sample{Metric: s.Metric, T: t, H: s.Histograms[k].H})
			w.histograms[i]++
		}
	}
	return out
}
