// Package project reads project.star and runbook files: it hands their text to a worker and turns the
// records that come back into typed settings and runbooks.
//
// What a worker returns is hostile input. Every record is checked against the declarations again, every
// number against its range, every query is parsed here. Whoever gets a Settings or a Runbook can rely on
// each of its fields.
package project

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/mail"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Settings are what project.star says.
type Settings struct {
	Root         string // absolute
	StateDir     string // absolute
	Closure      []sandbox.File
	Digest       string // of the closure
	Metrics      Connection
	Alerts       []Connection // the Alertmanagers
	Topology     Topology
	Plugins      []Plugin // that are not part of this program
	Connections  []Connection
	Policy       guard.Policy // Mode is a ceiling
	Notify       []Webhook
	Sampling     time.Duration
	MaxAge       time.Duration
	Deadline     time.Duration
	Retention    time.Duration // how long settled records are kept
	Heartbeat    string        // absolute path of a textfile, "" for none
	HeartbeatURL value.Value   // text or secret for URL, nil for none
	Limits       sandbox.Limits

	// Env reads the environment for secret.env. Whoever starts the engine sets it; without it no such secret can be read.
	Env func(name string) (string, bool)
}

// Plugin is a plugin that is a program of its own.
type Plugin struct {
	Name string
	Path string // absolute
	Pos  value.Pos
}

// Webhook is a notification route.
type Webhook struct {
	Service string      // webhook, slack, pagerduty, opsgenie or email
	Key     value.Value // secret of pagerduty and opsgenie, password of email or nil
	URL     value.Value // text or secret, for Settings.URL; not of email
	Owners  []string    // empty: everybody's
	Headers map[string]value.Value
	Mail    notify.EmailServer // of email, without its password
	Pos     value.Pos
}

// Wants says whether the notices of an owner go to this route.
func (w Webhook) Wants(owner string) bool {
	return len(w.Owners) == 0 || slices.Contains(w.Owners, owner)
}

// LikelyState is where the state directory is likely to be, by a look at the text of project.star: a place to look for what was remembered of
// that file, and nothing to rely on.
func LikelyState(t *Tree) string {
	state := "state"
	text, _ := t.Read(File) // what is wrong with it is found when it is loaded
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "=")
		if quoted := strings.Split(rest, `"`); strings.TrimSpace(name) == "state" && len(quoted) > 2 {
			state = quoted[1]
		}
	}
	if filepath.IsAbs(state) {
		return filepath.Clean(state)
	}
	return filepath.Join(t.Root(), filepath.FromSlash(state))
}

// ownVocabulary is that of project.star.
var ownVocabulary = sync.OnceValue(func() sandbox.Vocabulary { return Vocabulary(Families()) })

// LoadSettings reads project.star.
func LoadSettings(ctx context.Context, w sandbox.Worker, t *Tree) (*Settings, error) {
	m, err := w.Load(ctx, File, ownVocabulary(), t)
	if err != nil {
		return nil, err
	}
	s, err := decodeSettings(t.Root(), m)
	if err != nil {
		return nil, err
	}
	topology, files, err := loadTopology(ctx, w, t)
	if err != nil {
		return nil, err
	}
	if s.Topology = topology; files != nil {
		s.Digest = closureDigest(slices.Concat(s.Closure, files))
	}
	return s, nil
}

func decodeSettings(root string, m sandbox.Module) (*Settings, error) {
	d := &decoder{code: problem.Project, lookup: declaration(ownVocabulary())}
	rec := d.only(m.Records, "project", File, `write project(metrics = connection("prometheus", config = {"url": "http://..."}))`)
	if d.err != nil {
		return nil, d.err
	}
	f := d.record(rec)
	if d.err != nil {
		return nil, d.err
	}
	s := &Settings{
		Root: root, Closure: m.Closure, Digest: closureDigest(m.Closure),
		Metrics:     d.connection(f.one("metrics"), false),
		Alerts:      d.connections(f.records("alerts"), false),
		Connections: d.connections(f.records("connections"), true),
		Policy:      d.policy(f.one("policy")),
		Limits:      d.limits(f.one("limits")),
		Sampling:    f.duration("sampling", time.Second, time.Hour),
		MaxAge:      f.duration("max_age", time.Second, day),
		Deadline:    f.duration("deadline", time.Second, day),
		Retention:   f.duration("retention", 7*day, 10*longest),
	}
	if d.err == nil && s.MaxAge < s.Sampling {
		f.fail("max_age", "is %q, shorter than sampling %q: every sample would be stale", value.FormatDuration(s.MaxAge), value.FormatDuration(s.Sampling))
	}
	s.StateDir = f.path("state", root)
	if s.StateDir == filepath.Clean(root) {
		f.fail("state", "cannot be the project root itself")
	}
	if f.has("heartbeat") {
		if s.Heartbeat = f.path("heartbeat", root); filepath.Ext(s.Heartbeat) != ".prom" {
			f.fail("heartbeat", "must end in .prom, got %q", f.text("heartbeat")).hint("node_exporter reads no other files")
		}
	}
	if f.has("heartbeat_url") {
		s.HeartbeatURL = f.url("heartbeat_url")
	}
	for _, r := range f.records("plugins") {
		s.Plugins = append(s.Plugins, d.plugin(r, root, s.Plugins))
	}
	for _, r := range f.records("notify") {
		s.Notify = append(s.Notify, d.webhook(r))
	}
	if d.err != nil {
		return nil, d.err
	}
	return s, nil
}

