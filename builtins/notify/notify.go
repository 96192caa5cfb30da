// Package notify is the family ctx.notify: tells the owner something without ending the run.
package notify

import (
	"context"
	"strings"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// maxText bounds a notice, in bytes.
const maxText = 2000

// Family returns the table.
func Family() kit.Family {
	return kit.Family{
		Name: "notify", Doc: "Tells the runbook's owner something, by the routes of project.star.",
		Functions: []kit.Function{{
			Name: "owner", Kind: kit.Query, Positional: 1, Call: owner,
			Doc:    "Tells the owner, and goes on. The same text is told once for a problem of a target. A person who must do something is called with return escalate(...).",
			Params: []kit.Param{{Name: "text", Type: kit.StringT, Required: true, Doc: "what they should know, at most 2000 bytes; without values that change, or it is told each time"}},
		}},
	}
}

func owner(ctx context.Context, h kit.Host, args kit.Args) (value.Value, error) {
	n, err := from(h)
	if err != nil {
		return nil, err
	}
	text, _ := args["text"].(value.String)
	s := strings.TrimSpace(string(text))
	if s == "" || len(s) > maxText {
		return nil, problem.New(problem.Argument, "notify.owner: the text has %d bytes, from 1 to %d are told", len(s), maxText)
	}
	return value.Null{}, n.Tell(ctx, s)
}

func from(h kit.Host) (kit.Notifier, error) {
	m, ok := h.(kit.Notifier)
	if !ok {
		return nil, problem.New(problem.Internal, "ctx.notify is not answered here")
	}
	return m, nil
}
