package project

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed1de3961f/runbook/builtins/declare"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// rec makes a record as a worker would. args are names and values; strings, ints, durations, lists and maps
// are converted. Each field stands on a line of its own below the record's.
func rec(typ string, args ...any) *value.Record {
	r := &value.Record{Type: typ, Pos: value.Pos{File: "x.star", Line: 1, Col: 1}}
	for i := 0; i < len(args); i += 2 {
		r.Fields = append(r.Fields, value.Field{Name: args[i].(string), Value: val(args[i+1]), Pos: value.Pos{File: "x.star", Line: 2 + i/2, Col: 5}})
	}
	return r
}

// email is one with everything that it needs, and some of it otherwise.
func email(args ...any) *value.Record {
	fields := []any{"server", "mail.example.org:587", "sender", "runbook@example.org", "to", []any{"oncall@example.org"}}
	for i := 0; i < len(args); i += 2 {
		if k := slices.Index(fields, args[i]); k >= 0 {
			fields[k+1] = args[i+1]
			continue
		}
		fields = append(fields, args[i], args[i+1])
	}
	return rec("email", fields...)
}

func val(v any) value.Value {
	switch v := v.(type) {
	case string:
		return value.String(v)
	case int:
		return value.Int(v)
	case float64:
		return value.Float(v)
	case bool:
		return value.Bool(v)
	case time.Duration:
		return value.Duration(v)
	case []any:
		l := value.List{}
		for _, x := range v {
			l = append(l, val(x))
		}
		return l
	case map[string]any:
		m := map[string]value.Value{}
		for k, x := range v {
			m[k] = val(x)
		}
		return value.Map(m)
	case value.Value:
		return v
	}
	panic("no value")
}

type dict = map[string]any

// with returns a copy of args with some replaced or added; a nil value removes.
func with(args []any, changes ...any) []any {
	out := append([]any(nil), args...)
next:
	for i := 0; i < len(changes); i += 2 {
		for j := 0; j < len(out); j += 2 {
			if out[j] == changes[i] {
				if out[j+1] = changes[i+1]; changes[i+1] == nil {
					out = append(out[:j], out[j+2:]...)
				}
				continue next
			}
		}
		if changes[i+1] != nil {
			out = append(out, changes[i], changes[i+1])
		}
	}
	return out
}

func inProject(r *value.Record) *value.Record {
	c := *r
	c.Pos.File = File
	for i := range c.Fields {
		c.Fields[i].Pos.File = File
	}
	return &c
}

func prometheus() *value.Record {
	return rec("connection", "plugin", "prometheus", "config", dict{"url": "http://localhost:9090"})
}

func settings(t *testing.T, args ...any) (*Settings, error) {
	t.Helper()
	return decodeSettings("/srv/ops", sandbox.Module{
		Path: File, Records: []*value.Record{inProject(rec("project", with([]any{"metrics", prometheus()}, args...)...))},
		Closure: []sandbox.File{{Path: File, SHA256: "00"}},
	})
}

func vocabulary() sandbox.Vocabulary {
	return Vocabulary(append(declare.Families(), metrics.Family()))
}

var fleetArgs = []any{"all", `up{job="worker"}`, "sick", `queue_depth{job="worker"} > $limit`, "by", []any{"instance"}, "held", "5m"}

func runbookArgs() []any {
	return []any{
		"owner", "team-payments", "trigger", rec("every", "interval", "1m"), "severity", "warning",
		"targets", rec("fleet", fleetArgs...), "mode", "auto",
		"params",
		dict{"limit": rec("param.int", "default", 1000, "min", 100, "doc", "jobs"), "slow_disk": rec("param.float", "default", 0.2)},
	}
}

func module(records ...*value.Record) sandbox.Module {
	return sandbox.Module{Path: "x.star", Doc: "A worker is stuck.", Records: records, Defs: []string{"run", "cleanup"}, Closure: []sandbox.File{{Path: "x.star", SHA256: "00"}}}
}

func TestContract(t *testing.T) {
	t.Parallel()
	kittest.Contract(t, Families())
	kittest.Contract(t, []kit.Family{RunbookPolicy()})
}

