package redis

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// client is one connection of a client.
type client struct {
	Client   string        `rb:"client"` // its name for end_client: RUN/NUMBER
	Address  string        `rb:"address"`
	Name     string        `rb:"name"` // that it gave itself
	User     string        `rb:"user"`
	Age      time.Duration `rb:"age"`
	Idle     time.Duration `rb:"idle"`    // since its last command
	Command  string        `rb:"command"` // its last one
	Database int           `rb:"database"`
	Output   int64         `rb:"output"` // bytes that wait to be sent to it
	Memory   int64         `rb:"memory"` // bytes that it takes in the server
	replica  bool
}

func newClient(run string, f map[string]string) client {
	n := func(name string) int64 {
		v, _ := strconv.ParseInt(f[name], 10, 64) // a server that does not say has 0
		return v
	}
	return client{
		Client: run + "/" + f["id"], Address: f["addr"], Name: f["name"], User: f["user"], Command: f["cmd"],
		Age: time.Duration(n("age")) * time.Second, Idle: time.Duration(n("idle")) * time.Second, Database: int(n("db")),
		Output: n("omem"), Memory: n("tot-mem"),
		replica: strings.ContainsAny(f["flags"], "SM"), // client-info-flags: S a replica, M the master
	}
}

// run is the id that a server takes at random when it starts.
func (c *conn) run() (string, error) {
	text, err := redis.String(c.do("INFO", "server"))
	if err != nil {
		return "", err
	}
	run := parseInfo(text)["run_id"]
	if run == "" {
		return "", problem.New(problem.PluginFailed, "redis %s: INFO has no run_id", c.x.config.Address)
	}
	return run, nil
}

type clientsArgs struct {
	Idle time.Duration `rb:"idle" default:"0s" doc:"only those that have sent nothing for so long"`
	Name string        `rb:"name" doc:"only those that call themselves so"`
}

func (x *plugin) clients(ctx context.Context, a clientsArgs) ([]client, error) {
	return with(ctx, x, func(c *conn) ([]client, error) {
		run, err := c.run()
		if err != nil {
			return nil, err
		}
		text, err := redis.String(c.do("CLIENT", "LIST"))
		if err != nil {
			return nil, err
		}
		out := []client{}
		for line := range strings.Lines(text) {
			cl := newClient(run, parseClient(line))
			if !cl.replica && cl.Idle >= a.Idle && (a.Name == "" || cl.Name == a.Name) {
				out = append(out, cl)
			}
		}
		if len(out) > maxClients {
			return nil, problem.New(problem.Argument, "%d clients fit, at most %d are returned", len(out), maxClients).WithHint("narrow it with idle or name")
		}
		slices.SortStableFunc(out, func(p, q client) int { return int(q.Output - p.Output) })
		return out, nil
	})
}

type clientArgs struct {
	Client string `rb:"client,required,positional" doc:"client of an answer of clients()"`
}

// split checks the name of a client.
func (a clientArgs) split() (run, id string, err error) {
	run, id, _ = strings.Cut(a.Client, "/")
	if _, nerr := strconv.ParseUint(id, 10, 63); nerr != nil || len(run) != 40 {
		return "", "", problem.New(problem.Argument, "client: %.80q is not the name of a client", a.Client).WithHint(`it is the "client" of an answer of clients()`)
	}
	return run, id, nil
}

// find looks for a client. gone is why it is not there any more.
func (c *conn) find(a clientArgs) (cl client, gone string, err error) {
	run, id, err := a.split()
	if err != nil {
		return cl, "", err
	}
	now, err := c.run()
	if err != nil {
		return cl, "", err
	}
	if now != run {
		return cl, "the server has been started anew since, and has no clients of then", nil
	}
	text, err := redis.String(c.do("CLIENT", "LIST", "ID", id))
	if err != nil {
		return cl, "", err
	}
	f := parseClient(text)
	if f["id"] != id {
		return cl, "client " + id + " is not connected any more", nil
	}
	cl = newClient(run, f)
	if cl.replica {
		return cl, "", problem.New(problem.Argument, "client: %s at %s is a replica or the master: its connection is never ended", id, cl.Address)
	}
	return cl, "", nil
}

// receipt is what is about to be done to a client.
type receipt struct {
	Client  string `json:"client"`
	Address string `json:"address"`
}

func (x *plugin) endClient(call *sdk.Call, a clientArgs) (client, error) {
	return with(call, x, func(c *conn) (client, error) {
		cl, gone, err := c.find(a)
		if err != nil {
			return cl, err
		}
		if gone != "" {
			return cl, sdk.NoChange("%s", gone)
		}
		before, err := json.Marshal(receipt{cl.Client, cl.Address})
		if err != nil {
			return cl, err
		}
		if err := call.Begin(before); err != nil {
			return cl, err
		}
		_, id, _ := strings.Cut(cl.Client, "/")
		n, err := redis.Int(c.do("CLIENT", "KILL", "ID", id))
		switch {
		case answered(err):
			return cl, err
		case err != nil:
			return cl, sdk.Unknown(err)
		case n == 0:
			return cl, sdk.NoChange("client %s is not connected any more", id)
		}
		return cl, nil
	})
}

func (x *plugin) planEnd(ctx context.Context, _ sdk.Target, a clientArgs) (sdk.Plan, error) {
	return with(ctx, x, func(c *conn) (sdk.Plan, error) {
		cl, gone, err := c.find(a)
		if err != nil || gone != "" {
			return sdk.Plan{NoChange: gone != ""}, err
		}
		before := cl.Address + ", last command " + cl.Command + ", idle for " + cl.Idle.String()
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: "end the connection of client " + a.Client, Before: before}}}, nil
	})
}

// probeEnd tells whether the client is there. That it went by itself cannot be told apart, and need not be.
func (x *plugin) probeEnd(ctx context.Context, p sdk.Probe, a clientArgs) (sdk.ProbeAnswer, error) {
	var before receipt
	if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Client != a.Client {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this client"}, nil
	}
	return with(ctx, x, func(c *conn) (sdk.ProbeAnswer, error) {
		return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
			cl, gone, err := c.find(a)
			switch {
			case err != nil:
				return sdk.ProbeAnswer{}, err
			case gone != "":
				return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: gone}, nil
			}
			return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: "the client at " + cl.Address + " is still connected"}, nil
		})
	})
}
