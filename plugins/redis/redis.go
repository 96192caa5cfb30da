// Package redis is the plugin that looks at a Redis server, ends the connections of its clients, and sets what the connection lists.
//
// Promise: a client is named by what no other client ever has, the run of the server and the number that it gave the client, and both are checked on the very
// connection that ends it: after a restart of the server an old name fits nobody. Replicas and masters are never ended. A setting is changed only
// if the connection lists it, in the server's memory, not in its file. What the server did not answer is unknown, never failed.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/sdk/web"
)

// maxClients and maxSlow bound an answer.
const (
	maxClients = 1000
	maxSlow    = 128
)

type config struct {
	Address  string        `rb:"address,required" doc:"host:port of the server, or the path of its socket"`
	User     string        `rb:"user" doc:"who logs in; the server's default user if not given"`
	Password string        `rb:"password,sensitive" doc:"the password to log in with"`
	TLS      bool          `rb:"tls" default:"false" doc:"the connection is encrypted, and the server's certificate is checked"`
	CAFile   string        `rb:"ca_file" doc:"PEM file with the authority that signed that certificate; the system's authorities if not given"`
	Settings []string      `rb:"settings" doc:"the parameters that may be set, such as maxmemory; none if not given"`
	Timeout  time.Duration `rb:"timeout" default:"5s" doc:"how long connecting and one answer may take"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("redis", "1", "Look at a Redis server, end connections of its clients, and set what the connection lists.")
	sdk.ConfigFunc(p, x.configure)
	opts := func(more ...sdk.Option) []sdk.Option { return append(more, sdk.Capabilities("net")) }
	asked := sdk.Timeout(15*time.Second, 2*time.Minute)
	acts := sdk.Timeout(30*time.Second, 5*time.Minute)
	sdk.QueryFunc(p, "info", "What INFO says, as a dict: numbers are ints and floats, everything else is text.", x.info, opts(asked)...)
	sdk.QueryFunc(p, "clients", "Connections of clients, the one with the most output waiting first, as a list of {client, address, name, user, age, idle, command, database, output, memory}; "+
		"replicas are left out; at most 1,000. output and memory are bytes.", x.clients, opts(asked)...)
	sdk.QueryFunc(p, "slow", "The commands that took longest of those that the server remembers (slowlog), as a list of {at, took, command, address, name}; at most 128.", x.slow, opts(asked)...)
	sdk.QueryFunc(p, "setting", "The value of a parameter of the server, as text.", x.setting, opts(asked)...)
	sdk.ActionFunc(p, "end_client", "End the connection of a client of the target. The client can connect again.", x.endClient, opts(acts, sdk.BlastRadius("client"))...)
	sdk.PlanFunc(p, "end_client", x.planEnd)
	sdk.ProbeFunc(p, "end_client", x.probeEnd)
	sdk.ActionFunc(p, "set", "Set a parameter of the target, until it restarts.", x.set, opts(acts, sdk.BlastRadius("service"))...)
	sdk.PlanFunc(p, "set", x.planSet)
	sdk.ProbeFunc(p, "set", x.probeSet)
	return p
}

type plugin struct {
	config config
	tls    *tls.Config
}

func (x *plugin) configure(_ context.Context, c config) error {
	if !strings.HasPrefix(c.Address, "/") {
		if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
			return problem.New(problem.Project, "address: %.80q is not host:port, and not a path", c.Address).WithHint(`write "db1:6379"`)
		}
	}
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	if c.User != "" && c.Password == "" {
		return problem.New(problem.Project, "user: %s has no password", c.User).WithHint(`add "password": secret.env("...") or secret.file("...")`)
	}
	if c.CAFile != "" && !c.TLS {
		return problem.New(problem.Project, "ca_file: without tls no certificate is looked at").WithHint(`add "tls": True`)
	}
	for _, s := range c.Settings {
		if !isParameter(s) {
			return problem.New(problem.Project, "settings: %.80q cannot be a parameter of Redis", s)
		}
	}
	t, err := web.TLS(c.CAFile)
	if err != nil {
		return err
	}
	x.config, x.tls = c, t
	return nil
}

// isParameter keeps patterns away from CONFIG GET.
func isParameter(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// conn is a connection, on which the server is the same one for as long as it lasts.
type conn struct {
	redis.Conn
	x   *plugin
	ctx context.Context
}

// dial connects and logs in. Nothing is ever sent twice.
func (x *plugin) dial(ctx context.Context) (*conn, error) {
	network := "tcp"
	if strings.HasPrefix(x.config.Address, "/") {
		network = "unix"
	}
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	c, err := redis.DialContext(limited, network, x.config.Address, redis.DialUsername(x.config.User), redis.DialPassword(x.config.Password),
		redis.DialUseTLS(x.config.TLS), redis.DialTLSConfig(x.tls), redis.DialTLSHandshakeTimeout(x.config.Timeout), redis.DialReadTimeout(x.config.Timeout), redis.DialWriteTimeout(x.config.Timeout),
		redis.DialClientName("runbook"))
	if err != nil {
		return nil, x.explain(err)
	}
	return &conn{c, x, ctx}, nil
}

// do asks one thing.
func (c *conn) do(command string, args ...any) (any, error) {
	limited, cancel := context.WithTimeout(c.ctx, c.x.config.Timeout)
	defer cancel()
	r, err := redis.DoContext(c.Conn, limited, command, args...)
	if err != nil {
		return nil, c.x.explain(err)
	}
	return r, nil
}

// answered says that the server itself worded the error: then it has done nothing.
func answered(err error) bool {
	var said redis.Error
	return errors.As(err, &said)
}

// explain words an error, and keeps what kind it is.
func (x *plugin) explain(err error) error {
	var said redis.Error
	var wait net.Error
	where := "redis " + x.config.Address
	switch {
	case errors.As(err, &said):
		p := problem.New(problem.PluginFailed, "%s: %s", where, said.Error()).Because(said)
		switch word, _, _ := strings.Cut(said.Error(), " "); word {
		case "NOAUTH", "WRONGPASS":
			return p.WithHint("set user and password in the connection in project.star")
		case "NOPERM":
			return p.WithHint("the user needs leave for it: ACL SETUSER %s +info +client|list +client|kill +slowlog|get +config|get +config|set", x.user())
		}
		return p
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return problem.New(problem.PluginTimeout, "%s: no answer within %s", where, x.config.Timeout)
	}
	return problem.Wrap(problem.PluginFailed, err, "%s", where)
}

func (x *plugin) user() string {
	if x.config.User == "" {
		return "default"
	}
	return x.config.User
}

// with runs one piece of work over a connection of its own.
func with[R any](ctx context.Context, x *plugin, work func(*conn) (R, error)) (R, error) {
	c, err := x.dial(ctx)
	if err != nil {
		var none R
		return none, err
	}
	defer func() { _ = c.Close() }()
	return work(c)
}

type infoArgs struct {
	Section string `rb:"section,positional" default:"default" doc:"of INFO: server, clients, memory, persistence, stats, replication, ..."`
}

func (x *plugin) info(ctx context.Context, a infoArgs) (map[string]value.Value, error) {
	return with(ctx, x, func(c *conn) (map[string]value.Value, error) {
		text, err := redis.String(c.do("INFO", a.Section))
		if err != nil {
			return nil, err
		}
		out := map[string]value.Value{}
		for name, v := range parseInfo(text) {
			out[name] = number(v)
		}
		if len(out) == 0 {
			return nil, problem.New(problem.Argument, "section: INFO has no section %.40q", a.Section)
		}
		return out, nil
	})
}

type slowArgs struct {
	Count int `rb:"count,positional" default:"10" doc:"how many, 1 to 128"`
}

// slowCommand is one entry of the slowlog.
type slowCommand struct {
	At      time.Time     `rb:"at"`
	Took    time.Duration `rb:"took"`
	Command string        `rb:"command"` // with its arguments, as far as the server keeps them
	Address string        `rb:"address"`
	Name    string        `rb:"name"` // that the client gave itself
}

func (x *plugin) slow(ctx context.Context, a slowArgs) ([]slowCommand, error) {
	if a.Count < 1 || a.Count > maxSlow {
		return nil, problem.New(problem.Argument, "count: %d is not 1 to %d", a.Count, maxSlow)
	}
	return with(ctx, x, func(c *conn) ([]slowCommand, error) {
		entries, err := redis.SlowLogs(c.do("SLOWLOG", "GET", maxSlow))
		if err != nil {
			return nil, err
		}
		out := make([]slowCommand, 0, len(entries))
		for _, e := range entries {
			out = append(out, slowCommand{At: e.Time.UTC(), Took: e.ExecutionTime, Command: strings.ToValidUTF8(strings.Join(e.Args, " "), "\uFFFD"), Address: e.ClientAddr, Name: e.ClientName})
		}
		slices.SortStableFunc(out, func(p, q slowCommand) int { return int(q.Took - p.Took) })
		return out[:min(a.Count, len(out))], nil
	})
}
