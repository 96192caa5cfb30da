package sandbox_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

const worker = `"""A worker is stuck."""

load("//lib/slow.star", "slow")

runbook(
    owner = "team",
    trigger = every("1m"),
    params = {"limit": param.int(1000, min = 1)},
)

def run(ctx):
    disk = ctx.metrics.value("disk", where = {"instance": ctx.target.labels["storage"]})
    if slow(disk) and disk > 1:
        return escalate("slow: %s" % disk)
    for i in range(3):
        if not (i < ctx.params.limit):
            print("never")
    r = ctx.systemd.restart("worker.service", reason = "stuck", cooldown = "30m", must = False)
    if r.ok:
        return nothing()
    return escalate(r.status + " at " + str(ctx.now))
`

var project = sandboxtest.Files{
	"main.star":     worker,
	"lib/slow.star": "LIMIT = 0.2\n\ndef slow(x):\n    return x > LIMIT\n",
}

func TestLoad(t *testing.T) {
	t.Parallel()
	m, err := sandboxtest.Worker(t, sandbox.Limits{}).Load(t.Context(), "main.star", vocabulary(), project)
	if err != nil {
		t.Fatal(err)
	}
	if m.Path != "main.star" || m.Doc != "A worker is stuck." || len(m.Closure) != 2 || m.Closure[0].Path != "lib/slow.star" || len(m.Closure[1].SHA256) != 64 {
		t.Errorf("%+v", m)
	}
	if d := cmp.Diff([]string{"run"}, m.Defs); d != "" {
		t.Error(d)
	}
	pos := func(line, col int) value.Pos { return value.Pos{File: "main.star", Line: line, Col: col} }
	want := []*value.Record{{Type: "runbook", Pos: pos(5, 1), Fields: []value.Field{
		{Name: "owner", Value: value.String("team"), Pos: pos(6, 5)},
		{Name: "trigger", Pos: pos(7, 5), Value: &value.Record{Type: "every", Pos: pos(7, 15), Fields: []value.Field{
			{Name: "interval", Value: value.Duration(time.Minute), Pos: pos(7, 21)},
		}}},
		{Name: "params", Pos: pos(8, 5), Value: value.Dict{{Key: value.String("limit"), Value: &value.Record{Type: "param.int", Pos: pos(8, 24), Fields: []value.Field{
			{Name: "default", Value: value.Int(1000), Pos: pos(8, 34)}, {Name: "min", Value: value.Int(1), Pos: pos(8, 40)},
		}}}}},
	}}}
	if d := cmp.Diff(want, m.Records); d != "" {
		t.Error(d)
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	var calls []kit.Request
	caller := callerFunc(func(_ context.Context, r kit.Request) (value.Value, error) {
		calls = append(calls, r)
		if r.Family == "metrics" {
			return value.Float(0.1), nil
		}
		return &value.Record{Type: "result", Fields: []value.Field{{Name: "ok", Value: value.Bool(false)}, {Name: "status", Value: value.String("failed")}}}, nil
	})
	got, err := evaluate(t, project, sandbox.Limits{}, caller)
	if err != nil {
		t.Fatal(err)
	}
	pos := func(line, col int) value.Pos { return value.Pos{File: "main.star", Line: line, Col: col} }
	wantCalls := []kit.Request{
		{Family: "metrics", Function: "value", Pos: pos(12, 12), Args: kit.Args{
			"expr": value.String("disk"), "where": value.Strings(map[string]string{"instance": "s1"}), "window": value.Duration(5 * time.Minute),
		}},
		{Family: "systemd", Function: "restart", Pos: pos(18, 9), Args: kit.Args{
			"unit": value.String("worker.service"), "reason": value.String("stuck"), "cooldown": value.Duration(30 * time.Minute),
			"must": value.Bool(false), "within": value.Duration(10 * time.Minute),
		}},
	}
	if d := cmp.Diff(wantCalls, calls); d != "" {
		t.Error(d)
	}
	reason, _ := got.Outcome.Get("reason")
	if got.Outcome.Type != "escalate" || reason.Value != value.String("failed at 2026-03-01T10:20:00Z") {
		t.Errorf("outcome %+v", got.Outcome)
	}
	less := func(i string) sandbox.Event {
		return sandbox.Event{Kind: "branch", Pos: pos(16, 17), Source: "i < ctx.params.limit", Result: "true", Values: []sandbox.Seen{{Source: "i", Value: i}, {Source: "ctx.params.limit", Value: "1000"}}}
	}
	want := []sandbox.Event{
		{Kind: "call", Pos: pos(12, 12), Source: "metrics.value"},
		{Kind: "branch", Pos: pos(13, 8), Source: "slow(disk)", Result: "false", Values: []sandbox.Seen{{Source: "slow(disk)", Value: "False"}}},
		less("0"), less("1"), less("2"),
		{Kind: "call", Pos: pos(18, 9), Source: "systemd.restart"},
		{Kind: "branch", Pos: pos(19, 8), Source: "r.ok", Result: "false", Values: []sandbox.Seen{{Source: "r.ok", Value: "False"}}},
	}
	if d := cmp.Diff(want, got.Events); d != "" {
		t.Error(d)
	}
	if got.Steps == 0 || got.Dropped != 0 || len(got.Coverage) != 2 {
		t.Errorf("steps %d, dropped %d, coverage %+v", got.Steps, got.Dropped, got.Coverage)
	}
	wantCover := sandbox.Coverage{
		Path: "main.star", Statements: []int{5, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}, Ran: []int{5, 11, 12, 13, 15, 16, 18, 19, 21},
		Conditions: []sandbox.Arm{
			{Pos: pos(13, 8), Source: "slow(disk)", False: true},
			{Pos: pos(13, 23), Source: "disk > 1"},
			{Pos: pos(16, 17), Source: "i < ctx.params.limit", True: true},
			{Pos: pos(19, 8), Source: "r.ok", False: true},
		},
	}
	if d := cmp.Diff(wantCover, got.Coverage[0]); d != "" {
		t.Error(d)
	}
}

// A worker does not compile again what it has just run. What comes of that is as in a fresh one, whatever ran before and in whatever order files load.
func TestKept(t *testing.T) {
	t.Parallel()
	files := sandboxtest.Files{
		"lib.star":  "def high(x):\n    return True if x > 3 else False\n",
		"more.star": "def low(x):\n    if not x: print('low')\n",
		"a.star":    "load('//lib.star', 'high')\nload('//more.star', 'low')\ndef run(ctx):\n    if high(ctx.metrics.value('up')): print('a')\n    low(0)\n",
		"b.star":    "load('//more.star', 'low')\nload('//lib.star', 'high')\nseen = []\ndef run(ctx):\n    low(len(seen))\n    if high(1) or high(7): return escalate('b')\n",
		"bad.star":  "load('//lib.star', 'high')\ndef run(ctx):\n    high('x')\n",
	}
	answers := callerFunc(func(context.Context, kit.Request) (value.Value, error) { return value.Int(4), nil })
	run := func(w sandbox.Worker, path string, v sandbox.Vocabulary) (sandbox.Result, string) {
		got, err := w.Evaluate(t.Context(), path, "run", v, files, environment(), answers)
		return got, errString(err)
	}
	w := sandboxtest.Worker(t, sandbox.Limits{})
	for _, path := range []string{"a.star", "a.star", "b.star", "a.star", "bad.star", "b.star", "b.star"} {
		want, wantErr := run(sandboxtest.Worker(t, sandbox.Limits{}), path, vocabulary())
		got, err := run(w, path, vocabulary())
		if d := cmp.Diff(want, got); d != "" || err != wantErr || len(got.Events) == 0 && err == "nil" {
			t.Errorf("%s: %s, want %s\n%s", path, err, wantErr, d)
		}
	}
	poor := vocabulary()
	poor.Declarations = poor.Declarations[:3]
	if _, err := run(w, "b.star", poor); !strings.Contains(err, "undefined: escalate") {
		t.Errorf("with a smaller vocabulary: %s", err)
	}
}

// The error of a caller ends the evaluation and comes back as it is, with what was seen until then.
func TestCallerError(t *testing.T) {
	t.Parallel()
	mine := errors.New("refused")
	w := sandboxtest.Worker(t, sandbox.Limits{})
	n := 0
	caller := callerFunc(func(context.Context, kit.Request) (value.Value, error) {
		n++
		return nil, mine
	})
	files := one("def run(ctx):\n    if ctx.attempt == 2:\n        ctx.systemd.restart('a', reason = 'x')\n    ctx.systemd.restart('b', reason = 'x')\n")
	got, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), caller)
	if err != mine || n != 1 { //nolint:errorlint // it must be the very same
		t.Errorf("got %v after %d calls", err, n)
	}
	if len(got.Events) != 2 || got.Events[1].Kind != "call" || got.Events[0].Values[0].Value != "2" {
		t.Errorf("events %+v", got.Events)
	}
	// The worker is as good as before.
	if w.Dead() {
		t.Fatal("the worker is dead")
	}
	if _, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), callerFunc(func(context.Context, kit.Request) (value.Value, error) { return value.Null{}, nil })); err != nil {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	run := func(v value.Value, expr string) (sandbox.Result, error) {
		return evaluate(t, one("def run(ctx):\n    x = ctx.metrics.value('m')\n    return escalate(str("+expr+"))\n"), sandbox.Limits{},
			callerFunc(func(context.Context, kit.Request) (value.Value, error) { return v, nil }))
	}
	for _, c := range []struct {
		v          value.Value
		expr, want string
	}{
		{value.Dict{{Key: value.String("a"), Value: value.List{value.Int(1)}}}, "x['a'][0] + 1", "2"},
		{value.Big("100000000000000000000"), "x + 1", "100000000000000000001"},
		{value.Null{}, "x == None", "True"},
		{value.Duration(time.Hour), "x == ctx.params.slow, x.seconds", ""},
		{&value.Record{Type: "r", Fields: []value.Field{{Name: "ok", Value: value.Bool(true)}}}, "'yes' if x else 'no'", "yes"},
		{value.Time(time.Unix(0, 0)), "x < ctx.now, ", ""},
	} {
		expr := c.expr
		if c.want == "" {
			expr = "[" + expr + "]"
		}
		got, err := run(c.v, expr)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		if f, _ := got.Outcome.Get("reason"); c.want != "" && f.Value != value.String(c.want) {
			t.Errorf("%s: got %v, want %s", c.expr, f.Value, c.want)
		}
	}
	if _, err := run(value.Float(math.NaN()), "x > 500"); !strings.HasPrefix(problemOf(err), "no-data main.star:2:9: metrics.value: ") {
		t.Errorf("NaN reached the script: %v", err)
	}
	if _, err := run(value.List{value.Int(1)}, "x.append(2)"); !strings.HasPrefix(problemOf(err), "script main.star:3:") {
		t.Errorf("the answer is not frozen: %v", err)
	}
	if _, err := run(value.String("\xff"), "x"); !strings.HasPrefix(problemOf(err), "internal ") {
		t.Errorf("text that is not UTF-8: %v", err)
	}
	if _, err := run(value.String(strings.Repeat("x", 9<<20)), "x"); !strings.HasPrefix(problemOf(err), "internal ") {
		t.Errorf("an answer that is too large: %v", err)
	}
}

