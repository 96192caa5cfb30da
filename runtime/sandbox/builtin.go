package sandbox

import (
	"math"
	"strconv"

	"go.starlark.net/starlark"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// helpers are the pure functions that every file may use besides Starlark's own.
func helpers() starlark.StringDict {
	return starlark.StringDict{
		"round": starlark.NewBuiltin("round", round),
		"range": starlark.NewBuiltin("range", boundedRange),
	}
}

// round is Python's: half to even on the exact binary value; an int without n, a float with it.
func round(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	var digits starlark.Value = starlark.None
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "x", &x, "n?", &digits); err != nil {
		return nil, problem.New(problem.Argument, "%v", err).WithHint("write round(x) or round(x, 2)")
	}
	n := 0
	if digits != starlark.None {
		if err := starlark.AsInt(digits, &n); err != nil || n < 0 || n > 15 {
			return nil, problem.New(problem.Argument, "round: n must be an int from 0 to 15")
		}
	}
	if i, ok := x.(starlark.Int); ok {
		return i, nil
	}
	f, ok := x.(starlark.Float)
	if !ok || math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return nil, problem.New(problem.Argument, "round: x must be a finite number, got %s", x.Type())
	}
	r, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'f', n, 64), 64)
	if err != nil {
		return nil, err
	}
	if digits == starlark.None {
		return starlark.NumberToInt(starlark.Float(r))
	}
	return starlark.Float(r), nil
}

// boundedRange is Starlark's range for a number of elements that something can be done with in time: many builtins
// walk through a range without looking at any limit.
func boundedRange(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	x, err := starlark.Universe["range"].(*starlark.Builtin).CallInternal(thread, args, kwargs)
	if err != nil {
		return nil, err
	}
	if n := starlark.Len(x); n > maxRange {
		return nil, problem.New(problem.Limit, "range of %d elements: at most %d", n, maxRange)
	}
	return x, nil
}
