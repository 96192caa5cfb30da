package project

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Connection is where a plugin acts or asks. Its Config may hold secrets by reference; Settings.Resolve reads them.
type Connection struct {
	Name   string
	Plugin string
	Match  map[string]string // labels that a target must have; empty for metrics only
	Config value.Dict
	// Confine is what its process may touch; nil: what the engine's user may.
	Confine *Confine
	Pos     value.Pos

	at map[string]value.Pos // of the fields
}

// Confine is what a plugin's process may touch besides the system's own files.
type Confine struct {
	Read, Write []string // absolute paths
	Network     bool     // it has a network, also if no function of the plugin says that it needs one
	User        string   // as whom it runs; "": as the engine
}

func (d *decoder) confine(r *value.Record) *Confine {
	if r == nil {
		return nil
	}
	f := d.record(r)
	if d.err != nil {
		return nil
	}
	c := &Confine{Read: f.strings("read"), Write: f.strings("write"), Network: bool(field[value.Bool](f, "network"))}
	if f.has("user") {
		c.User = f.words("user")
	}
	for name, list := range map[string][]string{"read": c.Read, "write": c.Write} {
		for _, p := range list {
			if !path.IsAbs(p) || path.Clean(p) != p {
				f.fail(name, "has %q, which is not a clean absolute path", p)
			}
		}
	}
	return c
}

func (d *decoder) connection(r *value.Record, wantMatch bool) Connection {
	f := d.record(r)
	c := Connection{Pos: r.Pos, at: map[string]value.Pos{"plugin": f.pos("plugin"), "name": f.pos("name"), "config": f.pos("config")}}
	if d.err != nil {
		return c
	}
	c.Plugin = f.words("plugin")
	c.Name = c.Plugin
	if f.has("name") {
		c.Name = f.words("name")
	}
	c.Match = f.labels("match")
	switch {
	case wantMatch && len(c.Match) == 0:
		f.fail("match", "is missing: every target would be acted on through connection %q", c.Name).
			hint(`name the labels of its targets: match = {"instance": "w3"}`)
	case !wantMatch && len(c.Match) > 0:
		f.fail("match", "has no meaning for metrics and alerts").hint("leave it out")
	}
	c.Confine = d.confine(f.one("confine"))
	c.Config = field[value.Dict](f, "config")
	seen := map[value.Value]bool{}
	for _, e := range c.Config {
		k, _ := e.Key.(value.String)
		if seen[k] {
			f.fail("config", "has %q twice", k)
		}
		seen[k] = true
		if r, ok := e.Value.(*value.Record); ok {
			d.record(r)
		}
	}
	return c
}

func (d *decoder) connections(list []*value.Record, wantMatch bool) []Connection {
	var out []Connection
	for _, r := range list {
		c := d.connection(r, wantMatch)
		for _, other := range out {
			if d.err == nil && other.Name == c.Name {
				d.fail(c.at["name"], "two connections have the name %q: the other is at %s", c.Name, other.Pos).
					hint(`give each its own: connection(%q, name = "...", ...)`, c.Plugin)
			}
		}
		out = append(out, c)
	}
	return out
}

// Connection is the connection of that name.
func (s *Settings) Connection(name string) (Connection, bool) {
	i := slices.IndexFunc(s.Connections, func(c Connection) bool { return c.Name == name })
	if i < 0 {
		return Connection{}, false
	}
	return s.Connections[i], true
}

// ConnectionFor returns the connection through which a plugin acts on a target with these labels. There must be
// exactly one: none is never the local machine, and of several nobody has said which.
func (s *Settings) ConnectionFor(plugin string, labels map[string]string) (Connection, error) {
	var found []Connection
	var near []string
	for _, c := range s.Connections {
		if c.Plugin != plugin {
			continue
		}
		if why := c.mismatch(labels); why != "" {
			near = append(near, fmt.Sprintf("connection %q (%s): %s", c.Name, c.Pos, why))
			continue
		}
		found = append(found, c)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Connection{}, problem.New(problem.NoConnection, "no connection of plugin %q matches the target's labels %s", plugin, labelText(labels)).
			WithHint("add to connections in %s: connection(%q, name = %q, match = %s, config = {...})", File, plugin, suggestName(plugin, labels), suggestMatch(labels)).
			WithDetail(near...)
	}
	names := make([]string, len(found))
	for i, c := range found {
		names[i] = fmt.Sprintf("%q (%s)", c.Name, c.Pos)
	}
	return Connection{}, problem.New(problem.NoConnection, "%d connections of plugin %q match the target's labels %s: %s", len(found), plugin, labelText(labels), strings.Join(names, ", ")).
		WithHint("add labels to match in %s until one is left", File)
}

func (c Connection) mismatch(labels map[string]string) string {
	if len(c.Match) == 0 {
		return "it has no match"
	}
	for _, k := range sortedKeys(c.Match) {
		switch have, ok := labels[k]; {
		case !ok:
			return fmt.Sprintf("wants %s=%q, the target has no label %s", k, c.Match[k], k)
		case have != c.Match[k]:
			return fmt.Sprintf("wants %s=%q, the target has %s=%q", k, c.Match[k], k, have)
		}
	}
	return ""
}

