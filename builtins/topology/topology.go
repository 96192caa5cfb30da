// Package topology is the family ctx.topology: which component needs which, and how those are.
//
// Promise: a component of which nothing is known is an error and never healthy or sick.
package topology

import (
	"context"
	"math"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	component := kit.Param{Name: "component", Type: kit.StringT, Doc: "a component of topology.star; that of ctx.target if not given"}
	return kit.Family{
		Name: "topology", Doc: "Reads topology.star: which component needs which, and by which symptom each is sick. A target's component is its label component, or the one that policy(component=) names.",
		Functions: []kit.Function{
			{Name: "upstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: around(false), Doc: "Returns the components that it needs, directly and through others, the nearest first.", Params: []kit.Param{component}},
			{Name: "downstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: around(true), Doc: "Returns the components that need it, directly and through others, the nearest first.", Params: []kit.Param{component}},
			{
				Name: "sick", Kind: kit.Query, Positional: 1, Returns: kit.Dict, Call: sick,
				Doc:    `Returns {"sick": 2, "of": 5, "all": False}: how many series of the component's symptom hold now. A component without data is an error.`,
				Params: []kit.Param{component},
			},
			{
				Name: "sick_upstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: sickUpstream,
				Doc:    "Returns those of upstream(component) of which anything is sick, the nearest first. Components without a symptom in topology.star are left out; one without data is an error.",
				Params: []kit.Param{component},
			},
		},
	}
}

// named is the component that is asked about.
func named(t kit.Topology, args kit.Args) (string, error) {
	if c, ok := args["component"].(value.String); ok {
		return string(c), nil
	}
	return t.Component()
}

func around(down bool) func(context.Context, kit.Host, kit.Args) (value.Value, error) {
	return func(_ context.Context, h kit.Host, args kit.Args) (value.Value, error) {
		t, err := from(h)
		if err != nil {
			return nil, err
		}
		c, err := named(t, args)
		if err != nil {
			return nil, err
		}
		all, err := t.Around(c, down)
		return list(all), err
	}
}

func list(all []string) value.List {
	out := value.List{}
	for _, x := range all {
		out = append(out, value.String(x))
	}
	return out
}

func sick(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	t, err := from(h)
	if err != nil {
		return nil, err
	}
	c, err := named(t, args)
	if err != nil {
		return nil, err
	}
	n, of, known, err := count(ctx, h, t, c)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, problem.New(problem.Argument, "topology.sick: topology.star says no symptom of %q", c).WithHint("add it: component(%q, sick = \"...\")", c)
	}
	return value.Dict{
		{Key: value.String("sick"), Value: value.Int(n)}, {Key: value.String("of"), Value: value.Int(of)}, {Key: value.String("all"), Value: value.Bool(n == of)},
	}, nil
}

func sickUpstream(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	t, err := from(h)
	if err != nil {
		return nil, err
	}
	c, err := named(t, args)
	if err != nil {
		return nil, err
	}
	all, err := t.Around(c, false)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, up := range all {
		n, _, _, err := count(ctx, h, t, up)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			found = append(found, up)
		}
	}
	return list(found), nil
}

// count is how many series of a component's symptom hold, and of how many; known says that it has a symptom.
func count(ctx context.Context, h kit.Host, t kit.Topology, component string) (n, of int, known bool, err error) {
	expr, holds, err := t.Sick(component)
	if err != nil || expr == "" {
		return 0, 0, false, err
	}
	samples, err := h.Metrics().Instant(ctx, expr, nil)
	if err != nil {
		return 0, 0, true, err
	}
	if len(samples) == 0 {
		return 0, 0, true, problem.New(problem.NoData, "nothing is known of %s: %s has no data", component, expr).WithHint("check its symptom in topology.star")
	}
	for _, s := range samples {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			return 0, 0, true, problem.New(problem.NoData, "%s of %s is %v, which is not a measurement", expr, component, s.Value)
		}
		if holds(s.Value) {
			n++
		}
	}
	return n, len(samples), true, nil
}

func from(h kit.Host) (kit.Topology, error) {
	m, ok := h.(kit.Topology)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.topology is not answered here")
	}
	return m, nil
}
