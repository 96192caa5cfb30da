// Package metrics is the family ctx.metrics: PromQL, asked at the time of the run.
//
// Promise: what a runbook gets is a measurement. NaN and infinity never reach a comparison, in which NaN
// would be greater than every number; no data is an error, unless the runbook says what to assume.
package metrics

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// maxPoints bounds the answer of range, which has to fit into the worker's memory.
const maxPoints = 50_000

// Family returns the table.
func Family() kit.Family {
	return kit.Family{
		Name: "metrics",
		Doc:  "Reads the project's metrics with PromQL, at the time of the run. A sample that is older than max_age is an error.",
		Functions: []kit.Function{
			{
				Name: "value", Kind: kit.Query, Positional: 1, Returns: kit.Number, Call: single,
				Doc: "Returns the one value of a query as a float. Several values are an error, and so is none, unless default is given.",
				Params: []kit.Param{
					exprParam(), whereParam(),
					{Name: "default", Type: kit.Any, Doc: "a number, or None, that is returned if there is no data or the value is not a number; an error if not given"},
				},
			},
			{
				Name: "vector", Kind: kit.Query, Positional: 1, Returns: kit.List, Call: vector,
				Doc:    `Returns a list of {"labels": {...}, "value": 1.0}, one for each series, sorted by labels; empty if there is no data. A value that is not a number is an error.`,
				Params: []kit.Param{exprParam(), whereParam()},
			},
			{
				Name: "range", Kind: kit.Query, Positional: 1, Returns: kit.List, Call: over,
				Doc: `Returns a list of {"labels": {...}, "points": [{"at": time, "value": 1.0}, ...]}, one for each series, sorted by labels, points in time order; at most 50000 points. A point without a number is left out, as a gap.`,
				Params: []kit.Param{
					exprParam(),
					{Name: "window", Type: kit.Duration, Required: true, Doc: `how far to look back from now, such as "1h"`},
					whereParam(),
					{Name: "step", Type: kit.Duration, Doc: `time between two points, such as "1m"; the project's sampling if not given`},
				},
			},
		},
	}
}

func exprParam() kit.Param {
	return kit.Param{Name: "expr", Type: kit.StringT, Required: true, Doc: "PromQL; $name is a parameter of the runbook that is a number or a duration"}
}

func whereParam() kit.Param {
	return kit.Param{Name: "where", Type: kit.Labels, Doc: "labels that every selector in expr must have, added to the parsed query; none if not given"}
}

func single(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	expr, where := text(args["expr"]), labels(args["where"])
	def, hasDefault := args["default"]
	switch def.(type) {
	case nil, value.Null, value.Int, value.Float:
	default:
		return nil, problem.New(problem.Argument, "metrics.value: default must be a number or None, got a %s", def.Kind())
	}
	samples, err := h.Metrics().Instant(ctx, expr, where)
	if err != nil {
		return nil, err
	}
	if len(samples) > 1 {
		return nil, problem.New(problem.Query, "metrics.value: %s gives %d values, not one: %s", quote(expr, where), len(samples), several(samples)).
			WithHint("choose one with where = {%s: ...}, or put them together with sum(...), max(...) or avg(...)", differing(samples))
	}
	if len(samples) == 1 && isNumber(samples[0].Value) {
		return value.Float(samples[0].Value), nil
	}
	if hasDefault {
		return def, nil
	}
	if len(samples) == 0 {
		return nil, problem.New(problem.NoData, "metrics.value: %s has no data", quote(expr, where)).
			WithHint("check its name and labels; if no data is normal, pass default = ...")
	}
	return nil, problem.New(problem.NoData, "metrics.value: %s is %v, which is not a measurement", quote(expr, where), samples[0].Value).
		WithHint("a division by zero does that; pass default = ... to say what it means")
}

