// Package systemd is the plugin that looks at units of systemd, and starts, stops and restarts them, on this machine or by ssh on another one.
//
// Promise: only a unit that the connection lists is acted on. An action waits for its job, and its outcome is the job's: what systemd did not say
// is unknown, never failed. The receipt of an action is the invocation of the unit before it, an id that systemd gives each start of a unit, so
// that a probe can tell later whether the unit has been started since.
package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/allow"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxUnits bounds an answer.
const maxUnits = 1000

type config struct {
	Units   []string      `rb:"units" doc:"the units that may be acted on, each a name or a pattern such as worker@*.service; none if not given"`
	Socket  string        `rb:"socket" default:"/run/systemd/private" doc:"systemd's own socket, which only root may use; or that of a D-Bus, such as /run/dbus/system_bus_socket"`
	Bus     bool          `rb:"bus" default:"false" doc:"the socket is that of a D-Bus"`
	Host    string        `rb:"host" doc:"another machine, by ssh: name or name:port; this machine if not given"`
	User    string        `rb:"user" default:"root" doc:"who logs in there"`
	Key     string        `rb:"key,sensitive" doc:"the private key to log in with, in PEM"`
	Agent   string        `rb:"agent" doc:"instead of key, the socket of an ssh-agent that has it"`
	HostKey string        `rb:"host_key" doc:"the public key of that machine, as in known_hosts: ssh-ed25519 AAAA..."`
	Timeout time.Duration `rb:"timeout" default:"10s" doc:"how long connecting and one question may take"`
}

type unitArgs struct {
	Unit string `rb:"unit,required,positional" doc:"name of the unit, with its ending: nginx.service"`
}

type unitsArgs struct {
	Pattern string   `rb:"pattern,positional" default:"*.service" doc:"name or pattern"`
	States  []string `rb:"states" doc:"only in one of these states, such as failed or active; all if not given"`
}

// unit is the state of a unit. What systemd does not know of it is empty.
type unit struct {
	Name       string    `rb:"name"`
	Load       string    `rb:"load"`   // loaded, not-found, bad-setting, masked, ...
	Active     string    `rb:"active"` // active, reloading, inactive, failed, activating, deactivating
	Sub        string    `rb:"sub"`    // running, dead, exited, ...
	Result     string    `rb:"result"` // of the last end: success, exit-code, signal, oom-kill, timeout, ...
	Since      time.Time `rb:"since"`  // of the last change of active
	PID        int       `rb:"pid"`
	Restarts   int       `rb:"restarts"`   // by systemd itself
	Invocation string    `rb:"invocation"` // of the last start
	job        bool      // one is queued or running
}

type listed struct {
	Name   string `rb:"name"`
	Load   string `rb:"load"`
	Active string `rb:"active"`
	Sub    string `rb:"sub"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("systemd", "1", "Look at units of systemd, and start, stop and restart them.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "unit", "One unit: {name, load, active, sub, result, since, pid, restarts, invocation}. load is not-found where there is no such unit.",
		x.unit, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.QueryFunc(p, "units", "The units that are loaded, as a list of {name, load, active, sub}; at most 1,000.", x.units, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	for _, v := range verbs {
		sdk.ActionFunc(p, v.name, v.doc, x.act(v), sdk.Timeout(2*time.Minute, 30*time.Minute), sdk.BlastRadius("service"), sdk.Capabilities("net"))
		sdk.PlanFunc(p, v.name, x.plan(v))
		sdk.ProbeFunc(p, v.name, x.probe(v))
	}
	return p
}

type plugin struct{ config config }

func (x *plugin) configure(_ context.Context, c config) error {
	for _, u := range c.Units {
		if _, err := path.Match(u, ""); err != nil || !strings.Contains(u, ".") {
			return problem.New(problem.Project, "units: %q is not the name or pattern of a unit", u).WithHint("write its ending, too: worker@*.service")
		}
	}
	if !path.IsAbs(c.Socket) {
		return problem.New(problem.Project, "socket: %q is not an absolute path", c.Socket)
	}
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	if c.Host != "" || c.Key != "" || c.HostKey != "" || c.Agent != "" {
		if err := c.remote().Check(); err != nil {
			return err
		}
	}
	x.config = c
	return nil
}

// unitName is systemd's rule for names, without the escapes that nobody writes by hand.
var unitName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|mount|automount|path|slice|scope|swap|device)$`)
})

