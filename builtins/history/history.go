// Package history is the family ctx.history: what was done to the target before, by whichever runbook.
//
// Promise: an answer is what is on record; a record that cannot be read is an error.
package history

import (
	"context"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	return kit.Family{
		Name: "history", Doc: "Reads what was done to ctx.target before, by whichever runbook.",
		Functions: []kit.Function{
			{
				Name: "last", Kind: kit.Query, Returns: kit.Any, Call: last,
				Doc: `Returns the last attempt as {"runbook": "...", "state": "verified", "age": duration, "actions": ["exec.run"]}, or None. state is how it ended: verified, ineffective, inconclusive, complete (not judged yet), failed, interrupted or closed.`,
			},
			{
				Name: "since", Kind: kit.Query, Positional: 1, Returns: kit.Any, Call: since,
				Doc:    `Returns how long ago an action last started on the target, as a duration, or None if that is not on record.`,
				Params: []kit.Param{{Name: "action", Type: kit.StringT, Required: true, Doc: `the plugin and the action, such as "exec.run"`}},
			},
		},
	}
}

func last(ctx context.Context, h kit.Host, _ kit.Args) (value.Value, error) {
	m, err := from(h)
	if err != nil {
		return nil, err
	}
	a, err := m.LastAttempt(ctx)
	if err != nil || a == nil {
		return value.Null{}, err
	}
	actions := value.List{}
	for _, x := range a.Actions {
		actions = append(actions, value.String(x))
	}
	return value.Dict{entry("runbook", value.String(a.Runbook)), entry("state", value.String(a.State)), entry("age", value.Duration(a.Age)), entry("actions", actions)}, nil
}

func since(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	m, err := from(h)
	if err != nil {
		return nil, err
	}
	name, _ := args["action"].(value.String)
	age, ok, err := m.LastStarted(ctx, string(name))
	if err != nil || !ok {
		return value.Null{}, err
	}
	return value.Duration(age), nil
}

func entry(name string, v value.Value) value.Entry {
	return value.Entry{Key: value.String(name), Value: v}
}

func from(h kit.Host) (kit.Memory, error) {
	m, ok := h.(kit.Memory)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.history is not answered here")
	}
	return m, nil
}
