package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/samples"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// source asks the project's metric source at the time of the run and notes every question and answer.
type source struct {
	host pluginhost.Host
	conn pluginhost.Connection
	wall func() time.Time
	// broken is why the source cannot be asked at all.
	broken error
}

// Live is a metric source that is asked outside of a run.
type Live struct {
	Host       pluginhost.Host
	Connection pluginhost.Connection
}

func (l Live) source() source {
	return source{host: l.Host, conn: l.Connection, wall: func() time.Time { return time.Time{} }}
}

// Instant asks for the values at a time, or for the samples of a range selector.
func (l Live) Instant(ctx context.Context, expr string, at time.Time) ([]kit.Series, error) {
	return l.source().points(ctx, expr, at, &trace.Query{})
}

// Range asks for the values at each step of [start, end].
func (l Live) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error) {
	return l.source().grid(ctx, expr, start, end, step, &trace.Query{})
}

func (s source) points(ctx context.Context, expr string, at time.Time, q *trace.Query) ([]kit.Series, error) {
	return s.ask(ctx, "instant", value.Dict{
		{Key: value.String("expr"), Value: value.String(expr)},
		{Key: value.String("at"), Value: value.Time(at)},
	}, q)
}

// instant asks for the vector at a time.
func (s source) instant(ctx context.Context, expr string, at time.Time, q *trace.Query) ([]kit.Sample, error) {
	series, err := s.points(ctx, expr, at, q)
	if err != nil {
		return nil, err
	}
	out := make([]kit.Sample, 0, len(series))
	for _, s := range series {
		for _, p := range s.Points {
			out = append(out, kit.Sample{Labels: s.Labels, Value: p.Value, At: p.At})
		}
	}
	return out, nil
}

// grid asks for the values at each step of [start, end].
func (s source) grid(ctx context.Context, expr string, start, end time.Time, step time.Duration, q *trace.Query) ([]kit.Series, error) {
	return s.ask(ctx, "range", value.Dict{
		{Key: value.String("expr"), Value: value.String(expr)},
		{Key: value.String("start"), Value: value.Time(start)},
		{Key: value.String("end"), Value: value.Time(end)},
		{Key: value.String("step"), Value: value.Duration(step)},
	}, q)
}

func (s source) ask(ctx context.Context, function string, args value.Dict, q *trace.Query) ([]kit.Series, error) {
	if s.broken != nil {
		q.Error = s.broken.Error()
		return nil, s.broken
	}
	from := s.wall()
	series, err := s.answer(ctx, function, args)
	q.Took += s.wall().Sub(from)
	if err != nil {
		q.Error = err.Error()
		return nil, err
	}
	q.Answer = renderSeries(series)
	return series, nil
}

func (s source) answer(ctx context.Context, function string, args value.Dict) ([]kit.Series, error) {
	if d, ok := s.host.(pluginhost.Direct); ok {
		if series, ok, err := d.Series(ctx, s.conn, function, args); ok || err != nil {
			return series, err
		}
	}
	if s.packs(ctx, function) {
		args = append(args, value.Entry{Key: value.String("packed"), Value: value.Bool(true)})
	}
	v, err := s.host.Query(ctx, s.conn, function, args)
	if err != nil {
		return nil, err
	}
	return decodeSeries(v)
}

// packs says whether the plugin can answer in the compact form.
func (s source) packs(ctx context.Context, function string) bool {
	m, err := s.host.Manifest(ctx, s.conn.Plugin)
	if err != nil {
		return false // the question itself meets the same, and says so
	}
	for _, f := range m.Functions {
		if f.Name == function {
			return slices.ContainsFunc(f.Params, func(p sdk.Param) bool { return p.Name == "packed" })
		}
	}
	return false
}