// Waiting for the engine does not count as the script's time.
func TestTimeOfCalls(t *testing.T) {
	t.Parallel()
	limit := 300 * time.Millisecond
	files := one("def run(ctx):\n    for i in range(3):\n        ctx.metrics.value('m')\n")
	_, err := evaluate(t, files, sandbox.Limits{Time: limit}, callerFunc(func(ctx context.Context, _ kit.Request) (value.Value, error) {
		select {
		case <-time.After(limit):
		case <-ctx.Done():
		}
		return value.Null{}, nil
	}))
	if err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Worker(t, sandbox.Limits{Steps: 1 << 40})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	files := one("def run(ctx):\n    for i in range(1000000):\n        for j in range(1000000):\n            pass\n")
	_, err := w.Evaluate(ctx, "main.star", "run", vocabulary(), files, environment(), nobody)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(problemOf(err), "deadline main.star:") || !w.Dead() {
		t.Errorf("got %s, dead %v", problemOf(err), w.Dead())
	}
	if _, err := w.Load(t.Context(), "main.star", vocabulary(), files); !strings.HasPrefix(problemOf(err), "sandbox ") {
		t.Errorf("a dead worker answered: %v", err)
	}
}

// What was loaded is what is evaluated, whatever happens to the file.
func TestSameSource(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Worker(t, sandbox.Limits{})
	files := one("def run(ctx):\n    return nothing('old')\n")
	if _, err := w.Load(t.Context(), "main.star", vocabulary(), files); err != nil {
		t.Fatal(err)
	}
	files["main.star"] = "def run(ctx):\n    return nothing('new')\n"
	got, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), nobody)
	if err != nil {
		t.Fatal(err)
	}
	if f, _ := got.Outcome.Get("reason"); f.Value != value.String("old") {
		t.Errorf("got %v", f.Value)
	}
}

// The limit on source is for a file and what it loads: a worker may read any number of files, one after the other.
func TestSourceOfManyFiles(t *testing.T) {
	t.Parallel()
	files := sandboxtest.Files{"both.star": "load('//a.star', 'A')\nload('//b.star', 'B')\n"}
	for _, name := range []string{"a", "b", "c", "d"} {
		files[name+".star"] = strings.ToUpper(name) + " = 1 #" + strings.Repeat("x", 600) + "\n"
	}
	w := sandboxtest.Worker(t, sandbox.Limits{SourceAll: 1 << 10})
	for _, name := range []string{"a", "b", "c", "d"} {
		if _, err := w.Load(t.Context(), name+".star", vocabulary(), files); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := w.Load(t.Context(), "both.star", vocabulary(), files)
	if got := problemOf(err); !strings.HasPrefix(got, "limit b.star: the file and all that it loads are larger than 1 KiB") {
		t.Errorf("got %s", got)
	}
}
