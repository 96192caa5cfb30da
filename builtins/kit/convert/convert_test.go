package convert

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func eval(t *testing.T, expr string, env starlark.StringDict) starlark.Value {
	t.Helper()
	v, err := starlark.EvalOptions(&syntax.FileOptions{Set: true}, &starlark.Thread{}, "x.star", expr, env)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return v
}

func TestFromTo(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 10, 20, 0, 5, time.UTC)
	in := value.Dict{
		{Key: value.String("z"), Value: value.List{value.Null{}, value.Bool(true), value.Int(-3), value.Big("123456789012345678901"), value.Float(1.5)}},
		{Key: value.List{value.Int(1), value.List{value.Int(2)}}, Value: value.Bytes("\xff")},
		{Key: value.String("d"), Value: value.Duration(5 * time.Minute)},
		{Key: value.String("t"), Value: value.Time(now)},
		{Key: value.String("r"), Value: &value.Record{Type: "every", Pos: value.Pos{File: "f", Line: 1}, Fields: []value.Field{{Name: "interval", Value: value.Duration(time.Minute)}}}},
	}
	x, err := To(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.(*starlark.Dict).SetKey(starlark.None, starlark.None); err == nil {
		t.Error("the value is not frozen")
	}
	out, err := From(x)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(value.Value(in), out, cmp.Comparer(func(a, b value.Time) bool { return time.Time(a).Equal(time.Time(b)) })); d != "" {
		t.Error(d)
	}
	env := starlark.StringDict{"x": x}
	for expr, want := range map[string]string{
		`x["t"].unix`: "1772360400", `x["t"].weekday`: `"Sunday"`, `x["t"] == x["t"]`: "True", `str(x["t"])`: `"2026-03-01T10:20:00.000000005Z"`,
		`x["d"].seconds`: "300.0", `x["d"] < x["d"]`: "False", `"%s" % x["d"]`: `"5m"`,
		`x["r"].interval`: "1m", `x["r"]`: "every(interval=1m)", `bool(x["r"])`: "True", `type(x["r"])`: `"every"`,
	} {
		if got := Render(eval(t, expr, env), 100); got != want {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
	for expr, want := range map[string]string{
		`x["t"].uniks`:  `a time has no .uniks (did you mean "unix"?)`,
		`x["r"].intrvl`: `every(...) has no .intrvl (did you mean "interval"?)`,
	} {
		_, err := starlark.EvalOptions(&syntax.FileOptions{}, &starlark.Thread{}, "x.star", expr, env)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", expr, err, want)
		}
	}
}

func TestTruthOfResult(t *testing.T) {
	t.Parallel()
	for _, ok := range []bool{true, false} {
		r, err := NewRecord(&value.Record{Type: "result", Fields: []value.Field{{Name: "ok", Value: value.Bool(ok)}}})
		if err != nil || bool(r.Truth()) != ok {
			t.Errorf("ok=%v: truth %v, %v", ok, r.Truth(), err)
		}
	}
}

func TestToRefuses(t *testing.T) {
	t.Parallel()
	for _, v := range []value.Value{
		value.Float(math.NaN()),
		value.List{value.Float(math.Inf(-1))},
		&value.Record{Fields: []value.Field{{Name: "x", Value: value.Float(math.NaN())}}},
	} {
		if _, err := To(v); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%v: got %v", v, err)
		}
	}
	deep := value.Value(value.Int(1))
	for range 70 {
		deep = value.List{deep}
	}
	if _, err := To(deep); err == nil {
		t.Error("a deep list was accepted")
	}
}

func TestFromRefuses(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{
		`lambda: 1`, `len`, `"".join`, `[len]`, `{1: len}`, `1 << 500 << 500 << 500 << 500 << 500 << 500 << 500 << 500 << 500`,
		`["x" * 100000] * 100`, `[1] * 200000`, `range(1 << 40)`, `"é"[:1]`,
	} {
		if v, err := From(eval(t, expr, nil)); err == nil {
			t.Errorf("%s became %T", expr, v)
		}
	}
	bomb, cyclic := bomb(), starlark.NewList(nil)
	if err := cyclic.Append(cyclic); err != nil {
		t.Fatal(err)
	}
	rec := &Record{rec: &value.Record{Type: "r"}}
	for range 4 {
		inner := make(value.List, 100)
		for i := range inner {
			inner[i] = rec.rec
		}
		rec = &Record{rec: &value.Record{Type: "r", Fields: []value.Field{{Name: "all", Value: inner}}}}
	}
	if _, err := From(rec); err == nil {
		t.Error("a bomb of records was converted")
	}
	for _, x := range []starlark.Value{bomb, cyclic} {
		if _, err := From(x); err == nil {
			t.Error("a bomb was converted")
		}
		if s := Render(x, 100); len(s) > 110 {
			t.Errorf("rendered %d bytes", len(s))
		}
	}
}

// bomb is a list of 100 times 100 times ... elements that shares everything.
func bomb() starlark.Value {
	var x starlark.Value = starlark.MakeInt(1)
	for range 8 {
		elems := make([]starlark.Value, 100)
		for i := range elems {
			elems[i] = x
		}
		x = starlark.NewList(elems)
	}
	return x
}

func TestRender(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		`[1, (2,), (), {"a": None}, set([1])]`: `[1, (2,), (), {"a": None}, set([1])]`,
		`"x" * 1000`:                           `"` + strings.Repeat("x", 39) + `...`,
		`1 << 400`:                             `<int of 401 bits>`,
		`len`:                                  `<function len>`,
		`b"ab"`:                                `<2 bytes>`,
		`"é" * 100`:                            `"` + strings.Repeat("é", 19) + `...`,
	} {
		if got := Render(eval(t, expr, nil), 40); got != want {
			t.Errorf("%s: got %s, want %s", expr, got, want)
		}
	}
}
