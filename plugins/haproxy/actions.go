package haproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// verb is a state that a server can be set to.
type verb struct {
	name, doc string
	takesOut  bool
	forced    uint64 // the bits that it sets
}

var verbs = []verb{
	{"drain", "Take a server of the target out of rotation: it gets no new sessions, and keeps those that it has.", true, forcedDrain},
	{"maint", "Take a server of the target out of rotation at once, with its health checks.", true, forcedMaint},
	{"ready", "Put a server of the target back into rotation, once its health check lets it.", false, 0},
}

type outArgs struct {
	Server string `rb:"server,required,positional" doc:"the server, with its backend: web/app1"`
	Least  int    `rb:"least" default:"1" doc:"how many other servers of the backend have to serve, or nothing is done; 0 allows to take out the last one"`
}

// receipt is a server as it was before an action.
type receipt struct {
	Server string `json:"server"`
	Forced uint64 `json:"forced"`
}

// prepare checks what is asked for and looks at the server. Where it is as the verb leaves it, it does not matter how many others serve.
func (x *plugin) prepare(ctx context.Context, v verb, full string, least int) (server, error) {
	if err := x.allowed(full); err != nil {
		return server{}, err
	}
	if least < 0 {
		return server{}, problem.New(problem.Argument, "least: %d is negative", least)
	}
	all, s, err := x.find(ctx, full)
	if err != nil || s.forced == v.forced {
		return s, err
	}
	others := 0
	for _, o := range all {
		if o.Serving && o.Server != full {
			others++
		}
	}
	if others < least {
		return s, problem.New(problem.Refused, "only %d of the %d other servers of backend %s serve, and %d have to", others, len(all)-1, s.Backend, least)
	}
	return s, nil
}

// register registers a verb. of says which server is meant, and how many others have to serve.
func register[A any](p *sdk.Plugin, x *plugin, v verb, of func(A) (full string, least int)) {
	sdk.ActionFunc(p, v.name, v.doc, func(call *sdk.Call, a A) (server, error) {
		full, least := of(a)
		return x.act(call, v, full, least)
	}, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.BlastRadius("server"), sdk.Capabilities("net"))
	sdk.PlanFunc(p, v.name, func(ctx context.Context, _ sdk.Target, a A) (sdk.Plan, error) {
		full, least := of(a)
		return x.plan(ctx, v, full, least)
	})
	sdk.ProbeFunc(p, v.name, func(ctx context.Context, pr sdk.Probe, a A) (sdk.ProbeAnswer, error) {
		full, _ := of(a)
		return x.probe(ctx, pr, v, full)
	})
}

func (x *plugin) act(call *sdk.Call, v verb, full string, least int) (server, error) {
	s, err := x.prepare(call, v, full, least)
	if err != nil {
		return s, err
	}
	if s.forced == v.forced {
		return s, sdk.NoChange("%s is %s", full, s.said())
	}
	before, err := json.Marshal(receipt{full, s.forced})
	if err != nil {
		return s, err
	}
	if err := call.Begin(before); err != nil {
		return s, err
	}
	said, sent, err := x.ask(call, "set server "+full+" state "+v.name)
	switch {
	case err != nil && sent:
		return s, sdk.Unknown(err)
	case err != nil:
		return s, err
	case said != "":
		return s, problem.New(problem.ActionFailed, "haproxy %s: %s", x.config.Socket, said)
	}
	// It is done. What cannot be seen of the server now does not change that.
	if _, after, err := x.find(call, full); err == nil {
		s = after
	}
	return s, nil
}

// said is a server's state for people.
func (s server) said() string {
	return fmt.Sprintf("%s (%s, %d sessions)", s.State, s.Status, s.Sessions)
}

func (x *plugin) plan(ctx context.Context, v verb, full string, least int) (sdk.Plan, error) {
	s, err := x.prepare(ctx, v, full, least)
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{NoChange: s.forced == v.forced, Changes: []sdk.PlannedChange{{What: "set " + full + " to " + v.name, Before: s.said(), After: v.name}}}, nil
}

// probe compares the state with the one before. That somebody else has set the same cannot be told apart, and need not be.
func (x *plugin) probe(ctx context.Context, p sdk.Probe, v verb, full string) (sdk.ProbeAnswer, error) {
	var before receipt
	if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Server != full {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this server"}, nil
	}
	return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
		_, s, err := x.find(ctx, full)
		switch {
		case err != nil:
			return sdk.ProbeAnswer{}, err
		case s.forced == v.forced:
			return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: full + " is " + s.said()}, nil
		case s.forced == before.Forced:
			return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: full + " is as before, " + s.said()}, nil
		}
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: full + " is " + s.said() + ", and was something else before"}, nil
	})
}
