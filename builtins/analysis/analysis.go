// Package analysis is the family ctx.analysis: what numbers mean, by formulas that a person can do by hand.
//
// Promise: every answer comes with its inputs and its formula, so that a trace shows how it came about. What cannot be computed, because data is missing or
// nothing varies, is an error or None, never a number. The work is PromQL's own as far as that goes.
package analysis

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	expr := kit.Param{Name: "expr", Type: kit.StringT, Required: true, Doc: "PromQL; $name is a parameter of the runbook that is a number or a duration"}
	where := kit.Param{Name: "where", Type: kit.Labels, Doc: "labels that every selector in expr must have; none if not given"}
	return kit.Family{
		Name: "analysis", Doc: "Forecasts, baselines and outliers, each with its inputs and its formula. Like every analysis they answer {value, age} and can have a cooldown.",
		Functions: []kit.Function{
			{
				Name: "forecast", Kind: kit.Analysis, Positional: 1, Returns: kit.Dict, Call: forecast,
				Doc: `Answers when a value reaches a limit if it goes on as over the window: {"value": 80.0, "slope": 0.001, "reaches_in": duration or None, "formula": "..."}. slope is per second, by least squares (deriv of PromQL); reaches_in is None if it goes away from the limit or would take more than a year, and 0s if it is there.`,
				Params: append([]kit.Param{
					expr,
					{Name: "limit", Type: kit.Number, Required: true, Doc: "the value that must not be reached"},
					{Name: "window", Type: kit.Duration, Default: value.Duration(6 * time.Hour), Doc: "how far to look back"},
					where,
				}, kit.ReservedAnalysisParams()...),
			},
			{
				Name: "baseline", Kind: kit.Analysis, Positional: 1, Returns: kit.Dict, Call: baseline,
				Doc: `Compares a value with what it was at the same time in earlier seasons: {"value": 120.0, "baseline": 100.0, "ratio": 1.2, "samples": [98.0, 101.0, 101.0], "formula": "..."}. baseline is the median of the samples that there are, at least two; ratio is None if it is 0.`,
				Params: append([]kit.Param{
					expr,
					{Name: "season", Type: kit.Duration, Default: value.Duration(7 * 24 * time.Hour), Doc: "how long a season is"},
					{Name: "seasons", Type: kit.Int, Default: value.Int(4), Doc: "how many to look back, from 2 to 52"},
					where,
				}, kit.ReservedAnalysisParams()...),
			},
			{
				Name: "outliers", Kind: kit.Analysis, Positional: 1, Returns: kit.Dict, Call: outliers,
				Doc:    `Scores each series of a query by how far it is from the others: {"median": 5.0, "mad": 1.0, "series": [{"labels": {...}, "value": 50.0, "score": 30.4}], "formula": "..."}, the largest score first. score is None where all are the same but this one. Above 3.5 is commonly called an outlier (Iglewicz and Hoaglin, 1993). At least three series are needed.`,
				Params: append([]kit.Param{expr, where}, kit.ReservedAnalysisParams()...),
			},
		},
	}
}

func args(a kit.Args) (expr string, where map[string]string) {
	e, _ := a["expr"].(value.String)
	d, _ := a["where"].(value.Dict)
	for _, x := range d {
		k, _ := x.Key.(value.String)
		v, _ := x.Value.(value.String)
		if where == nil {
			where = map[string]string{}
		}
		where[string(k)] = string(v)
	}
	return string(e), where
}