func checkUnit(name string) error {
	switch {
	case unitName().MatchString(name) && len(name) <= 255:
		return nil
	case name != "" && !strings.Contains(name, "."):
		return problem.New(problem.Argument, "unit: %q has no ending", name).WithHint("write %q", name+".service")
	}
	return problem.New(problem.Argument, "unit: %.80q cannot be the name of a unit", name)
}

// allowed says whether a unit may be acted on.
func (x *plugin) allowed(name string) error {
	if err := checkUnit(name); err != nil {
		return err
	}
	return allow.Check("units", x.config.Units, "", name)
}

func (x *plugin) unit(ctx context.Context, a unitArgs) (unit, error) {
	if err := checkUnit(a.Unit); err != nil {
		return unit{}, err
	}
	return with(ctx, x, func(ctx context.Context, c *systemd.Conn) (unit, error) { return look(ctx, c, a.Unit) })
}

func (x *plugin) units(ctx context.Context, a unitsArgs) ([]listed, error) {
	return with(ctx, x, func(ctx context.Context, c *systemd.Conn) ([]listed, error) {
		states := a.States
		if states == nil {
			states = []string{}
		}
		found, err := c.ListUnitsByPatternsContext(ctx, states, []string{a.Pattern})
		if err != nil {
			return nil, err
		}
		if len(found) > maxUnits {
			return nil, problem.New(problem.Argument, "pattern: %d units fit %q, at most %d are returned", len(found), a.Pattern, maxUnits).WithHint("narrow the pattern, or name states")
		}
		out := make([]listed, len(found))
		for i, u := range found {
			out[i] = listed{u.Name, u.LoadState, u.ActiveState, u.SubState}
		}
		return out, nil
	})
}

// look reads the state of a unit, which systemd loads for that if need be.
func look(ctx context.Context, c *systemd.Conn, name string) (unit, error) {
	p, err := c.GetAllPropertiesContext(ctx, name)
	if err != nil {
		return unit{}, err
	}
	u := unit{Name: name, Load: text(p, "LoadState"), Active: text(p, "ActiveState"), Sub: text(p, "SubState"), Result: text(p, "Result")}
	if u.Load == "" || u.Active == "" {
		return u, errors.New("it does not say what state the unit is in")
	}
	if id, _ := p["InvocationID"].([]byte); len(id) > 0 {
		u.Invocation = hex.EncodeToString(id)
	}
	pid, _ := p["MainPID"].(uint32)
	restarts, _ := p["NRestarts"].(uint32)
	u.PID, u.Restarts = int(pid), int(restarts)
	if at, _ := p["StateChangeTimestamp"].(uint64); at > 0 {
		u.Since = time.UnixMicro(int64(at)).UTC()
	}
	if job, _ := p["Job"].([]any); len(job) > 0 {
		id, _ := job[0].(uint32)
		u.job = id != 0
	}
	return u, nil
}

func text(p map[string]any, name string) string {
	s, _ := p[name].(string)
	return s
}

// state is a unit's state for a person.
func (u unit) state() string {
	s := fmt.Sprintf("%s (%s)", u.Active, u.Sub)
	if u.PID != 0 {
		s += fmt.Sprintf(", process %d", u.PID)
	}
	if u.Active == "failed" && u.Result != "" {
		s += ", " + u.Result
	}
	return s
}

// with runs one piece of work over a connection of its own.
func with[R any](ctx context.Context, x *plugin, work func(context.Context, *systemd.Conn) (R, error)) (R, error) {
	var none R
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	c, end, err := x.dial(limited)
	if err != nil {
		return none, x.explain(limited, err)
	}
	defer end()
	r, err := work(limited, c)
	if err != nil {
		return none, x.explain(limited, err)
	}
	return r, nil
}

// explain words an error of the connection.
func (x *plugin) explain(ctx context.Context, err error) error {
	var known *problem.Problem
	var said dbus.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.PluginTimeout, "systemd of %s: no answer within %s", x.config.where(), x.config.Timeout)
	case errors.As(err, &said):
		return problem.New(problem.PluginFailed, "systemd of %s: %s", x.config.where(), strings.TrimSpace(said.Error()))
	}
	return problem.Wrap(problem.PluginFailed, err, "systemd of %s", x.config.where())
}
