// Package topology is the family ctx.topology: which component needs which, and how those are.
//
// Promise: a component, or a part of one, of which nothing is known is an error, unless the runbook says what to take it for. How many parts there should
// be is said in topology.star and never read out of how many answered.
package topology

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	component := kit.Param{Name: "component", Type: kit.StringT, Doc: "a component of topology.star; that of ctx.target if not given"}
	unknown := kit.Param{Name: "default", Type: kit.Bool, Doc: "what to take a part for of which nothing is known, sick or not; an error if not given"}
	return kit.Family{
		Name: "topology", Doc: "Reads topology.star: which component needs which, and by which symptom each is sick. A target's component is its label component, or the one that policy(component=) names.",
		Functions: []kit.Function{
			{Name: "upstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: around(false), Doc: "Returns the components that it needs, directly and through others, the nearest first.", Params: []kit.Param{component}},
			{Name: "downstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: around(true), Doc: "Returns the components that need it, directly and through others, the nearest first.", Params: []kit.Param{component}},
			{
				Name: "sick", Kind: kit.Query, Positional: 1, Returns: kit.Dict, Call: sick,
				Doc:    `Returns {"sick": 2, "of": 5, "all": False}: how many parts of the component are sick now, of how many. A part of which nothing is known is an error, unless default is given.`,
				Params: []kit.Param{component, unknown},
			},
			{
				Name: "sick_upstream", Kind: kit.Query, Positional: 1, Returns: kit.Strings, Call: sickUpstream,
				Doc:    "Returns those of upstream(component) of which any part is sick, the nearest first. A component, or a part of one, of which nothing is known is an error, unless default is given.",
				Params: []kit.Param{component, unknown},
			},
		},
	}
}

func around(down bool) func(context.Context, kit.Host, kit.Args) (value.Value, error) {
	return func(_ context.Context, h kit.Host, args kit.Args) (value.Value, error) {
		t, err := from(h)
		if err != nil {
			return nil, err
		}
		c, _ := args["component"].(value.String)
		all, err := t.Around(string(c), down)
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
	named, _ := args["component"].(value.String)
	component := string(named)
	if component == "" {
		if component, err = t.Component(); err != nil {
			return nil, err
		}
	}
	c, err := look(ctx, h, t, component)
	if err != nil {
		return nil, err
	}
	n, err := c.sickOr(args)
	if err != nil {
		return nil, err
	}
	return value.Dict{
		{Key: value.String("sick"), Value: value.Int(n)}, {Key: value.String("of"), Value: value.Int(c.of)}, {Key: value.String("all"), Value: value.Bool(n == c.of)},
	}, nil
}

func sickUpstream(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	t, err := from(h)
	if err != nil {
		return nil, err
	}
	named, _ := args["component"].(value.String)
	all, err := t.Around(string(named), false)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, up := range all {
		c, err := look(ctx, h, t, up)
		if err != nil {
			return nil, err
		}
		n, err := c.sickOr(args)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			found = append(found, up)
		}
	}
	return list(found), nil
}

// count is how many parts of a component there are, how many of those are sick, and why nothing is known of the others.
type count struct {
	sick, unknown, of int
	why               error // nil exactly if unknown is 0
}

// sickOr is how many parts are sick if those of which nothing is known are what the argument default says.
func (c count) sickOr(args kit.Args) (int, error) {
	d, given := args["default"].(value.Bool)
	switch {
	case c.unknown == 0:
		return c.sick, nil
	case !given:
		return 0, c.why
	case bool(d):
		return c.sick + c.unknown, nil
	}
	return c.sick, nil
}

// look asks how the parts of a component are.
func look(ctx context.Context, h kit.Host, t kit.Topology, component string) (count, error) {
	s, err := t.Symptom(component)
	if err != nil {
		return count{}, err
	}
	if s.Holds == nil {
		return count{unknown: 1, of: 1, why: problem.New(problem.NoData, "nothing is known of %s: topology.star says no symptom of it", component).
			WithHint("add it: component(%q, sick = \"...\"); or say in the call what to take it for: default = True or False", component)}, nil
	}
	samples, err := h.Metrics().Instant(ctx, s.Expr, nil)
	if err != nil {
		return count{}, err
	}
	if s.All == "" {
		return whole(component, s, samples)
	}
	all, err := h.Metrics().Instant(ctx, s.All, nil)
	if err != nil {
		return count{}, err
	}
	return parts(component, s, all, samples)
}

// whole judges a component by the one answer that its symptom has.
func whole(component string, s kit.Symptom, samples []kit.Sample) (count, error) {
	const hint = "check its symptom in topology.star; or say in the call what to take it for: default = True or False"
	switch {
	case len(samples) > 1:
		return count{}, problem.New(problem.Query, "the symptom of %s has %d answers, and nothing says how many there should be: %s", component, len(samples), s.Expr).
			WithHint(`say in topology.star who belongs to it, all = "up{...}" and by = "instance"; or put them together: max(...), sum(...)`)
	case len(samples) == 0:
		return count{unknown: 1, of: 1, why: problem.New(problem.NoData, "nothing is known of %s: %s has no data", component, s.Expr).WithHint(hint)}, nil
	case !measured(samples[0]):
		return count{unknown: 1, of: 1, why: problem.New(problem.NoData, "nothing is known of %s: %s is %v, which is not a measurement", component, s.Expr, samples[0].Value).WithHint(hint)}, nil
	case s.Holds(samples[0].Value):
		return count{sick: 1, of: 1}, nil
	}
	return count{of: 1}, nil
}

// parts judges each part of a component by the answers that have its labels. A part is sick if one of them is, and unknown without any.
func parts(component string, s kit.Symptom, all, samples []kit.Sample) (count, error) {
	key := func(x kit.Sample) string {
		named := make([]string, len(s.By))
		for i, l := range s.By {
			named[i] = fmt.Sprintf("%s=%q", l, x.Labels[l])
		}
		return strings.Join(named, ", ")
	}
	const hint = "check whether it answers; or say in the call what to take such a part for: default = True or False"
	if len(all) == 0 {
		return count{unknown: 1, of: 1, why: problem.New(problem.NoData, "nothing is known of %s: %s has no data", component, s.All).WithHint("check who belongs to it in topology.star")}, nil
	}
	known := map[string]bool{} // by part: whether it is sick
	broken := map[string]bool{}
	for _, x := range samples {
		broken[key(x)] = broken[key(x)] || !measured(x)
		known[key(x)] = known[key(x)] || s.Holds(x.Value)
	}
	var out count
	seen := map[string]bool{}
	for _, x := range all {
		k := key(x)
		if seen[k] {
			continue
		}
		seen[k] = true
		out.of++
		isSick, answered := known[k]
		switch {
		case answered && !broken[k] && isSick:
			out.sick++
		case !answered || broken[k]:
			out.unknown++
			if out.why == nil {
				out.why = problem.New(problem.NoData, "nothing is known of {%s}, which belongs to %s: %s has no number for it", k, component, s.Expr).WithHint(hint)
			}
		}
	}
	for _, x := range samples {
		if !seen[key(x)] {
			return count{}, problem.New(problem.Query, "the symptom of %s answers for {%s}, which all does not have", component, key(x)).
				WithHint("let all and sick in topology.star select the same parts, and by name labels of both")
		}
	}
	return out, nil
}

func measured(s kit.Sample) bool { return !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) }

func from(h kit.Host) (kit.Topology, error) {
	m, ok := h.(kit.Topology)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.topology is not answered here")
	}
	return m, nil
}