func TestVocabulary(t *testing.T) {
	t.Parallel()
	v := vocabulary()
	if len(v.Declarations) != len(declare.Families()[0].Functions) || len(v.Modules) != 1 || len(v.Families) != 1 {
		t.Errorf("%d declarations, %d modules, %d families", len(v.Declarations), len(v.Modules), len(v.Families))
	}
}

func TestSettingsDefaults(t *testing.T) {
	t.Parallel()
	got, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	policy := guard.Defaults()
	policy.Mode = guard.Auto
	want := &Settings{
		Root: "/srv/ops", StateDir: "/srv/ops/state", Closure: got.Closure, Digest: closureDigest(got.Closure),
		Metrics: Connection{Name: "prometheus", Plugin: "prometheus", Config: value.Strings(map[string]string{"url": "http://localhost:9090"}), Match: map[string]string{}},
		Policy:  policy, Sampling: 15 * time.Second, MaxAge: 3 * time.Minute, Deadline: 10 * time.Minute, Retention: 90 * day,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Connection{}, "Pos"), cmpopts.IgnoreUnexported(Connection{}, Topology{}), cmpopts.IgnoreFields(Settings{}, "Env")); diff != "" {
		t.Error(diff)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	got, err := settings(t,
		"state", "/var/lib/runbook",
		"connections", []any{
			rec("connection", "plugin", "exec", "name", "web", "match", dict{"role": "web"}, "config", dict{"dir": "/x", "token": rec("secret.env", "name", "T")}),
		},
		"policy", rec("policy", "mode", "approve", "severity", "critical", "cooldown", "2h", "attempts", 1, "rates", []any{rec("rate", "count", 5, "per", "1h")},
			"open", 3, "records", 5000, "open_per_fleet", 2, "fleet_share", 10, "settle", "5m", "change_settle", "20m", "breaker", 2, "breaker_window", "30m", "canaries", 1,
			"maintenance", []any{
				rec("weekly", "days", []any{"sat", "Sunday"}, "at", "02:30", "length", "4h", "zone", "Europe/Berlin", "labels", dict{"component": "db"}, "reason", "patching"),
				rec("once", "start", "2026-12-20 22:00", "end", "2027-01-04", "zone", "Europe/Berlin", "reason", "change freeze"),
			},
			"protected", []any{rec("protect", "labels", dict{"component": "db"}, "reason", "primaries"), rec("protect", "target", "w9", "reason", "canary")}),
		"notify", []any{rec("webhook", "url", rec("secret.file", "path", "/run/hook"), "owners", []any{"team-a"}, "headers", dict{"X-Token": rec("secret.env", "name", "T")})},
		"sampling", "30s", "max_age", "5m", "deadline", "2m", "retention", "30d", "heartbeat", "beat.prom", "heartbeat_url", "https://ping.example/x",
		"limits", rec("limits", "steps", 5000, "time", "5s", "memory", "64MiB", "source_file", "16KiB", "source", "1MiB"),
	)
	if err != nil {
		t.Fatal(err)
	}
	wantPolicy := guard.Policy{
		Mode: guard.Approve, SeverityCeiling: guard.Critical, Cooldown: 2 * time.Hour, Attempts: 1, Rates: []guard.Rate{{Count: 5, Per: time.Hour}},
		OpenTotal: 3, OpenPerFleet: 2, FleetShare: 10, Records: 5000, Settle: 5 * time.Minute, ChangeSettle: 20 * time.Minute,
		Component: "component", Breaker: breaker.Policy{Count: 2, Window: 30 * time.Minute, Canaries: 1},
		Maintenance: []control.Window{
			{
				Name: "weekly", Selector: control.Selector{Labels: map[string]string{"component": "db"}}, Reason: "patching", By: got.Policy.Maintenance[0].By,
				Days: []time.Weekday{time.Saturday, time.Sunday}, At: 150 * time.Minute, Length: 4 * time.Hour, Zone: "Europe/Berlin",
			},
			{
				Name: "once", Selector: control.Selector{Labels: map[string]string{}, All: true}, Reason: "change freeze", By: got.Policy.Maintenance[1].By,
				Start: time.Date(2026, 12, 20, 21, 0, 0, 0, time.UTC), End: time.Date(2027, 1, 3, 23, 0, 0, 0, time.UTC), Zone: "Europe/Berlin",
			},
		},
		Protected: []guard.Protection{
			{Selector: control.Selector{Labels: map[string]string{"component": "db"}}, Reason: "primaries"},
			{Selector: control.Selector{Labels: map[string]string{}, Target: "w9"}, Reason: "canary"},
		},
	}
	wantLimits := sandbox.Limits{Steps: 5000, Time: 5 * time.Second, Memory: 64 << 20, SourceFile: 16 << 10, SourceAll: 1 << 20}
	if diff := cmp.Diff(wantPolicy, got.Policy) + cmp.Diff(wantLimits, got.Limits); diff != "" {
		t.Error(diff)
	}
	if got.StateDir != "/var/lib/runbook" || got.Heartbeat != "/srv/ops/beat.prom" || got.HeartbeatURL != value.String("https://ping.example/x") {
		t.Errorf("state %s, heartbeat %s, %v", got.StateDir, got.Heartbeat, got.HeartbeatURL)
	}
	if w := got.Notify[0]; !w.Wants("team-a") || w.Wants("team-b") || w.URL.Kind() != "secret.file" || w.Headers["X-Token"].Kind() != "secret.env" {
		t.Errorf("webhook: %+v", w)
	}
	if got.Connections[0].Name != "web" || got.Connections[0].Match["role"] != "web" {
		t.Errorf("connections: %+v", got.Connections)
	}
}