// decodeSeries reads a metric answer: a list of {"labels": {..}, "points": [[time, value], ..]}, or the compact form of package samples.
func decodeSeries(v value.Value) ([]kit.Series, error) {
	bad := func(what string) error {
		return problem.New(problem.MetricsSource, "the metrics plugin answered %s", what)
	}
	if packed, ok := v.(value.Bytes); ok {
		all, err := samples.Decode([]byte(packed))
		if err != nil {
			return nil, problem.Wrap(problem.MetricsSource, err, "the metrics plugin answered")
		}
		out := make([]kit.Series, len(all))
		for i, s := range all {
			out[i] = kit.Series{Labels: s.Labels, Points: make([]kit.Point, len(s.Points))}
			for j, p := range s.Points {
				out[i].Points[j] = kit.Point{At: time.UnixMilli(p.Milli).UTC(), Value: p.Value}
			}
		}
		return out, nil
	}
	list, ok := v.(value.List)
	if !ok {
		return nil, bad("with " + kindOf(v) + " instead of a list")
	}
	out := make([]kit.Series, 0, len(list))
	for _, el := range list {
		d, ok := el.(value.Dict)
		if !ok {
			return nil, bad("with a list of " + kindOf(el))
		}
		var s kit.Series
		labels, _ := d.Get("labels")
		ld, ok := labels.(value.Dict)
		if !ok {
			return nil, bad("a series without labels")
		}
		s.Labels = make(map[string]string, len(ld))
		for _, e := range ld {
			k, kok := e.Key.(value.String)
			x, vok := e.Value.(value.String)
			if !kok || !vok {
				return nil, bad("a label that is not text")
			}
			s.Labels[string(k)] = string(x)
		}
		points, _ := d.Get("points")
		pl, ok := points.(value.List)
		if !ok {
			return nil, bad("a series without points")
		}
		for _, p := range pl {
			pair, ok := p.(value.List)
			if !ok || len(pair) != 2 {
				return nil, bad("a point that is not [time, value]")
			}
			at, aok := pair[0].(value.Time)
			val, vok := pair[1].(value.Float)
			if !aok || !vok {
				return nil, bad("a point that is not [time, value]")
			}
			s.Points = append(s.Points, kit.Point{At: time.Time(at), Value: float64(val)})
		}
		out = append(out, s)
	}
	return out, nil
}

// maxRendered bounds how many series of an answer a trace shows.
const maxRendered = 8

