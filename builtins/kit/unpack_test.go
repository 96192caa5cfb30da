package kit

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var restart = Function{Name: "restart", Kind: Action, Positional: 1, Params: []Param{
	{Name: "unit", Type: StringT, Required: true},
	{Name: "signal", Type: Int},
	{Name: "token", Type: StringT, Secret: true},
}}

var all = Function{Name: "all", Kind: Query, Params: []Param{
	{Name: "any", Type: Any},
	{Name: "string", Type: StringT},
	{Name: "int", Type: Int},
	{Name: "float", Type: Float},
	{Name: "number", Type: Number},
	{Name: "bool", Type: Bool},
	{Name: "duration", Type: Duration, Default: value.Duration(time.Minute)},
	{Name: "list", Type: List},
	{Name: "dict", Type: Dict},
	{Name: "labels", Type: Labels},
	{Name: "strings", Type: Strings},
	{Name: "trigger", Type: Any, Record: []string{"every", "alert"}},
	{Name: "params", Type: List, Record: []string{"param"}},
}}

func TestUnpackErrors(t *testing.T) {
	t.Parallel()
	str := func(s string) value.Value { return value.String(s) }
	reason := Arg{Name: "reason", Value: str("r")}
	for _, c := range []struct {
		fn   Function
		args []Arg
		want string // message | hint
	}{
		{restart, []Arg{{Value: str("a")}, {Name: "reson", Value: str("x")}}, `f has no argument "reson" (did you mean "reason"?)|`},
		{restart, []Arg{{Value: str("a")}, {Name: "timout", Value: str("x")}}, `f has no argument "timout" (did you mean "timeout"?)|`},
		{restart, []Arg{{Value: str("a")}}, `f needs reason|add reason=...: why, in words; kept in the record and shown to people`},
		{restart, []Arg{reason}, `f needs unit|`},
		{restart, []Arg{{Value: str("a")}, {Value: value.Int(9)}, reason}, `f takes one argument by position, the rest by name|write signal=9`},
		{restart, []Arg{{Value: str("a")}, {Name: "unit", Value: str("b")}}, `f: unit is given twice|`},
		{restart, []Arg{{Value: str("a")}, {Name: "cooldown", Value: str("5")}}, `f: cooldown must be a duration, got "5"|write cooldown="5s"`},
		{restart, []Arg{{Value: str("a")}, {Name: "cooldown", Value: value.Int(5)}}, `f: cooldown must be a duration, got 5|write cooldown="5s"`},
		{restart, []Arg{{Value: str("a")}, {Name: "cooldown", Value: str("soon")}}, `f: cooldown must be a duration, got "soon"|write it like cooldown="5m": units are ms, s, m, h, d, w`},
		{restart, []Arg{{Value: str("a")}, {Name: "token", Value: value.Int(1234)}}, `f: token must be a string, got a int|`},
		{restart, []Arg{{Value: value.Int(5)}}, `f: unit must be a string, got 5|write unit="5"`},
		{restart, []Arg{{Value: str("a")}, {Name: "signal", Value: str("9")}}, `f: signal must be an int, got "9"|write signal=9 without quotes`},
		{restart, []Arg{{Value: str("a")}, {Name: "signal", Value: value.Null{}}}, `f: signal must be an int, got None|leave signal out`},
		{all, []Arg{{Value: value.Int(1)}}, `f takes arguments by name only|write any=1`},
		{all, []Arg{{Name: "number", Value: value.Float(math.NaN())}}, `f: number must be a number, got NaN|`},
		{all, []Arg{{Name: "any", Value: value.Float(math.Inf(1))}}, `f: any must be a value, got +Inf|`},
		{all, []Arg{{Name: "bool", Value: str("true")}}, `f: bool must be True or False, got "true"|write bool=True`},
		{all, []Arg{{Name: "labels", Value: value.Dict{{Key: str("a"), Value: value.Int(1)}}}}, `f: labels must be a dict of strings to strings, got a dict|write the values as text, for example with str(x)`},
		{all, []Arg{{Name: "dict", Value: value.Dict{{Key: value.Int(1), Value: str("a")}}}}, `f: dict must be a dict with string keys, got a dict|`},
		{all, []Arg{{Name: "list", Value: str("a")}}, `f: list must be a list, got "a"|write list=["a"]`},
		{all, []Arg{{Name: "strings", Value: value.List{value.Int(1)}}}, `f: strings must be a string or a list of strings, got a list|`},
		{all, []Arg{{Name: "trigger", Value: str("1m")}}, `f: trigger must be every(...) or alert(...), got "1m"|`},
		{all, []Arg{{Name: "trigger", Value: &value.Record{Type: "fleet"}}}, `f: trigger must be every(...) or alert(...), got fleet(...)|`},
		{all, []Arg{{Name: "params", Value: value.List{&value.Record{Type: "fleet"}}}}, `f: params must be a list of param(...), got a list|`},
		{all, []Arg{{Name: "int", Value: value.Big("99999999999999999999")}}, `f: int must be an int, got an int beyond 64 bits|`},
		{all, []Arg{{Name: strings.Repeat("x", 9999), Value: str("")}}, `f has no argument "` + strings.Repeat("x", 60) + `..."|`},
	} {
		_, err := Unpack("f", c.fn, c.args)
		var p *problem.Problem
		if !errors.As(err, &p) {
			t.Errorf("want %q, got %v", c.want, err)
			continue
		}
		if d := cmp.Diff(c.want, p.Message+"|"+p.Hint); d != "" {
			t.Error(d)
		}
		if p.Code != problem.Argument || len(p.Detail) != 1 || !strings.HasPrefix(p.Detail[0], "usage: f(") {
			t.Errorf("%+v", p)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	want := "systemd.restart(unit, reason=..., [signal=..., token=..., cooldown=..., timeout=..., expect=..., within=..., must=...])"
	if got := Usage("systemd.restart", restart); got != want {
		t.Errorf("got %s", got)
	}
}

func TestUnpackOrder(t *testing.T) {
	t.Parallel()
	pos := value.Pos{File: "a.star", Line: 3, Col: 4}
	got, err := Unpack("f", restart, []Arg{{Name: "reason", Value: value.String("r"), Pos: pos}, {Name: "cooldown", Value: value.String("1h")}, {Name: "unit", Value: value.String("u")}})
	want := []value.Field{{Name: "unit", Value: value.String("u")}, {Name: "reason", Value: value.String("r"), Pos: pos}, {Name: "cooldown", Value: value.Duration(time.Hour)}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	got, err := Check(all, Args{"float": value.Int(2), "strings": value.String("x"), "trigger": &value.Record{Type: "every"}, "params": value.List{&value.Record{Type: "param.int"}}})
	want := Args{
		"float": value.Float(2), "strings": value.List{value.String("x")}, "duration": value.Duration(time.Minute),
		"trigger": &value.Record{Type: "every"}, "params": value.List{&value.Record{Type: "param.int"}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []Args{{"": value.Int(1)}, {"nope": value.Int(1)}, {"int": nil}, {"int": value.Float(1)}} {
		if _, err := Check(all, bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	// The zero kind is an action: it must not pass without a reason.
	if _, err := Check(Function{Name: "x"}, Args{}); err == nil {
		t.Error("an action without reason was accepted")
	}
}

func TestCheckRecord(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (Function, bool) {
		switch name {
		case "runbook":
			return Function{Name: name, Kind: Declare, Params: []Param{{Name: "trigger", Type: Any}, {Name: "owner", Type: StringT, Required: true}}}, true
		case "query":
			return Function{Name: name, Kind: Query}, true
		}
		return Function{}, false
	}
	rec := func(typ string, fields ...value.Field) *value.Record { return &value.Record{Type: typ, Fields: fields} }
	owner := value.Field{Name: "owner", Value: value.String("me")}
	if err := CheckRecord(rec("runbook", owner), lookup); err != nil {
		t.Error(err)
	}
	for _, r := range []*value.Record{
		nil,
		rec("nope"), rec("query"), rec("runbook"), rec("runbook", owner, owner),
		rec("runbook", value.Field{Value: value.String("x")}),
		rec("runbook", owner, value.Field{Name: "trigger", Value: rec("nope")}),
		rec("runbook", owner, value.Field{Name: "trigger", Value: value.List{value.Dict{{Key: value.Int(1), Value: rec("nope")}}}}),
	} {
		if err := CheckRecord(r, lookup); err == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
}