func TestRunbook(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", runbookArgs()...)))
	if err != nil {
		t.Fatal(err)
	}
	if rb.Name != "x" || rb.Owner != "team-payments" || rb.Severity != guard.Warning || rb.Mode != guard.Auto || rb.Every != time.Minute || !rb.HasCleanup || rb.Doc != "A worker is stuck." {
		t.Errorf("%+v", rb)
	}
	if diff := cmp.Diff(value.Dict{{Key: value.String("limit"), Value: value.Int(1000)}, {Key: value.String("slow_disk"), Value: value.Float(0.2)}}, rb.Params); diff != "" {
		t.Error(diff)
	}
	if got := rb.Targets.Sick.String() + " of " + rb.Targets.All.String(); got != `queue_depth{job="worker"} > 1000 of up{job="worker"}` {
		t.Error(got)
	}
	target, err := rb.Target(map[string]string{"__name__": "up", "job": "worker", "instance": "w3"})
	want := action.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"job": "worker", "instance": "w3"}}
	if diff := cmp.Diff(want, target); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if !rb.Matches(target, map[string]string{"instance": "w3", "mode": "idle"}) || rb.Matches(target, map[string]string{"instance": "w4"}) {
		t.Error("Matches is wrong")
	}
	wantV := action.Verification{Expr: `queue_depth{job="worker"}`, Op: ">", Threshold: 1000, Match: map[string]string{"instance": "w3"}, Held: 5 * time.Minute, Sampling: s.Sampling}
	if diff := cmp.Diff(wantV, rb.Verification(target, s.Sampling)); diff != "" {
		t.Error(diff)
	}
	if e, err := rb.Parse("a > $slow_disk"); err != nil || e.String() != "a > 0.2" {
		t.Errorf("%v, %v", e, err)
	}
	_, err = rb.Target(map[string]string{"job": "worker", "instnce": "w3"})
	if err == nil || err.Error() != `x.star:1:1: by: a series of the fleet has no label "instance": {instnce="w3", job="worker"} (did you mean "instnce"?)` {
		t.Error(err)
	}
}

func TestSingle(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	single := rec("single", "name", "cdn", "labels", dict{"host": "edge1"}, "sick", "errors > 0.1")
	rb, err := decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", with(runbookArgs(), "targets", single, "mode", nil, "severity", nil)...)))
	if err != nil {
		t.Fatal(err)
	}
	want := action.Target{Key: "single=cdn", Name: "cdn", Labels: map[string]string{"host": "edge1"}}
	if diff := cmp.Diff(want, rb.Targets.Target); diff != "" || !rb.Targets.Single || rb.Targets.All != nil || rb.Targets.Held != 0 {
		t.Error(diff, rb.Targets)
	}
	if rb.Mode != guard.Recommend || rb.Severity != guard.Critical {
		t.Errorf("defaults: %s, %s", rb.Mode, rb.Severity)
	}
}