func renderSeries(series []kit.Series) string {
	if len(series) == 0 {
		return "no data"
	}
	var b strings.Builder
	for i, s := range series {
		if i == maxRendered {
			fmt.Fprintf(&b, "; and %d more series", len(series)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(labelText(s.Labels))
		switch n := len(s.Points); n {
		case 0:
			b.WriteString(" no points")
		case 1:
			fmt.Fprintf(&b, " %s", number(s.Points[0].Value))
		default:
			lo, hi := math.Inf(1), math.Inf(-1)
			for _, p := range s.Points {
				lo, hi = math.Min(lo, p.Value), math.Max(hi, p.Value)
			}
			fmt.Fprintf(&b, " %s (%d points from %s to %s)", number(s.Points[n-1].Value), n, number(lo), number(hi))
		}
	}
	return b.String()
}

// asker is what a runbook's own queries go through: kit.Host and kit.Metrics for one evaluation.
type asker struct {
	v *evaluation
	q *trace.Query
}

func (a asker) Now() time.Time       { return a.v.e.run.Started }
func (a asker) Metrics() kit.Metrics { return a }

func (a asker) expr(text string, where map[string]string) (*promexpr.Expr, error) {
	e, err := a.v.rb.Parse(text)
	if err != nil {
		return nil, err
	}
	if len(where) > 0 {
		if e, err = e.WithMatchers(where); err != nil {
			return nil, err
		}
	}
	a.q.Expr, a.q.Where = e.String(), where
	return e, nil
}

// Instant implements kit.Metrics. Each sample carries when it was measured, and one older than max_age is an error: an
// old value says nothing about now.
func (a asker) Instant(ctx context.Context, text string, where map[string]string) ([]kit.Sample, error) {
	if before := *a.q; before.Expr != "" { // one call that asks several questions keeps all
		defer func() { a.q.Expr, a.q.Answer = before.Expr+"; "+a.q.Expr, before.Answer+"; "+a.q.Answer }()
	}
	e, err := a.expr(text, where)
	if err != nil {
		return nil, err
	}
	var samples []kit.Sample
	when, err := a.beside(ctx, e, func() (err error) {
		samples, err = a.v.e.source.instant(ctx, e.String(), a.q.At, a.q)
		return err
	})
	if err != nil || len(samples) == 0 {
		return samples, err
	}
	m, err := a.measured(ctx, e, when)
	if err != nil {
		return nil, err
	}
	for i := range samples {
		if !e.IsSelector() {
			samples[i].At = m.oldest
		} else if at, ok := m.of[labelKey(samples[i].Labels)]; ok {
			samples[i].At = at
		}
		if err := a.fresh(samples[i].At); err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// goneWithin is how far back a sample is looked for that is too old to be seen, but not too old to be reckoned with by a function over a range.
const goneWithin = time.Hour

// stamps are the answers to when what an expression reads was measured, one for each of its selectors.
type stamps struct {
	of  [][]kit.Sample
	err error
}

// beside asks, and at the same time for when what is asked for was measured. It returns when both are answered.
func (a asker) beside(ctx context.Context, e *promexpr.Expr, ask func() error) (stamps, error) {
	from, took := a.v.e.source.wall(), a.q.Took
	answer := make(chan stamps, 1)
	go func() {
		var s stamps
		for _, t := range e.Timestamps() {
			one, err := a.v.e.source.instant(ctx, t.String(), a.q.At, &trace.Query{})
			if s.of = append(s.of, one); err != nil {
				s.err = err
				break
			}
		}
		answer <- s
	}()
	err := ask()
	s := <-answer
	a.q.Took = took + a.v.e.source.wall().Sub(from)
	return s, err
}

// measured is when what an expression reads now was measured.
type measured struct {
	oldest time.Time            // of its selectors' newest samples
	of     map[string]time.Time // by the key of a series, where the expression is a selector
}

// measured reads the stamps of an expression that has data. A selector without any sample is looked for further back; one that has none there either,
// such as a counter of errors that have not happened, says nothing about that.
func (a asker) measured(ctx context.Context, e *promexpr.Expr, s stamps) (measured, error) {
	m := measured{oldest: a.q.At, of: map[string]time.Time{}}
	if s.err != nil {
		return m, s.err
	}
	for i, t := range e.Timestamps() {
		ages := s.of[i]
		if len(ages) == 0 {
			gone, q := fmt.Sprintf("max_over_time((%s)[%s:1m])", t, value.FormatDuration(goneWithin)), &trace.Query{}
			var err error
			ages, err = a.v.e.source.instant(ctx, gone, a.q.At, q)
			if a.q.Took += q.Took; err != nil {
				return m, err
			}
		}
		newest := time.Time{}
		for _, age := range ages {
			at := seconds(age.Value)
			if at.After(newest) {
				newest = at
			}
			if e.IsSelector() {
				m.of[labelKey(age.Labels)] = at
			}
		}
		if len(ages) > 0 && newest.Before(m.oldest) {
			m.oldest = newest
		}
	}
	return m, nil
}

// fresh notes when something was measured, and refuses what is too old: it says nothing about now.
func (a asker) fresh(measured time.Time) error {
	if age := a.q.At.Sub(measured); age > a.v.e.Settings.MaxAge {
		return problem.New(problem.NoData, "the newest sample of %s is %s old; older than %s says nothing about now", a.q.Expr, age.Round(time.Second), value.FormatDuration(a.v.e.Settings.MaxAge)).
			WithHint("check that Prometheus scrapes the target; the limit is project(max_age=)")
	}
	a.v.sawSample(measured)
	return nil
}

// Range implements kit.Metrics. What it reads must reach up to now, as that of Instant.
func (a asker) Range(ctx context.Context, text string, where map[string]string, window, step time.Duration) ([]kit.Series, error) {
	e, err := a.expr(text, where)
	if err != nil {
		return nil, err
	}
	if step <= 0 {
		step = a.v.e.Settings.Sampling
	}
	if window <= 0 || window/step > maxGrid {
		return nil, problem.New(problem.Query, "a window of %s in steps of %s has more than %d points", value.FormatDuration(window), value.FormatDuration(step), maxGrid).
			WithHint("use a longer step")
	}
	var series []kit.Series
	when, err := a.beside(ctx, e, func() (err error) {
		series, err = a.v.e.source.grid(ctx, e.String(), a.q.At.Add(-window), a.q.At, step, a.q)
		return err
	})
	if err != nil || len(series) == 0 {
		return series, err
	}
	m, err := a.measured(ctx, e, when)
	if err != nil {
		return nil, err
	}
	return series, a.fresh(m.oldest)
}

// maxGrid is Prometheus' own limit of points in a range answer.
const maxGrid = 11000

func seconds(f float64) time.Time {
	if math.IsNaN(f) || math.Abs(f) > 1e11 {
		return time.Time{}
	}
	return time.UnixMilli(int64(math.Round(f * 1000)))
}
