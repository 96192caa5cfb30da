package testrun

import (
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSame(t *testing.T) {
	t.Parallel()
	list := func(v ...value.Value) value.Value { return value.List(v) }
	dict := func(k string, v value.Value) value.Dict { return value.Dict{{Key: value.String(k), Value: v}} }
	for _, x := range []struct {
		a, b value.Value
		want bool
	}{
		{value.Int(1), value.Float(1), true},
		{value.Int(1), value.Float(1.5), false},
		{value.Int(1), value.String("1"), false},
		{value.Bool(true), value.Int(1), false},
		{value.Null{}, value.Null{}, true},
		{value.Null{}, value.Bool(false), false},
		{list(value.Int(1), value.Int(2)), list(value.Int(2), value.Int(1)), false},
		{list(value.Int(1)), list(value.Int(1), value.Int(1)), false},
		{append(dict("a", value.Int(1)), dict("b", value.Int(2))...), append(dict("b", value.Int(2)), dict("a", value.Int(1))...), true},
		{dict("a", value.Int(1)), dict("a", value.Int(2)), false},
		{dict("a", value.Int(1)), dict("b", value.Int(1)), false},
		{value.Duration(5 * time.Minute), value.String("5m"), true},
		{value.String("300s"), value.Duration(5 * time.Minute), true},
		{value.Duration(5 * time.Minute), value.String("soon"), false},
		{value.Time(Beginning), value.Time(Beginning.In(time.FixedZone("", 3600))), true},
		{value.Bytes("a"), value.Bytes("a"), true},
		{record("x", "a", value.Int(1)), record("x", "a", value.Float(1)), true},
		{record("x", "a", value.Int(1)), record("y", "a", value.Int(1)), false},
		{record("x", "a", value.Int(1)), record("x", "a", value.Int(1), "b", value.Int(1)), false},
	} {
		if got := same(x.a, x.b); got != x.want {
			t.Errorf("%s and %s: %v", show(x.a), show(x.b), got)
		}
		if got := same(x.b, x.a); got != x.want {
			t.Errorf("%s and %s: %v", show(x.b), show(x.a), got)
		}
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	got := difference(value.List{value.Int(1), value.Int(2), value.Int(2)}, value.List{value.Int(2), value.Int(3)})
	if want := "\n  - 3\n  + 1\n  + 2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := difference(value.List{value.Int(1), value.Int(2)}, value.List{value.Int(2), value.Int(1)}); got != "\n  the same, in another order" {
		t.Errorf("%q", got)
	}
}

func TestCoverage(t *testing.T) {
	t.Parallel()
	c := Coverage{}
	at := place{2, 8}
	f := c.file("a.star")
	f.Statements[1], f.Statements[2] = true, false
	f.arm(at, Arms{Source: "x > 1", True: true})
	f.action(place{3, 5}, ActionArm{Action: "exec.run", OK: true})
	if covered, all := f.Points(); covered != 3 || all != 6 {
		t.Errorf("%d of %d", covered, all)
	}
	whats := func() (out []string) {
		for _, g := range c.Gaps("a.star") {
			out = append(out, g.Pos.String()+" "+g.What)
		}
		return out
	}
	if got := whats(); len(got) != 3 || got[0] != "a.star:2 never ran" || got[1] != "a.star:2:8 x > 1 was never false" || got[2] != "a.star:3:5 exec.run never failed" {
		t.Errorf("%q", got)
	}
	o := Coverage{}
	f = o.file("a.star")
	f.Statements[1], f.Statements[2] = false, true
	f.arm(at, Arms{Source: "x > 1", False: true})
	f.action(place{3, 5}, ActionArm{Action: "exec.run", Failed: true})
	c.Merge(o)
	if got := whats(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
