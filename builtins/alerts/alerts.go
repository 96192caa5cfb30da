// Package alerts is the family ctx.alerts: what the project's Alertmanagers say now.
//
// Promise: an answer is that of all of them together. One that cannot be asked may know of an alert that the others do not, so it is an error: no alert
// is never read out of silence.
package alerts

import (
	"context"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Family returns the table.
func Family() kit.Family {
	return kit.Family{
		Name: "alerts",
		Doc:  "Reads the alerts of the project's Alertmanagers, at the time of the run. One of them that cannot be asked is an error.",
		Functions: []kit.Function{
			{
				Name: "firing", Kind: kit.Query, Positional: 1, Returns: kit.List, Call: firing,
				Doc: `Returns a list of {"name": "...", "labels": {...}, "annotations": {...}, "since": time, "silenced": False}, sorted by labels; empty if none fires. An alert that several Alertmanagers have is there once.`,
				Params: []kit.Param{
					{Name: "name", Type: kit.StringT, Doc: "the alert's name; every alert if not given"},
					{Name: "where", Type: kit.Labels, Doc: "labels that it must have; any if not given"},
				},
			},
		},
	}
}

func firing(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	name, _ := args["name"].(value.String)
	where := map[string]string{}
	d, _ := args["where"].(value.Dict)
	for _, e := range d {
		k, _ := e.Key.(value.String)
		v, _ := e.Value.(value.String)
		where[string(k)] = string(v)
	}
	found, err := h.Alerts().Firing(ctx, string(name), where)
	if err != nil {
		return nil, err
	}
	out := make(value.List, 0, len(found))
	for _, a := range found {
		out = append(out, value.Dict{
			{Key: value.String("name"), Value: value.String(a.Name)},
			{Key: value.String("labels"), Value: value.Strings(a.Labels)},
			{Key: value.String("annotations"), Value: value.Strings(a.Annotations)},
			{Key: value.String("since"), Value: value.Time(a.Since.UTC())},
			{Key: value.String("silenced"), Value: value.Bool(a.Silenced)},
		})
	}
	return out, nil
}
