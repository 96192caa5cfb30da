package metrics_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var at = time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC)

func host() *kittest.Host {
	sample := func(instance string, v float64) kit.Sample {
		return kit.Sample{Labels: map[string]string{"job": "w", "instance": instance}, Value: v, At: at}
	}
	return &kittest.Host{At: at, Vectors: map[string][]kit.Sample{
		"one":  {sample("a", 2.5)},
		"two":  {sample("b", 2), sample("a", 1)},
		"five": {sample("e", 2), sample("d", 1), sample("c", 1), sample("b", 1), sample("a", 1)},
		"nan":  {sample("a", math.NaN())},
		"inf":  {sample("a", math.Inf(-1))},
	}, Ranges: map[string][]kit.Series{
		"one": {{Labels: map[string]string{"instance": "a"}, Points: []kit.Point{{At: at.Add(-time.Minute), Value: 1}, {At: at.Add(-30 * time.Second), Value: math.NaN()}, {At: at, Value: 3}}}},
		"big": {{Points: make([]kit.Point, 30_000)}, {Points: make([]kit.Point, 30_000)}},
	}}
}

func TestValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr string
		def  value.Value
		want value.Value
	}{
		{"one", nil, value.Float(2.5)},
		{"one", value.Int(7), value.Float(2.5)},
		{"none", value.Int(7), value.Int(7)},
		{"none", value.Null{}, value.Null{}},
		{"nan", value.Float(0.5), value.Float(0.5)},
		{"inf", value.Float(0.5), value.Float(0.5)},
	} {
		args := kit.Args{"expr": value.String(c.expr)}
		if c.def != nil {
			args["default"] = c.def
		}
		got, err := kittest.Call(t, metrics.Family(), "value", host(), args)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.expr, err, diff)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	where := value.Strings(map[string]string{"job": "w"})
	for _, c := range []struct {
		function string
		args     kit.Args
		code     problem.Code
		want     string
		hint     string
	}{
		{"value", kit.Args{"expr": value.String("none"), "where": where}, problem.NoData, `metrics.value: "none" where {job="w"} has no data`, `check its name and labels; if no data is normal, pass default = ...`},
		{"value", kit.Args{"expr": value.String("nan")}, problem.NoData, `metrics.value: "nan" is NaN, which is not a measurement`, `a division by zero does that; pass default = ... to say what it means`},
		{"value", kit.Args{"expr": value.String("inf")}, problem.NoData, `metrics.value: "inf" is -Inf, which is not a measurement`, `a division by zero does that; pass default = ... to say what it means`},
		{"value", kit.Args{"expr": value.String("two"), "default": value.Int(0)}, problem.Query, `metrics.value: "two" gives 2 values, not one: {instance="a", job="w"}, {instance="b", job="w"}`, `choose one with where = {"instance": ...}, or put them together with sum(...), max(...) or avg(...)`},
		{"value", kit.Args{"expr": value.String("five")}, problem.Query, `metrics.value: "five" gives 5 values, not one: {instance="a", job="w"}, {instance="b", job="w"}, {instance="c", job="w"} and 2 more`, `choose one with where = {"instance": ...}, or put them together with sum(...), max(...) or avg(...)`},
		{"value", kit.Args{"expr": value.String("one"), "default": value.String("0")}, problem.Argument, `metrics.value: default must be a number or None, got a string`, ``},
		{"vector", kit.Args{"expr": value.String("nan")}, problem.NoData, `metrics.vector: "nan" is NaN for {instance="a", job="w"}, which is not a measurement`, `leave such series out of the query, for example by comparing the divisor: ... / (b > 0)`},
		{"range", kit.Args{"expr": value.String("one"), "window": value.String("0s")}, problem.Argument, `metrics.range: window must be longer than 0s`, ``},
		{"range", kit.Args{"expr": value.String("one"), "window": value.String("1m"), "step": value.String("2m")}, problem.Argument, `metrics.range: step must be longer than 0s and at most the window of 1m, got 2m`, ``},
		{"range", kit.Args{"expr": value.String("big"), "window": value.String("1m")}, problem.Query, `metrics.range: "big" gives more than 50000 points`, `use a longer step, a shorter window or fewer series; max_over_time(...) and its like need one value only`},
	} {
		_, err := kittest.Call(t, metrics.Family(), c.function, host(), c.args)
		var p *problem.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		if diff := cmp.Diff([]string{string(c.code), c.want, c.hint}, []string{string(p.Code), p.Message, p.Hint}); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSourceErrorsPass(t *testing.T) {
	t.Parallel()
	for _, fn := range []string{"value", "vector", "range"} {
		h := host()
		h.Err = errors.New("timeout")
		args := kit.Args{"expr": value.String("one")}
		if fn == "value" {
			args["default"] = value.Int(0)
		}
		if fn == "range" {
			args["window"] = value.Duration(time.Hour)
		}
		if _, err := kittest.Call(t, metrics.Family(), fn, h, args); !errors.Is(err, h.Err) {
			t.Errorf("%s: %v: a failed query must not become the default", fn, err)
		}
	}
}

func TestVectorAndRange(t *testing.T) {
	t.Parallel()
	h := host()
	got, err := kittest.Call(t, metrics.Family(), "vector", h, kit.Args{"expr": value.String("two"), "where": value.Strings(map[string]string{"job": "w"})})
	entry := func(instance string, v float64) value.Value {
		return value.Dict{
			{Key: value.String("labels"), Value: value.Strings(map[string]string{"instance": instance, "job": "w"})},
			{Key: value.String("value"), Value: value.Float(v)},
		}
	}
	if diff := cmp.Diff(value.Value(value.List{entry("a", 1), entry("b", 2)}), got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if got, err := kittest.Call(t, metrics.Family(), "vector", h, kit.Args{"expr": value.String("none")}); err != nil || len(got.(value.List)) != 0 {
		t.Errorf("no data: %v, %v", got, err)
	}
	got, err = kittest.Call(t, metrics.Family(), "range", h, kit.Args{"expr": value.String("one"), "window": value.String("1h")})
	if err != nil {
		t.Fatal(err)
	}
	points, _ := got.(value.List)[0].(value.Dict).Get("points")
	if len(points.(value.List)) != 2 {
		t.Errorf("NaN is not left out: %v", points)
	}
	want := []kittest.Question{{Expr: "two", Where: map[string]string{"job": "w"}}, {Expr: "none"}, {Expr: "one", Window: time.Hour}}
	if diff := cmp.Diff(want, h.Asked); diff != "" {
		t.Error(diff)
	}
}