func (d *decoder) plugin(r *value.Record, root string, others []Plugin) Plugin {
	f := d.record(r)
	p := Plugin{Pos: r.Pos}
	if d.err != nil {
		return p
	}
	p.Name, p.Path = f.words("name"), f.path("path", root)
	for _, o := range others {
		if o.Name == p.Name {
			f.fail("name", "is %q, as of another plugin at %s", p.Name, o.Pos)
		}
	}
	return p
}

func (d *decoder) webhook(r *value.Record) Webhook {
	f := d.record(r)
	w := Webhook{Pos: r.Pos, Service: r.Type}
	if d.err != nil {
		return w
	}
	if r.Type != "email" {
		w.URL = f.url("url")
	}
	secret := func(name string, v value.Value) {
		if _, ok := v.(*value.Record); d.err == nil && !ok {
			f.fail(name, "is a secret of %s: it must not be written here", r.Type).hint(`write secret.env("NAME") or secret.file("/run/secrets/name")`)
		}
	}
	switch r.Type {
	case "slack":
		secret("url", w.URL)
	case "pagerduty", "opsgenie":
		w.Key = f.textOrSecret("key", f.by["key"].Value)
		secret("key", w.Key)
	case "email":
		w.Mail = f.mail()
		if f.has("password") {
			w.Key = f.textOrSecret("password", f.by["password"].Value)
			secret("password", w.Key)
		}
		if (w.Mail.User == "") != (w.Key == nil) {
			f.fail("user", "and password go together")
		}
		if w.Key != nil && w.Mail.Encryption == notify.Plaintext {
			f.fail("tls", "is none, which would send the password in the clear")
		}
	}
	w.Owners = f.strings("owners")
	if f.has("owners") && (len(w.Owners) == 0 || slices.Contains(w.Owners, "")) {
		f.fail("owners", "has no name or an empty one").hint("leave it out for everybody")
	}
	w.Headers = map[string]value.Value{}
	if r.Type != "webhook" {
		return w
	}
	for _, e := range field[value.Dict](f, "headers") {
		k, _ := e.Key.(value.String)
		if !isHeader(string(k)) {
			f.fail("headers", "has %.60q, which is not the name of a header", k)
		}
		w.Headers[string(k)] = f.textOrSecret("headers", e.Value)
	}
	return w
}

// mail is where an email goes.
func (f fields) mail() notify.EmailServer {
	s := notify.EmailServer{Address: f.words("server"), From: f.words("sender"), To: f.strings("to"), Encryption: oneOf(f, "tls", notify.STARTTLS, notify.TLS, notify.Plaintext)}
	if host, port, err := net.SplitHostPort(s.Address); err != nil || host == "" || !isPort(port) {
		f.fail("server", "is %.80q, not host:port", s.Address).hint(`for example "mail.example.org:587"`)
	}
	for name, all := range map[string][]string{"sender": {s.From}, "to": s.To} {
		if len(all) == 0 {
			f.fail(name, "has nobody")
		}
		for _, a := range all {
			if _, err := mail.ParseAddress(a); err != nil {
				f.fail(name, "is %.80q, not a mail address", a)
			}
		}
	}
	if f.has("user") {
		s.User = f.words("user")
	}
	return s
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// one is a field that is a record, nil if it was not given.
func (f fields) one(name string) *value.Record { return field[*value.Record](f, name) }

// path is a field that is a path, made absolute from root.
func (f fields) path(name, root string) string {
	p := filepath.FromSlash(f.words(name))
	if !filepath.IsAbs(p) {
		p = filepath.Join(root, p)
	}
	return filepath.Clean(p)
}

// url is a field that is a URL as text or as a secret; that of a secret is checked when it is read.
func (f fields) url(name string) value.Value {
	v := f.textOrSecret(name, f.by[name].Value)
	if s, ok := v.(value.String); ok && !isURL(string(s)) {
		f.fail(name, "must be of the form https://host/path, got %.80q", s)
	}
	return v
}

func (f fields) textOrSecret(name string, v value.Value) value.Value {
	switch v := v.(type) {
	case value.String:
		if strings.ContainsAny(string(v), "\r\n\x00") {
			f.fail(name, "has a line break")
		}
		return v
	case *value.Record:
		if slices.Contains(secretRecords, v.Type) {
			f.d.record(v)
			return v
		}
	}
	f.fail(name, "must be text or a secret, got %s", kindOf(v)).hint(`write it in quotes, or secret.env("NAME")`)
	return value.String("")
}

func isHeader(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// closureDigest is one hash over the paths and hashes of a source closure.
func closureDigest(files []sandbox.File) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %s\n", f.Path, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
