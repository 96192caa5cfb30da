package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"go.starlark.net/starlark"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/convert"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// namespace is a named, immutable set of attributes: ctx, a family, a module, ctx.target, ctx.params.
type namespace struct {
	name    string
	members map[string]starlark.Value
}

var _ starlark.HasAttrs = (*namespace)(nil)

// String implements starlark.Value.
func (n *namespace) String() string { return "<" + n.name + ">" }

// Type implements starlark.Value.
func (n *namespace) Type() string { return n.name }

// Freeze implements starlark.Value.
func (n *namespace) Freeze() {}

// Truth implements starlark.Value.
func (n *namespace) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (n *namespace) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: %s", n.name) }

// Attr implements starlark.HasAttrs.
func (n *namespace) Attr(name string) (starlark.Value, error) {
	if v, ok := n.members[name]; ok {
		return v, nil
	}
	return nil, convert.NoAttr(n.name, name, n.AttrNames())
}

// AttrNames implements starlark.HasAttrs.
func (n *namespace) AttrNames() []string {
	names := make([]string, 0, len(n.members))
	for name := range n.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// attributes makes a namespace of a Dict with text keys.
func attributes(name string, d value.Dict) (*namespace, error) {
	n := &namespace{name: name, members: make(map[string]starlark.Value, len(d))}
	for _, e := range d {
		key, ok := e.Key.(value.String)
		if !ok {
			return nil, fmt.Errorf("%s has a key that is not text", name)
		}
		x, err := convert.To(e.Value)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, key, err)
		}
		n.members[string(key)] = x
	}
	return n, nil
}

// context is ctx, by whatever name: the only thing through which a script sees and changes the world.
func (s *session) context(c *wire.Context, name string) (*namespace, error) {
	target, err := attributes("ctx.target", c.Target)
	if err != nil {
		return nil, err
	}
	params, err := attributes("ctx.params", c.Params)
	if err != nil {
		return nil, err
	}
	steps, err := convert.To(c.Steps)
	if err != nil {
		return nil, fmt.Errorf("ctx.steps: %w", err)
	}
	ctx := &namespace{name: "ctx", members: map[string]starlark.Value{
		"now": convert.Time(c.Now), "target": target, "params": params,
		"attempt": starlark.MakeInt(c.Attempt), "steps": steps,
	}}
	if c.Bare {
		ctx = &namespace{name: name, members: map[string]starlark.Value{}}
	}
	for _, f := range s.vocab.Families {
		members := ctx.members
		if f.Name != "" {
			n := &namespace{name: ctx.name + "." + f.Name, members: make(map[string]starlark.Value, len(f.Functions))}
			ctx.members[f.Name] = n
			members = n.members
		}
		for _, fn := range f.Functions {
			members[fn.Name] = s.function(f, fn, nil)
		}
	}
	return ctx, nil
}

// function is a query or an action: the engine is asked to do it. self is the record that it is a method of.
func (s *session) function(f kit.Family, fn kit.Function, self *convert.Record) *starlark.Builtin {
	name := fn.Name
	if f.Name != "" {
		name = f.Name + "." + fn.Name
	}
	var front value.Dict
	if self != nil {
		front = value.Dict{{Key: value.String(fn.Params[0].Name), Value: self.Value()}}
		fn.Params = fn.Params[1:]
	}
	return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		fields, pos, err := s.unpack(thread, name, fn, args, kwargs)
		if err != nil {
			return nil, err
		}
		call := wire.Call{Family: f.Name, Function: fn.Name, Pos: pos, Args: slices.Clone(front), Events: s.tracer.take()}
		for _, a := range fields {
			call.Args = append(call.Args, value.Entry{Key: value.String(a.Name), Value: a.Value})
		}
		answer, err := s.engine.call(call)
		if err != nil {
			return nil, err
		}
		x, err := convert.To(answer)
		if errors.Is(err, convert.ErrNotFinite) {
			return nil, problem.New(problem.NoData, "%s: %v", name, err).At(pos)
		} else if err != nil {
			return nil, fmt.Errorf("%s: answer: %w", name, err)
		}
		return s.withMethods(x), nil
	})
}

// withMethods gives an answer the functions that its type has.
func (s *session) withMethods(x starlark.Value) starlark.Value {
	rec, ok := x.(*convert.Record)
	if !ok {
		return x
	}
	for _, f := range s.vocab.Methods {
		if f.Name == rec.Type() {
			methods := make(map[string]starlark.Value, len(f.Functions))
			for _, fn := range f.Functions {
				methods[fn.Name] = s.function(f, fn, rec)
			}
			return rec.WithMethods(methods)
		}
	}
	return x
}
