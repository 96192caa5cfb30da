package project

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/declare"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const projectText = `"""The shop's operations."""

project(
    metrics = connection("prometheus", config = {"url": "http://localhost:9090"}),
    connections = [
        connection("exec", name = "web", match = {"role": "web"}, config = {"token": secret.env("TOKEN")}),
    ],
    policy = policy(mode = "auto", attempts = 2, cooldown = "1h", rates = [rate(3, per = "10m")]),
    notify = [webhook("https://hooks.example/x", owners = "team-payments")],
    max_age = "2m",
)
`

const runbookText = `"""A worker's queue is stuck: restart it."""

load("//lib/queue.star", "LIMIT")

runbook(
    owner    = "team-payments",
    trigger  = every("1m"),
    severity = "warning",
    targets  = fleet(
        all  = 'up{job="worker"}',
        sick = 'queue_depth{job="worker"} > $limit',
        by   = "instance",
        held = "5m",
    ),
    mode     = "auto",
    params   = {
        "limit": param.int(LIMIT, min = 100, doc = "jobs waiting above which a worker is stuck"),
        "slow_disk": param.float(0.2, min = 0.0, doc = "seconds per write above which storage is slow"),
        "window": param.duration("5m", max = "1h"),
    },
)

def run(ctx):
    return escalate("stuck")
`

// load writes a project, and reads it and its runbook with a real worker.
func load(t *testing.T, files map[string]string) (*Settings, *Runbook, error) {
	t.Helper()
	all := map[string]string{File: projectText, "worker.star": runbookText, "lib/queue.star": "LIMIT = 1000\n"}
	maps.Copy(all, files)
	tree := openTree(t, makeTree(t, all))
	w := sandboxtest.Worker(t, sandbox.Limits{})
	s, err := LoadSettings(t.Context(), w, tree)
	if err != nil {
		return nil, nil, err
	}
	rb, err := LoadRunbook(t.Context(), w, tree, s, "worker.star", RunbookVocabulary(append(declare.Families(), metrics.Family())))
	return s, rb, err
}

func TestLoad(t *testing.T) {
	t.Parallel()
	s, rb, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxAge != 2*time.Minute || len(s.Connections) != 1 || s.Connections[0].Pos.String() != "project.star:6:9" || len(s.Notify) != 1 || len(s.Policy.Rates) != 1 {
		t.Errorf("%+v", s)
	}
	s.Env = func(string) (string, bool) { return "t0ken", true }
	config, err := s.Resolve(s.Connections[0])
	if diff := cmp.Diff(value.Strings(map[string]string{"token": "t0ken"}), config); err != nil || diff != "" {
		t.Error(err, diff)
	}
	want := value.Dict{
		{Key: value.String("limit"), Value: value.Int(1000)},
		{Key: value.String("slow_disk"), Value: value.Float(0.2)},
		{Key: value.String("window"), Value: value.Duration(5 * time.Minute)},
	}
	if diff := cmp.Diff(want, rb.Params); diff != "" {
		t.Error(diff)
	}
	if rb.Mode != guard.Auto || rb.Targets.Sick.String() != `queue_depth{job="worker"} > 1000` || rb.Doc != "A worker's queue is stuck: restart it." || rb.HasCleanup {
		t.Errorf("%+v", rb)
	}
	if len(rb.Closure) != 2 || rb.Closure[0].Path != "lib/queue.star" || rb.Closure[1].Path != "worker.star" {
		t.Errorf("closure: %v", rb.Closure)
	}
	_, other, err := load(t, map[string]string{"lib/queue.star": "LIMIT = 1000 # the same\n"})
	if err != nil || other.Digest == rb.Digest {
		t.Errorf("a changed library has the same digest, %v", err)
	}
	_, same, err := load(t, map[string]string{"lib/other.star": ""})
	if err != nil || same.Digest != rb.Digest {
		t.Errorf("an unrelated file changes the digest, %v", err)
	}
}

// Each case changes one place of a good file; the messages are what a person reads.
func TestLoadRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, from, to, want string }{
		{File, `max_age = "2m"`, `max_aeg = "2m"`, `project.star:10:5: project has no argument "max_aeg" (did you mean "max_age"?)`},
		{File, `max_age = "2m"`, `max_age = 120`, `project.star:10:5: project: max_age must be a duration, got 120 | write max_age="120s"`},
		{File, `max_age = "2m"`, `max_age = "2s"`, `project.star:10:5: project: max_age is "2s", shorter than sampling "15s": every sample would be stale`},
		{File, `mode = "auto"`, `mode = "automatic"`, `project.star:8:21: policy: mode must be "shadow", "recommend", "approve" or "auto", got "automatic"`},
		{File, `{"role": "web"}`, `{}`, `project.star:6:42: connection: match is missing: every target would be acted on through connection "web" | name the labels of its targets: match = {"instance": "w3"}`},
		{File, "\nproject(", "\nrate(1, per = \"1h\")\nproject(", `project.star:3:1: rate(...) as a statement has no effect | pass it on: policy(rates = [rate(...)])`},
		{File, `secret.env`, `secret.evn`, `project.star:6:92: secret has no .evn (did you mean "env"?) | it has env and file`},
		{"worker.star", `trigger  = every("1m"),`, ``, `worker.star:5:1: runbook needs trigger | add trigger=...: when the runbook is due: every("1m"), alert("QueueStuck") or manual()`},
		{"worker.star", `every("1m")`, `every("1 minute")`, `worker.star:7:22: every: interval must be a duration, got "1 minute" | write it like interval="5m": units are ms, s, m, h, d, w`},
		{"worker.star", `> $limit`, `> $limt`, `worker.star:11:9: sick: PromQL, column 29: there is no parameter $limt (did you mean "limit"?) | the parameters are: $limit, $slow_disk, $window`},
		{"worker.star", `} > $limit`, ` > $limit`, `worker.star:11:9: sick: PromQL, column 26: unexpected character inside braces: '>'`},
		{"worker.star", `min = 100`, `min = 5000`, `worker.star:17:28: param.int: default of limit is 1000, below min 5000`},
		{"worker.star", `param.int(`, `param.integer(`, `worker.star:17:23: param has no .integer | it has bool, duration, float, int and string`},
		{"worker.star", `held = "5m",`, `identity = {"host": "node"},`, `worker.star:13:9: fleet has no argument "identity"`},
		{"worker.star", `def run(ctx)`, `def runs(ctx)`, `worker.star:5:1: the runbook has no function run (did you mean "runs"?) | define what it does for one sick target: def run(ctx): ...`},
		{"lib/queue.star", `LIMIT`, `escalate("x"); LIMIT`, `lib/queue.star:1:1: escalate(...) has no effect in a file that is loaded | move it to worker.star`},
	} {
		text := map[string]string{File: projectText, "worker.star": runbookText, "lib/queue.star": "LIMIT = 1000\n"}[c.file]
		if !strings.Contains(text, c.from) {
			t.Fatalf("%s is not in %s", c.from, c.file)
		}
		_, _, err := load(t, map[string]string{c.file: strings.Replace(text, c.from, c.to, 1)})
		check(t, err, c.want)
	}
}
