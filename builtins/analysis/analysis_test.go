package analysis_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed1de3961f/runbook/builtins/analysis"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var now = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func one(v float64) []kit.Sample { return []kit.Sample{{Value: v}} }

func call(t *testing.T, function string, h *kittest.Host, args kit.Args) (value.Dict, error) {
	t.Helper()
	args["expr"] = value.String("x")
	v, err := kittest.Call(t, analysis.Family(), function, h, args)
	d, _ := v.(value.Dict)
	return d, err
}

func field(d value.Dict, name string) value.Value { v, _ := d.Get(name); return v }

func TestForecast(t *testing.T) {
	t.Parallel()
	const slope = "deriv((x)[6h:1m48s])"
	for _, c := range []struct {
		name              string
		now, slope, limit float64
		want              value.Value
		err               string
	}{
		{"fills up", 80, 0.01, 100, value.Duration(2000 * time.Second), ""},
		{"runs empty", 20, -0.01, 0, value.Duration(2000 * time.Second), ""},
		{"is there", 100, 0.01, 100, value.Duration(0), ""},
		{"is there and stands still", 100, 0, 100, value.Duration(0), ""},
		{"goes away", 80, -0.01, 100, value.Null{}, ""},
		{"stands still", 80, 0, 100, value.Null{}, ""},
		{"takes longer than a year", 80, 1e-9, 100, value.Null{}, ""},
		{"is beyond and goes on", 110, 0.01, 100, value.Null{}, ""},
		{"no number", math.NaN(), 0.01, 100, nil, "is NaN, which is not a measurement"},
		{"no slope", 80, math.Inf(1), 100, nil, "is +Inf, which is not a measurement"},
	} {
		h := &kittest.Host{At: now, Vectors: map[string][]kit.Sample{"x": one(c.now), slope: one(c.slope)}}
		d, err := call(t, "forecast", h, kit.Args{"limit": value.Float(c.limit)})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := field(d, "reaches_in"); err != nil || !cmp.Equal(c.want, got) {
			t.Errorf("%s: %v, %v", c.name, d, err)
		}
	}
	if _, err := call(t, "forecast", &kittest.Host{}, kit.Args{"limit": value.Int(1), "window": value.Duration(time.Second)}); err == nil || !strings.Contains(err.Error(), "at least 1m, got 1s") {
		t.Errorf("%v", err)
	}
	if _, err := call(t, "forecast", &kittest.Host{}, kit.Args{"limit": value.Int(1)}); err == nil || !strings.Contains(err.Error(), `"x" has no data`) {
		t.Errorf("%v", err)
	}
}

func TestBaseline(t *testing.T) {
	t.Parallel()
	week := 7 * 24 * time.Hour
	points := func(values ...float64) *kittest.Host { // the last is that of now
		var out []kit.Point
		for i, v := range values {
			out = append(out, kit.Point{At: now.Add(-week * time.Duration(len(values)-1-i)), Value: v})
		}
		return &kittest.Host{At: now, Ranges: map[string][]kit.Series{"x": {{Points: out}}}}
	}
	for _, c := range []struct {
		h           *kittest.Host
		base, ratio value.Value
		err         string
	}{
		{points(100, 90, 110, 400, 210), value.Float(105), value.Float(2), ""},
		{points(100, math.NaN(), 110, 330, 220), value.Float(110), value.Float(2), ""},
		{points(0, 0, 0, 0, 5), value.Float(0), value.Null{}, ""},
		{points(100, math.NaN(), math.Inf(1), math.NaN(), 5), nil, nil, "has a value in 1 of 4 seasons; now: true"},
		{points(100, 100, 100, 100, math.NaN()), nil, nil, "now: false"},
		{&kittest.Host{}, nil, nil, "gives 0 series, not one"},
	} {
		d, err := call(t, "baseline", c.h, kit.Args{})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
			continue
		}
		if err != nil || !cmp.Equal(c.base, field(d, "baseline")) || !cmp.Equal(c.ratio, field(d, "ratio")) {
			t.Errorf("%v, %v", d, err)
		}
	}
	for _, args := range []kit.Args{{"seasons": value.Int(1)}, {"seasons": value.Int(53)}, {"season": value.Duration(time.Second)}} {
		if _, err := call(t, "baseline", points(1, 1, 1), args); err == nil || !strings.Contains(err.Error(), "seasons from 2 to 52") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestOutliers(t *testing.T) {
	t.Parallel()
	const median, mad = "quantile(0.5, x)", "quantile(0.5, abs((x) - scalar(quantile(0.5, x))))"
	host := func(m, d float64, values ...float64) *kittest.Host {
		var all []kit.Sample
		for _, v := range values {
			all = append(all, kit.Sample{Value: v})
		}
		return &kittest.Host{Vectors: map[string][]kit.Sample{"x": all, median: one(m), mad: one(d)}}
	}
	scores := func(d value.Dict) []value.Value {
		var out []value.Value
		l, _ := field(d, "series").(value.List)
		for _, s := range l {
			out = append(out, field(s.(value.Dict), "score"))
		}
		return out
	}
	for _, c := range []struct {
		h    *kittest.Host
		want []value.Value
		err  string
	}{
		{host(5, 1, 5, 4, 50, 6, 5), []value.Value{value.Float(45 / 1.4826), value.Float(1 / 1.4826), value.Float(1 / 1.4826), value.Float(0), value.Float(0)}, ""},
		{host(5, 0, 5, 5, 9), []value.Value{value.Null{}, value.Float(0), value.Float(0)}, ""}, // nothing varies: no score, and no division by it
		{host(5, 1, 5, 9), nil, "has 2 series: none of fewer than three is an outlier"},
		{host(5, 1, 5, 9, math.NaN()), nil, "is NaN for one of its series"},
	} {
		d, err := call(t, "outliers", c.h, kit.Args{})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, scores(d), cmpopts.EquateApprox(1e-9, 0)); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
}
