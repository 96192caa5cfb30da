package project

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Whatever a worker sends, decoding ends in settings that keep their ranges, or in a problem.
func TestHostileRecords(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	values := []value.Value{
		nil,
		value.Null{},
		value.Bool(true), value.Int(-1), value.Int(1 << 62), value.Big("99999999999999999999"), value.Float(1e300), value.String(strings.Repeat("x", 1<<16)),
		value.String(""), value.Bytes("x"), value.Duration(-1), value.Time(time.Time{}),
		value.List{nil},
		value.List{value.Null{}},
		value.Dict{{}},
		value.Dict{{Key: value.Int(1), Value: nil}},
		(*value.Record)(nil), &value.Record{}, &value.Record{Type: "fleet"}, &value.Record{Type: "param.int"}, &value.Record{Type: "secret.env", Fields: []value.Field{{Name: "name"}}},
		value.List{(*value.Record)(nil)},
		value.Dict{{Key: value.String("a"), Value: (*value.Record)(nil)}},
		value.List{&value.Record{Type: "connection"}},
	}
	lookup := func(name string) kit.Function {
		for _, v := range []sandbox.Vocabulary{Vocabulary(Families()), vocabulary()} {
			if fn, ok := declaration(v)(name); ok {
				return fn
			}
		}
		t.Fatalf("no declaration %s", name)
		return kit.Function{}
	}
	project := func(args ...any) func(*value.Record) error {
		return func(r *value.Record) error {
			_, err := settings(t, with(args, args[0], wrap(args[1], r))...)
			return err
		}
	}
	runbook := func(args ...any) func(*value.Record) error {
		return func(r *value.Record) error {
			_, err := decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", with(runbookArgs(), args[0], wrap(args[1], r))...)))
			return err
		}
	}
	for _, c := range []struct {
		typ    string
		base   []any
		decode func(*value.Record) error
	}{
		{"project", []any{"metrics", prometheus()}, func(r *value.Record) error {
			_, err := decodeSettings("/srv/ops", sandbox.Module{Records: []*value.Record{inProject(r)}})
			return err
		}},
		{"connection", []any{"plugin", "p", "match", dict{"a": "b"}}, project("connections", []any{})},
		{"policy", nil, project("policy", nil)},
		{"rate", []any{"count", 1, "per", "1h"}, func(r *value.Record) error { return project("policy", nil)(rec("policy", "rates", []any{r})) }},
		{"webhook", []any{"url", "https://x/"}, project("notify", []any{})},
		{"limits", nil, project("limits", nil)},
		{"secret.env", []any{"name", "X"}, project("heartbeat_url", nil)},
		{"runbook", runbookArgs(), func(r *value.Record) error {
			_, err := decodeRunbook(s, "x.star", vocabulary(), module(r))
			return err
		}},
		{"every", []any{"interval", "1m"}, runbook("trigger", nil)},
		{"fleet", fleetArgs, runbook("targets", nil)},
		{"single", []any{"name", "x", "sick", "a > 1"}, runbook("targets", nil)},
		{"param.int", []any{"default", 1}, runbook("params", dict{})},
		{"param.float", []any{"default", 1.5}, runbook("params", dict{})},
		{"param.duration", []any{"default", "1m"}, runbook("params", dict{})},
	} {
		if err := c.decode(rec(c.typ, c.base...)); err != nil {
			t.Errorf("%s: the base is refused: %v", c.typ, err)
		}
		for _, p := range append(lookup(c.typ).Params, kit.Param{Name: "unheard_of"}) {
			for _, v := range values {
				r := rec(c.typ, with(c.base, p.Name, nil)...)
				r.Fields = append(r.Fields, value.Field{Name: p.Name, Value: v})
				err := c.decode(r)
				var pr *problem.Problem
				if err != nil && (!errors.As(err, &pr) || len(pr.Message) > 4*maxWords) {
					t.Errorf("%s: %s = %.40v: %.200v", c.typ, p.Name, v, err)
				}
			}
		}
	}
}

// wrap puts a record where it belongs: in a list, as the parameter limit, or bare.
func wrap(in any, r *value.Record) any {
	switch in.(type) {
	case []any:
		return []any{r}
	case dict:
		return dict{"limit": r}
	}
	return r
}