func TestFleetID(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	id := func(changes ...any) string {
		rb, err := decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", with(runbookArgs(), "targets", rec("fleet", with(fleetArgs, changes...)...))...)))
		if err != nil {
			t.Fatal(err)
		}
		return rb.Targets.ID
	}
	base := id()
	if base != id("sick", "other > 1", "held", "1m") || base != id("all", `up {  job = "worker" }`) {
		t.Error("the same population has two ids")
	}
	if base == id("all", "up") || base == id("by", []any{"instance", "job"}) {
		t.Error("two populations have one id")
	}
	if id("by", []any{"instance", "job"}) != id("by", []any{"job", "instance"}) {
		t.Error("the order of by matters")
	}
}

func TestTargetKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		by   map[string]string
		want string
	}{
		{map[string]string{"pod": "p-1", "namespace": "shop"}, "namespace=shop,pod=p-1"},
		{map[string]string{"a": "1,b=2"}, `a="1,b=2"`},
		{map[string]string{"a": `x"y`}, `a="x\"y"`},
		{map[string]string{"a": "é"}, `a="\u00e9"`},
	} {
		if got := targetKey(slices.Sorted(maps.Keys(c.by)), c.by); got != c.want {
			t.Errorf("%v: %s, want %s", c.by, got, c.want)
		}
	}
}

func loadPolicy(s *Settings, p *value.Record) (*Runbook, error) {
	v := Vocabulary(append(declare.Families(), metrics.Family(), RunbookPolicy()))
	return decodeRunbook(s, "x.star", v, module(rec("runbook", with(runbookArgs(), "policy", p)...)))
}

