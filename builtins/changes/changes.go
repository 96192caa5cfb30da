// Package changes is the family ctx.changes: deploys, as delivery pipelines record them with runbook change add.
package changes

import (
	"context"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	return kit.Family{
		Name: "changes", Doc: "Reads the deploys that were recorded with runbook change add.",
		Functions: []kit.Function{{
			Name: "last", Kind: kit.Query, Positional: 1, Returns: kit.Any, Call: last,
			Doc:    `Returns the last deploy of a component as {"component": "...", "version": "...", "going": False, "started": time, "ended": time or None, "age": duration}, or None if none is on record. age is since it ended, or 0s while it goes on.`,
			Params: []kit.Param{{Name: "component", Type: kit.StringT, Doc: "the component; that of ctx.target if not given"}},
		}},
	}
}

func last(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	m, err := from(h)
	if err != nil {
		return nil, err
	}
	component, _ := args["component"].(value.String)
	c, err := m.LastChange(ctx, string(component))
	if err != nil || c == nil {
		return value.Null{}, err
	}
	var ended, age value.Value = value.Null{}, value.Duration(0)
	if !c.Ended.IsZero() {
		ended = value.Time(c.Ended)
		age = value.Duration(max(0, h.Now().Sub(c.Ended)))
	} else if !c.Going {
		age = value.Duration(max(0, h.Now().Sub(c.Started)))
	}
	return value.Dict{
		entry("component", value.String(c.Component)), entry("version", value.String(c.Version)), entry("going", value.Bool(c.Going)),
		entry("started", value.Time(c.Started)), entry("ended", ended), entry("age", age),
	}, nil
}

func entry(name string, v value.Value) value.Entry {
	return value.Entry{Key: value.String(name), Value: v}
}

func from(h kit.Host) (kit.Memory, error) {
	m, ok := h.(kit.Memory)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.changes is not answered here")
	}
	return m, nil
}
