// Package haproxy is the plugin that looks at the servers behind HAProxy and takes them out of its rotation and back, through HAProxy's runtime API.
//
// Promise: only a server that the connection lists is acted on, and none is taken out when too few others would be left to serve. An answer is what HAProxy said to its
// end; what was cut off is unknown, never failed. What is set here is HAProxy's own state, which it loses when it restarts.
package haproxy

import (
	"context"
	"net"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxServers bounds an answer.
const maxServers = 1000

type config struct {
	Socket  string        `rb:"socket,required" doc:"HAProxy's stats socket of level admin: a path, or host:port"`
	Servers []string      `rb:"servers" doc:"the servers that may be acted on, each a name or a pattern: web/app*; none if not given"`
	Timeout time.Duration `rb:"timeout" default:"5s" doc:"how long one answer may take"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("haproxy", "1", "Look at the servers behind HAProxy, and take them out of rotation and back.")
	sdk.ConfigFunc(p, x.configure)
	asked := []sdk.Option{sdk.Timeout(15*time.Second, 2*time.Minute), sdk.Capabilities("net")}
	sdk.QueryFunc(p, "servers", "The servers of a backend, or of all, as a list of {server, backend, name, address, state, status, serving, sessions, queue, check, weight, since}; at most 1,000. "+
		"state is what people have set, ready, drain or maint; status is what HAProxy makes of it.", x.servers, asked...)
	sdk.QueryFunc(p, "server", "One server, as in servers().", x.server, asked...)
	for _, v := range verbs {
		if v.takesOut {
			register(p, x, v, func(a outArgs) (string, int) { return a.Server, a.Least })
		} else {
			register(p, x, v, func(a serverArgs) (string, int) { return a.Server, 0 })
		}
	}
	return p
}

type plugin struct{ config config }

// name is HAProxy's rule for names of proxies and servers.
var name = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`) })

func (x *plugin) configure(_ context.Context, c config) error {
	if !strings.HasPrefix(c.Socket, "/") {
		if host, port, err := net.SplitHostPort(c.Socket); err != nil || host == "" || port == "" {
			return problem.New(problem.Project, "socket: %.80q is not an absolute path, and not host:port", c.Socket).WithHint(`write "/run/haproxy/admin.sock"`)
		}
	}
	for _, s := range c.Servers {
		if _, err := path.Match(s, ""); err != nil || strings.Count(s, "/") != 1 {
			return problem.New(problem.Project, "servers: %.80q is not the name or pattern of a server", s).WithHint("write its backend, too: web/app*")
		}
	}
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	x.config = c
	return nil
}

// split checks the name of a server.
func split(server string) (backend, srv string, err error) {
	backend, srv, _ = strings.Cut(server, "/")
	if !name().MatchString(backend) || !name().MatchString(srv) {
		return "", "", problem.New(problem.Argument, "server: %.80q is not backend/server", server)
	}
	return backend, srv, nil
}

// allowed says whether a server may be acted on.
func (x *plugin) allowed(server string) error {
	if _, _, err := split(server); err != nil {
		return err
	}
	return allow.Check("servers", x.config.Servers, "", server)
}

type serversArgs struct {
	Backend string `rb:"backend,positional" doc:"name of the backend; all if not given"`
}

func (x *plugin) servers(ctx context.Context, a serversArgs) ([]server, error) {
	if a.Backend != "" && !name().MatchString(a.Backend) {
		return nil, problem.New(problem.Argument, "backend: %.80q cannot be the name of a backend", a.Backend)
	}
	found, err := x.look(ctx, a.Backend)
	if err == nil && len(found) > maxServers {
		err = problem.New(problem.Argument, "there are %d servers, at most %d are returned", len(found), maxServers).WithHint("name a backend")
	}
	return found, err
}

type serverArgs struct {
	Server string `rb:"server,required,positional" doc:"the server, with its backend: web/app1"`
}

func (x *plugin) server(ctx context.Context, a serverArgs) (server, error) {
	_, s, err := x.find(ctx, a.Server)
	return s, err
}

// find looks for one server, among those of its backend.
func (x *plugin) find(ctx context.Context, full string) (all []server, s server, err error) {
	backend, _, err := split(full)
	if err != nil {
		return nil, s, err
	}
	if all, err = x.look(ctx, backend); err != nil {
		return nil, s, err
	}
	names := make([]string, len(all))
	for i, one := range all {
		if names[i] = one.Server; one.Server == full {
			return all, one, nil
		}
	}
	return nil, s, problem.New(problem.NotFound, "haproxy %s has no server %s%s", x.config.Socket, full, problem.DidYouMean(full, names))
}