func vector(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	expr, where := text(args["expr"]), labels(args["where"])
	samples, err := h.Metrics().Instant(ctx, expr, where)
	if err != nil {
		return nil, err
	}
	samples = slices.Clone(samples)
	slices.SortStableFunc(samples, func(a, b kit.Sample) int { return strings.Compare(show(a.Labels), show(b.Labels)) })
	out := make(value.List, 0, len(samples))
	for _, s := range samples {
		if !isNumber(s.Value) {
			return nil, problem.New(problem.NoData, "metrics.vector: %s is %v for %s, which is not a measurement", quote(expr, where), s.Value, show(s.Labels)).
				WithHint("leave such series out of the query, for example by comparing the divisor: ... / (b > 0)")
		}
		out = append(out, dict("labels", value.Strings(s.Labels), "value", value.Float(s.Value)))
	}
	return out, nil
}

func over(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	expr, where := text(args["expr"]), labels(args["where"])
	window, step := span(args["window"]), span(args["step"])
	if window <= 0 {
		return nil, problem.New(problem.Argument, "metrics.range: window must be longer than 0s")
	}
	if _, given := args["step"]; given && (step <= 0 || step > window) {
		return nil, problem.New(problem.Argument, "metrics.range: step must be longer than 0s and at most the window of %s, got %s", value.FormatDuration(window), value.FormatDuration(step))
	}
	series, err := h.Metrics().Range(ctx, expr, where, window, step)
	if err != nil {
		return nil, err
	}
	series = slices.Clone(series)
	slices.SortStableFunc(series, func(a, b kit.Series) int { return strings.Compare(show(a.Labels), show(b.Labels)) })
	total := 0
	out := make(value.List, 0, len(series))
	for _, s := range series {
		if total += len(s.Points); total > maxPoints {
			return nil, problem.New(problem.Query, "metrics.range: %s gives more than %d points", quote(expr, where), maxPoints).
				WithHint("use a longer step, a shorter window or fewer series; max_over_time(...) and its like need one value only")
		}
		points := make(value.List, 0, len(s.Points))
		for _, p := range s.Points {
			if isNumber(p.Value) {
				points = append(points, dict("at", value.Time(p.At), "value", value.Float(p.Value)))
			}
		}
		out = append(out, dict("labels", value.Strings(s.Labels), "points", points))
	}
	return out, nil
}

func isNumber(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func text(v value.Value) string {
	s, _ := v.(value.String)
	return string(s)
}

func span(v value.Value) time.Duration {
	d, _ := v.(value.Duration)
	return time.Duration(d)
}

func labels(v value.Value) map[string]string {
	d, _ := v.(value.Dict)
	if len(d) == 0 {
		return nil
	}
	out := make(map[string]string, len(d))
	for _, e := range d {
		out[text(e.Key)] = text(e.Value)
	}
	return out
}

func dict(k1 string, v1 value.Value, k2 string, v2 value.Value) value.Dict {
	return value.Dict{{Key: value.String(k1), Value: v1}, {Key: value.String(k2), Value: v2}}
}

// quote shows a query in a message.
func quote(expr string, where map[string]string) string {
	if len(where) == 0 {
		return strconv.Quote(expr)
	}
	return strconv.Quote(expr) + " where " + show(where)
}

func show(l map[string]string) string {
	parts := make([]string, 0, len(l))
	for _, e := range value.Strings(l) {
		parts = append(parts, fmt.Sprintf("%s=%q", e.Key, e.Value))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// several names the first label sets of an answer.
func several(samples []kit.Sample) string {
	const most = 3
	all := make([]string, len(samples))
	for i, s := range samples {
		all[i] = show(s.Labels)
	}
	slices.Sort(all)
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}

// differing is a label that tells the samples apart, for a hint.
func differing(samples []kit.Sample) string {
	best, most := `"label"`, 1
	for _, e := range value.Strings(samples[0].Labels) {
		seen := map[string]bool{}
		for _, s := range samples {
			seen[s.Labels[text(e.Key)]] = true
		}
		if len(seen) > most {
			best, most = strconv.Quote(text(e.Key)), len(seen)
		}
	}
	return best
}
