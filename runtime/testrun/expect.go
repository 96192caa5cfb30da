package testrun

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/convert"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// shown is how long a value may be in a message.
const shown = 2000

// show renders a value as a test would write it.
func show(v value.Value) string {
	if r, ok := v.(*value.Record); ok && r.Type == typeAction {
		return showAction(r)
	}
	if l, ok := v.(value.List); ok {
		parts := make([]string, len(l))
		for i, x := range l {
			parts[i] = show(x)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	x, err := convert.To(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return convert.Render(x, shown)
}

func showAction(r *value.Record) string {
	name, _ := r.Get("name")
	args, _ := r.Get("args")
	d, _ := args.Value.(value.Dict)
	parts := make([]string, 0, len(d))
	for _, e := range d {
		key, _ := e.Key.(value.String)
		parts = append(parts, string(key)+"="+show(e.Value))
	}
	n, _ := name.Value.(value.String)
	return string(n) + "(" + strings.Join(parts, ", ") + ")"
}

// same compares. An int and a float that are equal are the same, and so are dicts in another order.
func same(a, b value.Value) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case value.List:
		b, ok := b.(value.List)
		return ok && slices.EqualFunc(a, b, same)
	case value.Dict:
		b, ok := b.(value.Dict)
		if !ok || len(a) != len(b) {
			return false
		}
		for _, e := range a {
			i := slices.IndexFunc(b, func(x value.Entry) bool { return same(x.Key, e.Key) })
			if i < 0 || !same(e.Value, b[i].Value) {
				return false
			}
		}
		return true
	case *value.Record:
		b, ok := b.(*value.Record)
		if !ok || a.Type != b.Type || len(a.Fields) != len(b.Fields) {
			return false
		}
		for _, f := range a.Fields {
			g, has := b.Get(f.Name)
			if !has || !same(f.Value, g.Value) {
				return false
			}
		}
		return true
	case value.Bytes:
		b, ok := b.(value.Bytes)
		return ok && string(a) == string(b)
	case value.Time:
		b, ok := b.(value.Time)
		return ok && time.Time(a).Equal(time.Time(b))
	case value.Duration:
		if s, ok := b.(value.String); ok { // as a runbook writes it
			d, err := value.ParseDuration(string(s))
			return err == nil && d == time.Duration(a)
		}
	case value.String:
		if d, ok := b.(value.Duration); ok {
			return same(d, a)
		}
	}
	return a == b
}

func number(v value.Value) (float64, bool) {
	switch v := v.(type) {
	case value.Int:
		return float64(v), true
	case value.Float:
		return float64(v), true
	}
	return 0, false
}

// contains says whether a list has an element, a dict a key, or a text a part. The error says that none of these is meant.
func contains(v, part value.Value) (bool, error) {
	switch v := v.(type) {
	case value.List:
		return slices.ContainsFunc(v, func(x value.Value) bool { return same(x, part) }), nil
	case value.Dict:
		return slices.ContainsFunc(v, func(x value.Entry) bool { return same(x.Key, part) }), nil
	case value.String:
		if s, ok := part.(value.String); ok {
			return strings.Contains(string(v), string(s)), nil
		}
		return false, fmt.Errorf("a text contains text, not a %s", part.Kind())
	}
	return false, fmt.Errorf("a %s contains nothing", v.Kind())
}

// difference says what is missing and what is too much, for lists that differ in more than their order.
func difference(got, want value.Value) string {
	g, ok := got.(value.List)
	w, both := want.(value.List)
	if !ok || !both {
		return ""
	}
	missing, surplus := slices.Clone(w), value.List{}
	for _, x := range g {
		if i := slices.IndexFunc(missing, func(y value.Value) bool { return same(x, y) }); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
		} else {
			surplus = append(surplus, x)
		}
	}
	var b strings.Builder
	for _, x := range missing {
		fmt.Fprintf(&b, "\n  - %s", show(x))
	}
	for _, x := range surplus {
		fmt.Fprintf(&b, "\n  + %s", show(x))
	}
	if b.Len() == 0 {
		return "\n  the same, in another order"
	}
	return b.String()
}

// normal gives the actions in a value the form in which a run shows them: all arguments by name, with their defaults.
func (h *host) normal(v value.Value) (value.Value, error) {
	switch v := v.(type) {
	case value.List:
		out := make(value.List, len(v))
		for i, x := range v {
			var err error
			if out[i], err = h.normal(x); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *value.Record:
		if v.Type == typeAction {
			return h.normalAction(v)
		}
	}
	return v, nil
}

func (h *host) normalAction(r *value.Record) (value.Value, error) {
	name, _ := r.Get("name")
	full, _ := name.Value.(value.String)
	fn, err := h.fn(string(full))
	if err != nil {
		return nil, err
	}
	params := slices.DeleteFunc(slices.Clone(fn.Params), func(p kit.Param) bool {
		return slices.ContainsFunc(kit.ReservedActionParams(), func(r kit.Param) bool { return r.Name == p.Name })
	})
	args := kit.Args{}
	if given, ok := r.Get("args"); ok {
		d, _ := given.Value.(value.Dict)
		for _, e := range d {
			key, _ := e.Key.(value.String)
			args[string(key)] = e.Value
		}
	}
	if first, ok := r.Get("first"); ok {
		if fn.Positional == 0 || len(params) == 0 {
			return nil, fmt.Errorf("%s takes nothing by position", full)
		}
		args[params[0].Name] = first.Value
	}
	for _, p := range params {
		if _, given := args[p.Name]; given && p.Secret { // a run does not show it either
			args[p.Name] = value.String("(hidden)")
		}
	}
	whole, err := kit.Check(kit.Function{Name: string(full), Kind: kit.Query, Params: params}, args)
	if err != nil {
		return nil, err
	}
	return record(typeAction, "name", full, "args", value.Map(whole)), nil
}