// one is the only value of a query.
func one(ctx context.Context, h kit.Host, name, expr string, where map[string]string) (float64, error) {
	samples, err := h.Metrics().Instant(ctx, expr, where)
	switch {
	case err != nil:
		return 0, err
	case len(samples) == 0:
		return 0, problem.New(problem.NoData, "%s: %q has no data", name, expr).WithHint("check its name and labels")
	case len(samples) > 1:
		return 0, problem.New(problem.Query, "%s: %q gives %d values, not one", name, expr, len(samples)).WithHint("choose one with where = {...}, or put them together with sum(...), max(...) or avg(...)")
	case !finite(samples[0].Value):
		return 0, problem.New(problem.NoData, "%s: %q is %v, which is not a measurement", name, expr, samples[0].Value)
	}
	return samples[0].Value, nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func number(v value.Value) float64 {
	switch v := v.(type) {
	case value.Int:
		return float64(v)
	case value.Float:
		return float64(v)
	}
	return math.NaN()
}

func entry(name string, v value.Value) value.Entry {
	return value.Entry{Key: value.String(name), Value: v}
}

// farthest is how far ahead a forecast is worth anything.
const farthest = 365 * 24 * time.Hour

func forecast(ctx context.Context, h kit.Host, a kit.Args) (value.Value, error) {
	expr, where := args(a)
	w, _ := a["window"].(value.Duration)
	window, limit := time.Duration(w), number(a["limit"])
	if window < time.Minute {
		return nil, problem.New(problem.Argument, "analysis.forecast: window must be at least 1m, got %s", value.FormatDuration(window))
	}
	now, err := one(ctx, h, "analysis.forecast", expr, where)
	if err != nil {
		return nil, err
	}
	step := max(window/200, time.Second).Truncate(time.Second)
	slope, err := one(ctx, h, "analysis.forecast", fmt.Sprintf("deriv((%s)[%s:%s])", expr, value.FormatDuration(window), value.FormatDuration(step)), where)
	if err != nil {
		return nil, err
	}
	var in value.Value = value.Null{}
	switch seconds := (limit - now) / slope; {
	case now == limit:
		in = value.Duration(0)
	case finite(seconds) && seconds >= 0 && seconds < farthest.Seconds():
		in = value.Duration(time.Duration(seconds * float64(time.Second)).Round(time.Second))
	}
	return value.Dict{
		entry("value", value.Float(now)), entry("slope", value.Float(slope)), entry("reaches_in", in),
		entry("formula", value.String(fmt.Sprintf("(limit %g - value %g) / slope %g per second over %s", limit, now, slope, value.FormatDuration(window)))),
	}, nil
}

func baseline(ctx context.Context, h kit.Host, a kit.Args) (value.Value, error) {
	expr, where := args(a)
	s, _ := a["season"].(value.Duration)
	n, _ := a["seasons"].(value.Int)
	season := time.Duration(s)
	if season < time.Minute || n < 2 || n > 52 {
		return nil, problem.New(problem.Argument, "analysis.baseline: season must be at least 1m and seasons from 2 to 52, got %s and %d", value.FormatDuration(season), n)
	}
	series, err := h.Metrics().Range(ctx, expr, where, time.Duration(n)*season, season)
	if err != nil {
		return nil, err
	}
	if len(series) != 1 {
		return nil, problem.New(problem.Query, "analysis.baseline: %q gives %d series, not one", expr, len(series)).WithHint("choose one with where = {...}, or put them together with sum(...), max(...) or avg(...)")
	}
	var now float64
	var samples []float64
	found := false
	for _, p := range series[0].Points {
		switch {
		case !finite(p.Value):
		case h.Now().Sub(p.At) < season/2:
			now, found = p.Value, true
		default:
			samples = append(samples, p.Value)
		}
	}
	if !found || len(samples) < 2 {
		return nil, problem.New(problem.NoData, "analysis.baseline: %q has a value in %d of %d seasons; now: %v", expr, len(samples), n, found).WithHint("at least two seasons and now must have been measured: look back further, or wait")
	}
	kept := slices.Clone(samples)
	slices.Sort(samples)
	base := (samples[(len(samples)-1)/2] + samples[len(samples)/2]) / 2
	var ratio value.Value = value.Null{}
	if base != 0 {
		ratio = value.Float(now / base)
	}
	list := value.List{}
	for _, x := range kept {
		list = append(list, value.Float(x))
	}
	return value.Dict{
		entry("value", value.Float(now)), entry("baseline", value.Float(base)), entry("ratio", ratio), entry("samples", list),
		entry("formula", value.String(fmt.Sprintf("value %g / median %g of %d samples, each %s apart", now, base, len(kept), value.FormatDuration(season)))),
	}, nil
}

// normal makes the median absolute deviation comparable with a standard deviation, for what is distributed normally.
const normal = 1.4826

func outliers(ctx context.Context, h kit.Host, a kit.Args) (value.Value, error) {
	expr, where := args(a)
	all, err := h.Metrics().Instant(ctx, expr, where)
	if err != nil {
		return nil, err
	}
	if len(all) < 3 {
		return nil, problem.New(problem.NoData, "analysis.outliers: %q has %d series: none of fewer than three is an outlier", expr, len(all))
	}
	for _, s := range all {
		if !finite(s.Value) {
			return nil, problem.New(problem.NoData, "analysis.outliers: %q is %v for one of its series, which is not a measurement", expr, s.Value)
		}
	}
	median, err := one(ctx, h, "analysis.outliers", fmt.Sprintf("quantile(0.5, %s)", expr), where)
	if err != nil {
		return nil, err
	}
	mad, err := one(ctx, h, "analysis.outliers", fmt.Sprintf("quantile(0.5, abs((%s) - scalar(quantile(0.5, %s))))", expr, expr), where)
	if err != nil {
		return nil, err
	}
	far := func(s kit.Sample) float64 { return math.Abs(s.Value - median) }
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(x, y kit.Sample) int {
		switch d := far(y) - far(x); {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return 0
	})
	series := value.List{}
	for _, s := range all {
		var score value.Value = value.Null{}
		switch {
		case mad > 0:
			score = value.Float(far(s) / (normal * mad))
		case far(s) == 0:
			score = value.Float(0)
		}
		series = append(series, value.Dict{entry("labels", value.Strings(s.Labels)), entry("value", value.Float(s.Value)), entry("score", score)})
	}
	return value.Dict{
		entry("median", value.Float(median)), entry("mad", value.Float(mad)), entry("series", series),
		entry("formula", value.String(fmt.Sprintf("|value - median %g| / (1.4826 x median absolute deviation %g), %d series", median, mad, len(all)))),
	}, nil
}
