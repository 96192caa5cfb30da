// Package state is the family ctx.state: what a runbook remembers about a target from one run to the next.
//
// Promise: what set has returned from is durable, whatever becomes of the run. A dry run writes nothing.
package state

import (
	"context"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// The bounds of what is remembered about one target.
const (
	MaxKeys  = 32
	MaxValue = 4 << 10 // bytes of its JSON
)

// Family returns the table.
func Family() kit.Family {
	key := kit.Param{Name: "key", Type: kit.StringT, Required: true, Doc: "a name, at most 100 characters"}
	return kit.Family{
		Name: "state", Doc: "Remembers values about ctx.target from one run of this runbook to the next.",
		Functions: []kit.Function{
			{
				Name: "get", Kind: kit.Query, Positional: 1, Returns: kit.Any, Call: get, Doc: "Returns what was set, or default. A value of another type than the default is an error.",
				Params: []kit.Param{key, {Name: "default", Type: kit.Any, Doc: "what is returned if nothing was set; None if not given"}},
			},
			{
				Name: "set", Kind: kit.Query, Positional: 1, Call: set, Doc: "Remembers a value, durably and at once: a number, a text, True or False, a time, a duration, or a list of these. None forgets the key. At most 32 keys of 4 KiB.",
				Params: []kit.Param{key, {Name: "value", Type: kit.Any, Required: true, Doc: "the value"}},
			},
		},
	}
}

func keyOf(args kit.Args) (string, error) {
	k, _ := args["key"].(value.String)
	if k == "" || len(k) > 100 {
		return "", problem.New(problem.Argument, "state: a key has 1 to 100 characters, got %d", len(k))
	}
	return string(k), nil
}

func get(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	s, err := from(h)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(args)
	if err != nil {
		return nil, err
	}
	def, given := args["default"]
	if !given {
		def = value.Null{}
	}
	v, ok, err := s.Get(ctx, key)
	if err != nil || !ok {
		return def, err
	}
	if _, none := def.(value.Null); !none && !alike(v, def) {
		return nil, problem.New(problem.Argument, "state.get: %q holds a %s, and the default is a %s", key, v.Kind(), def.Kind()).
			WithHint("choose another key, or set it to None once")
	}
	return v, nil
}

// alike says whether two values are of one type; an int and a float are.
func alike(a, b value.Value) bool {
	number := func(v value.Value) bool { return v.Kind() == value.Int(0).Kind() || v.Kind() == value.Float(0).Kind() }
	return a.Kind() == b.Kind() || number(a) && number(b)
}

func set(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	s, err := from(h)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(args)
	if err != nil {
		return nil, err
	}
	v := args["value"]
	if !plain(v, true) {
		return nil, problem.New(problem.Argument, "state.set: %q cannot be a %s", key, v.Kind()).WithHint("remember a number, a text, True or False, a time, a duration, or a list of these")
	}
	text, err := value.Marshal(v)
	if err != nil || len(text) > MaxValue {
		return nil, problem.New(problem.Argument, "state.set: the value of %q has %d bytes, at most %d are kept", key, len(text), MaxValue)
	}
	return value.Null{}, s.Set(ctx, key, v)
}

// plain says whether a value is one that can be remembered.
func plain(v value.Value, list bool) bool {
	switch v := v.(type) {
	case value.Null, value.Bool, value.Int, value.Float, value.String, value.Time, value.Duration:
		return true
	case value.List:
		for _, x := range v {
			if !list || !plain(x, false) {
				return false
			}
		}
		return list
	}
	return false
}

func from(h kit.Host) (kit.State, error) {
	m, ok := h.(kit.State)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.state is not answered here")
	}
	return m, nil
}