func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range sortedKeys(labels) {
		parts = append(parts, fmt.Sprintf("%s=%q", k, labels[k]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func suggestMatch(labels map[string]string) string {
	for _, k := range append([]string{"instance", "node", "host", "pod"}, sortedKeys(labels)...) {
		if v, ok := labels[k]; ok {
			return fmt.Sprintf("{%q: %q}", k, v)
		}
	}
	return `{"label": "value"}`
}

func suggestName(plugin string, labels map[string]string) string {
	for _, k := range []string{"instance", "node", "host", "pod"} {
		if v, ok := labels[k]; ok {
			return v
		}
	}
	return plugin
}

// CheckConnections checks each connection against what its plugin says about itself: is there such a plugin, and are
// these its settings? It also gives each setting the type that the plugin wants. manifest finds a plugin's manifest, without starting
// it where possible; plugins are the known names, for hints.
func (s *Settings) CheckConnections(manifest func(plugin string) (sdk.Manifest, error), plugins []string) error {
	all := []*Connection{&s.Metrics}
	for i := range s.Alerts {
		all = append(all, &s.Alerts[i])
	}
	for i := range s.Connections {
		all = append(all, &s.Connections[i])
	}
	for _, c := range all {
		m, err := manifest(c.Plugin)
		if err != nil {
			p := problem.Wrap(problem.PluginMissing, err, "connection %q", c.Name).At(c.at["plugin"])
			if !slices.Contains(plugins, c.Plugin) {
				p = problem.New(problem.PluginMissing, "connection: there is no plugin %q%s", c.Plugin, problem.DidYouMean(c.Plugin, plugins)).
					At(c.at["plugin"]).WithHint("the plugins are: %s", strings.Join(plugins, ", "))
			}
			return p
		}
		if err := c.checkConfig(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *Connection) checkConfig(m sdk.Manifest) error {
	bad := func(format string, args ...any) *problem.Problem {
		return problem.New(problem.Project, "config of connection %q: %s", c.Name, fmt.Sprintf(format, args...)).At(c.at["config"])
	}
	names := make([]string, len(m.Config))
	for i, p := range m.Config {
		names[i] = p.Name
	}
	config := slices.Clone(c.Config)
	for n, e := range config {
		key, _ := e.Key.(value.String)
		i := slices.Index(names, string(key))
		if i < 0 {
			p := bad("plugin %q has no setting %.60q%s", c.Plugin, key, problem.DidYouMean(string(key), names))
			if len(names) > 0 {
				p = p.WithHint("its settings are: %s", strings.Join(names, ", "))
			}
			return p
		}
		p := m.Config[i]
		if r, ok := e.Value.(*value.Record); ok {
			if !slices.Contains(secretRecords, r.Type) {
				return bad("%s cannot be %s", key, kindOf(r))
			}
			if p.Type != "string" && p.Type != "any" {
				return bad("%s is of type %s: only text can be a secret", key, p.Type)
			}
			continue
		}
		if p.Sensitive {
			return bad("%s is a secret: it must not be written here", key).
				WithHint(`write %q: secret.env("NAME") or secret.file("/run/secrets/name")`, key)
		}
		v, ok := convert(e.Value, p.Type)
		if !ok {
			return bad("%s must be of type %s, got %s", key, p.Type, kindOf(e.Value))
		}
		config[n].Value = v
	}
	for _, p := range m.Config {
		if _, ok := c.Config.Get(p.Name); p.Required && !ok {
			return bad("%s is missing: %s", p.Name, p.Doc).WithHint("add %q: ... to config", p.Name)
		}
	}
	c.Config = config
	return nil
}

// convert returns v as a parameter of that type of a manifest wants it, and whether it can.
func convert(v value.Value, typ string) (value.Value, bool) {
	ok := false
	switch typ {
	case "string":
		_, ok = v.(value.String)
	case "int":
		_, ok = v.(value.Int)
	case "float", "number":
		switch n := v.(type) {
		case value.Int:
			if typ == "float" {
				return value.Float(n), true
			}
			ok = true
		case value.Float:
			ok = !math.IsNaN(float64(n)) && !math.IsInf(float64(n), 0)
		}
	case "bool":
		_, ok = v.(value.Bool)
	case "duration":
		switch d := v.(type) {
		case value.Duration:
			ok = true
		case value.String:
			x, err := value.ParseDuration(string(d))
			return value.Duration(x), err == nil
		}
	case "list":
		_, ok = v.(value.List)
	case "dict", "labels":
		d, isDict := v.(value.Dict)
		ok = isDict
		for _, e := range d {
			_, key := e.Key.(value.String)
			_, val := e.Value.(value.String)
			ok = ok && key && (val || typ == "dict")
		}
	case "strings":
		if s, one := v.(value.String); one {
			return value.List{s}, true
		}
		l, isList := v.(value.List)
		ok = isList
		for _, x := range l {
			_, text := x.(value.String)
			ok = ok && text
		}
	case "any":
		ok = v != nil
	}
	return v, ok && !holdsRecord(v)
}

// holdsRecord says whether a declaration is hidden in a value. Secrets are looked for at the top of config only, so one deeper
// down would reach the plugin as a record.
func holdsRecord(v value.Value) bool {
	switch v := v.(type) {
	case *value.Record:
		return true
	case value.List:
		return slices.ContainsFunc(v, holdsRecord)
	case value.Dict:
		return slices.ContainsFunc(v, func(e value.Entry) bool { return holdsRecord(e.Key) || holdsRecord(e.Value) })
	}
	return false
}
