package redis

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/gomodule/redigo/redis"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

type settingArgs struct {
	Name string `rb:"name,required,positional" doc:"the parameter, such as maxmemory"`
}

func (x *plugin) setting(ctx context.Context, a settingArgs) (string, error) {
	return with(ctx, x, func(c *conn) (string, error) { return c.value(a.Name) })
}

// value reads a parameter.
func (c *conn) value(name string) (string, error) {
	if !isParameter(name) {
		return "", problem.New(problem.Argument, "name: %.80q cannot be a parameter of Redis", name)
	}
	pairs, err := redis.StringMap(c.do("CONFIG", "GET", name))
	if err != nil {
		return "", err
	}
	v, ok := pairs[name]
	if !ok {
		return "", problem.New(problem.NotFound, "redis %s has no parameter %s", c.x.config.Address, name)
	}
	return v, nil
}

type setArgs struct {
	Name  string `rb:"name,required,positional" doc:"a parameter that the connection lists"`
	Value string `rb:"value,required" doc:"as in redis.conf: 4gb"`
}

// change is one setting: the value before, on which run of the server, and the value wanted. It is the receipt as well.
type change struct {
	Run  string `json:"run" rb:"run"`
	Name string `json:"name" rb:"name"`
	From string `json:"from" rb:"from"`
	To   string `json:"to" rb:"to"`
}

func (g change) same() bool { return amount(g.From) == amount(g.To) }

// prepare checks what is asked for and reads what there is.
func (c *conn) prepare(a setArgs) (change, error) {
	g := change{Name: a.Name, To: a.Value}
	if !slices.Contains(c.x.config.Settings, a.Name) {
		p := problem.New(problem.Argument, "name: the connection does not allow to set %.80s%s", a.Name, problem.DidYouMean(a.Name, c.x.config.Settings))
		if len(c.x.config.Settings) == 0 {
			return g, p.WithHint("list it in the connection in project.star: config = {\"settings\": [%q]}", a.Name)
		}
		return g, p.WithHint("list it in the connection's settings in project.star, which are: %s", strings.Join(c.x.config.Settings, ", "))
	}
	var err error
	if g.Run, err = c.run(); err != nil {
		return g, err
	}
	g.From, err = c.value(a.Name)
	return g, err
}

func (x *plugin) set(call *sdk.Call, a setArgs) (change, error) {
	return with(call, x, func(c *conn) (change, error) {
		g, err := c.prepare(a)
		if err != nil {
			return g, err
		}
		if g.same() {
			return g, sdk.NoChange("%s is %s", g.Name, g.From)
		}
		before, err := json.Marshal(g)
		if err != nil {
			return g, err
		}
		if err := call.Begin(before); err != nil {
			return g, err
		}
		if _, err := c.do("CONFIG", "SET", g.Name, g.To); err != nil {
			if answered(err) {
				return g, err
			}
			return g, sdk.Unknown(err)
		}
		return g, nil
	})
}

func (x *plugin) planSet(ctx context.Context, _ sdk.Target, a setArgs) (sdk.Plan, error) {
	return with(ctx, x, func(c *conn) (sdk.Plan, error) {
		g, err := c.prepare(a)
		if err != nil {
			return sdk.Plan{}, err
		}
		return sdk.Plan{NoChange: g.same(), Changes: []sdk.PlannedChange{{What: "set " + g.Name, Before: g.From, After: g.To}}}, nil
	})
}

// probeSet compares the value with the one before and the one wanted. After a restart the server has what its file says, which tells nothing.
func (x *plugin) probeSet(ctx context.Context, p sdk.Probe, a setArgs) (sdk.ProbeAnswer, error) {
	var before change
	if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Name != a.Name || before.To != a.Value {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this setting"}, nil
	}
	return with(ctx, x, func(c *conn) (sdk.ProbeAnswer, error) {
		return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
			now, err := c.prepare(a)
			said := now.Name + " is " + now.From + ", was " + before.From
			switch {
			case err != nil:
				return sdk.ProbeAnswer{}, err
			case now.Run != before.Run:
				return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the server has been started anew since: " + said}, nil
			case now.same():
				return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: said}, nil
			case now.From == before.From:
				return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: said}, nil
			}
			return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: said}, nil
		})
	})
}