func TestTighten(t *testing.T) {
	t.Parallel()
	s, err := settings(t, "policy", rec("policy", "mode", "approve", "attempts", 3, "cooldown", "1h"))
	if err != nil {
		t.Fatal(err)
	}
	load := func(changes ...any) (*Runbook, error) {
		return decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", with(runbookArgs(), changes...)...)))
	}
	rb, err := load("attempts", 1, "cooldown", "2h")
	if err != nil {
		t.Fatal(err)
	}
	if rb.Mode != guard.Approve || rb.Policy.Mode != guard.Approve || rb.Policy.Attempts != 1 || rb.Policy.Cooldown != 2*time.Hour {
		t.Errorf("%+v", rb.Policy)
	}
	own := rec("policy", "open", 1, "fleet_share", 10, "settle", "3m", "change_settle", "1h", "severity", "info",
		"rates", []any{rec("rate", "count", 1, "per", "1h")}, "protected", []any{rec("protect", "target", "w9", "reason", "canary")})
	if rb, err = loadPolicy(s, own); err != nil {
		t.Fatal(err)
	}
	if p := rb.Policy; p.FleetShare != 10 || p.Settle != 3*time.Minute || p.ChangeSettle != time.Hour || p.SeverityCeiling != guard.Info || len(p.Rates) != 3 || len(p.Protected) != 1 {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct {
		name, is, than string
		value          any
	}{
		{"open", "2", "1", 2},
		{"open_per_fleet", "2", "1", 2},
		{"fleet_share", "21", "20", 21},
		{"settle", "1m59s", "2m", "1m59s"},
		{"change_settle", "9m", "10m", "9m"},
		{"severity", "critical", "warning", "critical"},
		{"rates", "4 per 10m", "3 per 10m", []any{rec("rate", "count", 4, "per", "10m")}},
		{"rates", "11 per 30m", "10 per 1h", []any{rec("rate", "count", 11, "per", "30m")}},
	} {
		_, err := loadPolicy(s, rec("policy", c.name, c.value))
		check(t, err, "x.star:2:5: policy: "+c.name+" is "+c.is+", looser than the project's "+c.than+
			" | a runbook may be stricter than the project, not looser: change policy("+c.name+"=) in project.star")
	}
	for text, p := range map[string]*value.Record{
		"x.star:1:1: protect: it names nothing, and nothing is never taken for everything | name what is protected: protect(labels = {\"component\": \"db\"}, reason = \"...\")": rec("policy", "protected", []any{rec("protect", "reason", "x")}),
		"x.star:3:5: protect: labels has a pattern: \"a\": \"*\" | labels are compared as they are; write the value itself":                                                      rec("policy", "protected", []any{rec("protect", "reason", "x", "labels", dict{"a": "*"})}),
		"x.star:3:5: weekly: at \"2am\" is not a time of day | write it like \"02:00\"":                                                                                          rec("policy", "maintenance", []any{rec("weekly", "days", []any{"sat"}, "at", "2am", "length", "1h", "reason", "x")}),
		"x.star:2:5: weekly: days \"caturday\" is not a day of the week | write mon, tue, wed, thu, fri, sat or sun":                                                             rec("policy", "maintenance", []any{rec("weekly", "days", []any{"caturday"}, "at", "02:00", "length", "1h", "reason", "x")}),
		"x.star:1:1: once: it must end after it begins":                                                                                                                          rec("policy", "maintenance", []any{rec("once", "start", "2026-03-01", "end", "2026-03-01", "reason", "x")}),
		"x.star:4:5: once: start there is no time zone \"Mars\" | write one of the IANA database, such as Europe/Berlin, or UTC":                                                 rec("policy", "maintenance", []any{rec("once", "end", "2026-03-02", "zone", "Mars", "start", "2026-03-01", "reason", "x")}),
	} {
		_, err := loadPolicy(s, p)
		check(t, err, text)
	}
	if rb, err = load("mode", "shadow"); err != nil || rb.Mode != guard.Shadow {
		t.Errorf("%v", err)
	}
	check(t, err, "")
	_, err = load("attempts", 4)
	check(t, err, "x.star:8:5: runbook: attempts is 4, more than the project's 3 | a runbook may be stricter than the project, not looser: raise policy(attempts=) in project.star")
	_, err = load("cooldown", "59m")
	check(t, err, `x.star:8:5: runbook: cooldown is "59m", shorter than the project's "1h" | a runbook may be stricter than the project, not looser: lower policy(cooldown=) in project.star`)
}

// check compares an error with "text | hint".
func check(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		var p *problem.Problem
		if !errors.As(err, &p) {
			t.Errorf("not a problem: %v", err)
			return
		}
		if got = p.Error(); p.Hint != "" {
			got += " | " + p.Hint
		}
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSettingsRefused(t *testing.T) {
	t.Parallel()
	conn := func(changes ...any) *value.Record {
		return rec("connection", with([]any{"plugin", "exec", "match", dict{"a": "b"}}, changes...)...)
	}
	for _, c := range []struct {
		args []any
		want string
	}{
		{[]any{"metrcs", 1}, `project.star:3:5: project has no argument "metrcs" (did you mean "metrics"?)`},
		{[]any{"metrics", nil}, `project.star:1:1: project needs metrics | add metrics=...: where metrics are read: connection("prometheus", config = {"url": ...})`},
		{[]any{"metrics", "http://x"}, `project.star:2:5: project: metrics must be connection(...), got "http://x"`},
		{[]any{"sampling", 15}, `project.star:3:5: project: sampling must be a duration, got 15 | write sampling="15s"`},
		{[]any{"sampling", "0s"}, `project.star:3:5: project: sampling must be from "1s" to "1h", got "0s"`},
		{[]any{"sampling", "5m"}, `project.star:1:1: project: max_age is "3m", shorter than sampling "5m": every sample would be stale`},
		{[]any{"state", "."}, `project.star:3:5: project: state cannot be the project root itself`},
		{[]any{"state", ""}, `project.star:3:5: project: state must not be empty nor begin or end with a space, got ""`},
		{[]any{"heartbeat", "/x/beat.txt"}, `project.star:3:5: project: heartbeat must end in .prom, got "/x/beat.txt" | node_exporter reads no other files`},
		{[]any{"heartbeat_url", "ping.example"}, `project.star:3:5: project: heartbeat_url must be of the form https://host/path, got "ping.example"`},
		{[]any{"heartbeat_url", 5}, `project.star:3:5: project: heartbeat_url must be text or a secret, got an int | write it in quotes, or secret.env("NAME")`},
		{[]any{"connections", []any{rec("rate", "count", 1, "per", "1h")}}, `project.star:3:5: project: connections must be a list of connection(...), got a list`},
		{[]any{"connections", []any{conn("match", nil)}}, `x.star:1:1: connection: match is missing: every target would be acted on through connection "exec" | name the labels of its targets: match = {"instance": "w3"}`},
		{[]any{"connections", []any{conn("match", dict{})}}, `x.star:3:5: connection: match is missing: every target would be acted on through connection "exec" | name the labels of its targets: match = {"instance": "w3"}`},
		{[]any{"connections", []any{conn("match", dict{"a": ""})}}, `x.star:3:5: connection: match has an empty label or value: "a": ""`},
		{[]any{"connections", []any{conn("match", dict{"a": "web*"})}}, `x.star:3:5: connection: match has a pattern: "a": "web*" | labels are compared as they are; write the value itself`},
		{[]any{"connections", []any{conn("confine", rec("confine", "read", []any{"/srv", "srv"}))}}, `x.star:2:5: confine: read has "srv", which is not a clean absolute path`},
		{[]any{"connections", []any{conn("confine", rec("confine", "write", []any{"/srv/../etc"}))}}, `x.star:2:5: confine: write has "/srv/../etc", which is not a clean absolute path`},
		{[]any{"connections", []any{conn("confine", true)}}, `x.star:4:5: connection: confine must be confine(...), got True`},
		{[]any{"connections", []any{conn(), conn()}}, `x.star:1:1: two connections have the name "exec": the other is at x.star:1:1 | give each its own: connection("exec", name = "...", ...)`},
		{[]any{"connections", []any{conn("config", dict{"a": rec("secret.env")})}}, `x.star:1:1: secret.env needs name | add name=...: name of the variable; it must be set and not empty`},
		{[]any{"metrics", conn()}, `x.star:3:5: connection: match has no meaning for metrics and alerts | leave it out`},
		{[]any{"policy", rec("policy", "mode", "automatic")}, `x.star:2:5: policy: mode must be "shadow", "recommend", "approve" or "auto", got "automatic"`},
		{[]any{"policy", rec("policy", "severity", "warnig")}, `x.star:2:5: policy: severity must be "info", "warning" or "critical", got "warnig" (did you mean "warning"?)`},
		{[]any{"policy", rec("policy", "attempts", 0)}, `x.star:2:5: policy: attempts must be from 1 to 100, got 0`},
		{[]any{"policy", rec("policy", "fleet_share", 101)}, `x.star:2:5: policy: fleet_share must be from 1 to 100, got 101`},
		{[]any{"policy", rec("policy", "fleet_share", 0)}, `x.star:2:5: policy: fleet_share must be from 1 to 100, got 0`},
		{[]any{"policy", rec("policy", "cooldown", "0s")}, `x.star:2:5: policy: cooldown must be from "1ms" to "365d", got "0s"`},
		{[]any{"policy", rec("policy", "settle", "0s")}, `x.star:2:5: policy: settle must be from "1ms" to "1d", got "0s"`},
		{[]any{"policy", rec("policy", "rates", []any{})}, `x.star:2:5: policy: rates is empty: there must be a limit | write rates = [rate(3, per = "10m")], or a large count`},
		{[]any{"policy", rec("policy", "cooldown", "2")}, `x.star:2:5: policy: cooldown must be a duration, got "2" | write cooldown="2s"`},
		{[]any{"limits", rec("limits", "memory", "1MiB")}, `x.star:2:5: limits: memory must be from 64MiB to 4GiB, got 1MiB`},
		{[]any{"limits", rec("limits", "memory", "128MB")}, `x.star:2:5: limits: memory must be a size, got "128MB" | write it like memory = "1MiB": units are KiB, MiB and GiB`},
		{[]any{"limits", rec("limits", "source", "1KiB")}, `x.star:2:5: limits: source is smaller than source_file, which it includes`},
		{[]any{"notify", []any{rec("slack", "url", "https://hooks.slack.com/x")}}, `x.star:2:5: slack: url is a secret of slack: it must not be written here | write secret.env("NAME") or secret.file("/run/secrets/name")`},
		{[]any{"notify", []any{rec("pagerduty", "key", "R0")}}, `x.star:2:5: pagerduty: key is a secret of pagerduty: it must not be written here | write secret.env("NAME") or secret.file("/run/secrets/name")`},
		{[]any{"notify", []any{rec("opsgenie", "key", rec("secret.env", "name", "K"), "url", "eu")}}, `x.star:3:5: opsgenie: url must be of the form https://host/path, got "eu"`},
		{[]any{"notify", []any{email("server", "mail.example.org")}}, `x.star:2:5: email: server is "mail.example.org", not host:port | for example "mail.example.org:587"`},
		{[]any{"notify", []any{email("server", "mail:0")}}, `x.star:2:5: email: server is "mail:0", not host:port | for example "mail.example.org:587"`},
		{[]any{"notify", []any{email("sender", "runbook")}}, `x.star:3:5: email: sender is "runbook", not a mail address`},
		{[]any{"notify", []any{email("to", []any{})}}, `x.star:4:5: email: to has nobody`},
		{[]any{"notify", []any{email("to", []any{"a@b", "c\r\nBcc: d@e"})}}, `x.star:4:5: email: to is "c\r\nBcc: d@e", not a mail address`},
		{[]any{"notify", []any{email("tls", "ssl")}}, `x.star:5:5: email: tls must be "starttls", "tls" or "none", got "ssl" (did you mean "tls"?)`},
		{[]any{"notify", []any{email("user", "u")}}, `x.star:5:5: email: user and password go together`},
		{[]any{"notify", []any{email("user", "u", "password", "p")}}, `x.star:6:5: email: password is a secret of email: it must not be written here | write secret.env("NAME") or secret.file("/run/secrets/name")`},
		{[]any{"notify", []any{email("user", "u", "password", rec("secret.env", "name", "P"), "tls", "none")}}, `x.star:7:5: email: tls is none, which would send the password in the clear`},
		{[]any{"notify", []any{rec("webhook", "url", "x")}}, `x.star:2:5: webhook: url must be of the form https://host/path, got "x"`},
		{[]any{"notify", []any{rec("webhook", "url", "https://x/", "headers", dict{"a b": "c"})}}, `x.star:3:5: webhook: headers has "a b", which is not the name of a header`},
		{[]any{"notify", []any{rec("webhook", "url", "https://x/", "headers", dict{"a": "c\r\nd"})}}, `x.star:3:5: webhook: headers has a line break`},
		{[]any{"notify", []any{rec("webhook", "url", "https://x/", "owners", []any{})}}, `x.star:3:5: webhook: owners has no name or an empty one | leave it out for everybody`},
	} {
		_, err := settings(t, c.args...)
		check(t, err, c.want)
	}
}

func TestRunbookRefused(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	fleet := func(changes ...any) []any { return []any{"targets", rec("fleet", with(fleetArgs, changes...)...)} }
	params := func(r any) []any { return []any{"params", dict{"limit": r}} }
	for _, c := range []struct {
		args []any
		want string
	}{
		{[]any{"trigger", nil}, `x.star:1:1: runbook needs trigger | add trigger=...: when the runbook is due: every("1m"), alert("QueueStuck") or manual()`},
		{[]any{"trigger", "1m"}, `x.star:3:5: runbook: trigger must be every(...) or alert(...) or manual(...), got "1m"`},
		{[]any{"trigger", rec("every", "interval", "10ms")}, `x.star:2:5: every: interval must be from "1s" to "7d", got "10ms"`},
		{[]any{"owner", " "}, `x.star:2:5: runbook: owner must not be empty nor begin or end with a space, got " "`},
		{[]any{"severty", "warning"}, `x.star:8:5: runbook has no argument "severty" (did you mean "severity"?)`},
		{[]any{"mode", "on"}, `x.star:6:5: runbook: mode must be "shadow", "recommend", "approve" or "auto", got "on"`},
		{[]any{"params", dict{"limit": 5}}, `x.star:7:5: runbook: params limit must be a param, got an int | write "limit": param.int(..., doc = "...")`},
		{[]any{"params", dict{"a-b": rec("param.int", "default", 1)}}, `x.star:7:5: runbook: params has "a-b", which cannot be written as $name | use letters, digits and _, and begin with a letter`},
		{params(rec("param.int", "default", 5, "min", 10)), `x.star:2:5: param.int: default of limit is 5, below min 10`},
		{params(rec("param.float", "default", 5, "max", 1.5)), `x.star:2:5: param.float: default of limit is 5, above max 1.5`},
		{params(rec("param.duration", "default", "5m", "min", "1h", "max", "1m")), `x.star:3:5: param.duration: min of limit is 1h, above max 1m`},
		{params(rec("param.int", "default", "5")), `x.star:2:5: param.int: default must be an int, got "5" | write default=5 without quotes`},
		{params(rec("param.string", "default", "x")), `x.star:3:5: sick: PromQL, column 29: $limit is a string: only a number or a duration can be a parameter of a query | to choose series by a label, pass where = {"label": value}`},
		{fleet("sick", `queue_depth > $limt`), `x.star:3:5: sick: PromQL, column 15: there is no parameter $limt (did you mean "limit"?) | the parameters are: $limit, $slow_disk`},
		{fleet("sick", `queue_depth >`), `x.star:3:5: sick: PromQL, column 14: unexpected end of input`},
		{fleet("sick", `queue_depth`), `x.star:3:5: sick: queue_depth is not a comparison | write a comparison of one query with a number, such as queue_depth > 100`},
		{fleet("sick", `vector(1) > 0`), `x.star:3:5: fleet: sick reads no series: vector(1) > 0`},
		{fleet("all", `up[5m]`), `x.star:2:5: fleet: all must give one series for each member: up[5m] does not | write a query such as up{job="worker"}`},
		{fleet("all", `vector(1)`), `x.star:2:5: fleet: all reads no series: vector(1)`},
		{fleet("by", []any{}), `x.star:4:5: fleet: by must name at least one label, and none may be empty | name the label that tells one target from another: by = "instance"`},
		{fleet("by", []any{"a", "b", "a"}), `x.star:4:5: fleet: by names a label twice: a, a, b`},
		{fleet("held", "8d"), `x.star:5:5: fleet: held must be from "0s" to "7d", got "8d"`},
		{fleet("max_bad", 0), `x.star:6:5: fleet: max_bad must be from 1 to 1000000, got 0`},
		{fleet("max_bed", 1), `x.star:6:5: fleet has no argument "max_bed" (did you mean "max_bad"?)`},
	} {
		_, err := decodeRunbook(s, "x.star", vocabulary(), module(rec("runbook", with(runbookArgs(), c.args...)...)))
		check(t, err, c.want)
	}
}

func TestStatementsRefused(t *testing.T) {
	t.Parallel()
	s, err := settings(t)
	if err != nil {
		t.Fatal(err)
	}
	good := rec("runbook", runbookArgs()...)
	lib := rec("runbook", runbookArgs()...)
	lib.Pos.File = "lib/x.star"
	for _, c := range []struct {
		records []*value.Record
		defs    []string
		want    string
	}{
		{nil, []string{"run"}, `x.star: there is no runbook(...) | begin the file with runbook(owner = "...", trigger = every("1m"), targets = fleet(...))`},
		{[]*value.Record{good, good}, []string{"run"}, `x.star:1:1: a second runbook(...): the first is at x.star:1:1 | keep one`},
		{[]*value.Record{good, rec("escalate", "reason", "x")}, []string{"run"}, `x.star:1:1: escalate(...) as a statement has no effect | return it from run(ctx)`},
		{[]*value.Record{lib, good}, []string{"run"}, `lib/x.star:1:1: runbook(...) in a file that is loaded has no effect | declare it in x.star itself`},
		{[]*value.Record{nil}, []string{"run"}, `x.star: the worker sent an empty declaration`},
		{[]*value.Record{good}, []string{"rnu", "help"}, `x.star:1:1: the runbook has no function run (did you mean "rnu"?) | define what it does for one sick target: def run(ctx): ...`},
	} {
		m := module(c.records...)
		m.Defs = c.defs
		_, err := decodeRunbook(s, "x.star", vocabulary(), m)
		check(t, err, c.want)
	}
	_, err = decodeSettings("/srv/ops", sandbox.Module{Records: []*value.Record{inProject(rec("project", "metrics", prometheus())), inProject(rec("project", "metrics", prometheus()))}})
	check(t, err, `project.star:1:1: a second project(...): the first is at project.star:1:1 | keep one`)
	_, err = decodeSettings("/srv/ops", sandbox.Module{Records: []*value.Record{inProject(prometheus())}})
	check(t, err, `project.star:1:1: connection(...) as a statement has no effect | pass it on: project(connections = [connection(...)])`)
}
