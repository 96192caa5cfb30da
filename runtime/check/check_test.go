package check_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/declare"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/runtime/check"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const projectText = `project(
    metrics = connection("prometheus", config = {"url": "http://localhost:9090"}),
    connections = [connection("svc", match = {"job": "worker"})],
)
`

// head is 12 lines long, so the body of run begins in line 13.
const head = `"""A worker's queue is stuck."""

runbook(
    owner = "team-payments",
    trigger = every("1m"),
    severity = "warning",
    mode = "auto",
    targets = fleet(all = 'up{job="worker"}', sick = 'queue_depth{job="worker"} > $limit', by = "instance"),
    params = {"limit": param.int(1000, doc = "jobs")},
)

def run(ctx):
`

func manifest() sdk.Manifest {
	return sdk.Manifest{Name: "svc", Version: "1", Functions: []sdk.Function{
		{Name: "restart", Kind: sdk.Action, Positional: 1, Params: []sdk.Param{
			{Name: "name", Type: "string", Required: true}, {Name: "token", Type: "string", Sensitive: true}, {Name: "count", Type: "int"},
		}},
		{Name: "status", Kind: sdk.Query, Positional: 1, Params: []sdk.Param{{Name: "name", Type: "string", Required: true}}},
	}}
}

// newProject writes a project and reads it.
func newProject(tb testing.TB, files map[string]string) *check.Project {
	tb.Helper()
	dir := tb.TempDir()
	files["project.star"] = projectText
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	tree, err := project.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = tree.Close() })
	settings, err := project.LoadSettings(tb.Context(), sandboxtest.Worker(tb, sandbox.Limits{}), tree)
	if err != nil {
		tb.Fatal(err)
	}
	m := manifest()
	plugins, err := pluginhost.Families([]sdk.Manifest{m})
	if err != nil {
		tb.Fatal(err)
	}
	families := slices.Concat(declare.Families(), []kit.Family{metrics.Family()}, plugins)
	return &check.Project{
		Tree: tree, Settings: settings, Families: families, Manifests: []sdk.Manifest{m}, Tests: testrun.Vocabulary(),
		Spawn: func(ctx context.Context) (sandbox.Worker, error) { return sandbox.Spawner{}.Start(ctx) },
	}
}

// findings are what is found in one project, as "file:line:col code: message".
func findings(t *testing.T, files map[string]string) []string {
	t.Helper()
	var runbooks, tests []string
	for name := range files {
		switch {
		case strings.HasSuffix(name, "_test.star"):
			tests = append(tests, name)
		case !strings.Contains(name, "/"):
			runbooks = append(runbooks, name)
		}
	}
	slices.Sort(runbooks)
	found, err := check.Files(t.Context(), newProject(t, files), runbooks, tests)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range found {
		out = append(out, fmt.Sprintf("%s %s: %s", p.Pos, p.Code, p.Message))
		if p.Code != "syntax" && len(p.Detail) == 0 {
			t.Errorf("no line is shown for %s", p)
		}
	}
	return out
}

// Each rule finds what it is for, at its place, and is silent beside it.
func TestRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body []string
		want []string
	}{
		"nothing":            {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h")`}, nil},
		"no cooldown":        {[]string{`ctx.svc.restart("a", reason = "r")`}, []string{"r.star:13:5 no-cooldown: ctx.svc.restart says no cooldown: how soon it may be done again on the same target is left to the project"}},
		"result not used":    {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h", must = False)`}, []string{"r.star:13:5 unused-result: the result of ctx.svc.restart is not looked at, and must = False lets the run go on whatever it is"}},
		"result never read":  {[]string{`x = ctx.svc.restart("a", reason = "r", cooldown = "1h", must = False)`}, []string{"r.star:13:5 unused-result: x is never looked at, and must = False lets the run go on whatever ctx.svc.restart did"}},
		"result read":        {[]string{`x = ctx.svc.restart("a", reason = "r", cooldown = "1h", must = False)`, `if not x.ok: return escalate("no")`}, nil},
		"outcome not used":   {[]string{`escalate("no")`}, []string{"r.star:13:5 unused-result: the result of escalate(...) is not used, so it has no effect"}},
		"unreachable":        {[]string{`return escalate("no")`, `ctx.svc.restart("a", reason = "r", cooldown = "1h")`}, []string{"r.star:14:5 unreachable: this is never reached: the line before returns"}},
		"after break":        {[]string{`for i in range(3):`, `    break`, `    print(i)`}, []string{"r.star:15:9 unreachable: this is never reached: the line before is break"}},
		"return in a branch": {[]string{`if ctx.attempt > 2: return escalate("no")`, `print("x")`}, nil},
		"query in a loop":    {[]string{`for i in range(3):`, `    ctx.metrics.value("up")`}, []string{"r.star:14:9 query-in-loop: ctx.metrics.value is asked once for each round of the loop"}},
		"in a comprehension": {[]string{`x = [ctx.svc.status("a") for i in range(3)]`}, []string{"r.star:13:10 query-in-loop: ctx.svc.status is asked once for each round of the loop"}},
		"query to loop over": {[]string{`for s in ctx.metrics.vector("up"):`, `    print(s)`}, nil},
		"over in a clause":   {[]string{`x = [s for s in ctx.metrics.vector("up")]`}, nil},
		"threshold":          {[]string{`if ctx.metrics.value("x") > 0.2: return escalate("no")`}, []string{"r.star:13:33 literal-threshold: 0.2 is a threshold that is written into the code"}},
		"threshold, turned":  {[]string{`if 5 < ctx.metrics.value("x"): return escalate("no")`}, []string{"r.star:13:8 literal-threshold: 5 is a threshold that is written into the code"}},
		"no threshold":       {[]string{`if ctx.metrics.value("x") > ctx.params.limit or len("abc") > 2 or ctx.attempt >= 3 or 0 < ctx.metrics.value("y"): return escalate("no")`}, nil},
		"secret":             {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h", token = "hunter2")`}, []string{"r.star:13:65 literal-secret: token of ctx.svc.restart is a secret, and it is written into the code"}},
		"no secret":          {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h", token = "")`}, nil},
		"never None":         {[]string{`x = ctx.metrics.value("x")`, `if x == None: return escalate("no")`}, []string{"r.star:14:8 never-none: x is never None: without data ctx.metrics.value ends the run, and nothing is done"}},
		"may be None":        {[]string{`x = ctx.metrics.value("x", default = None)`, `if x == None: return escalate("no")`}, nil},
		"is another now":     {[]string{`x = ctx.metrics.value("x")`, `x = None`, `if x == None: return escalate("no")`}, nil},
		"no such family":     {[]string{`ctx.scv.restart("a")`}, []string{"r.star:13:9 unknown-name: ctx has no .scv (did you mean \"svc\"?)"}},
		"no such function":   {[]string{`ctx.svc.restrat("a")`}, []string{"r.star:13:13 unknown-name: ctx.svc has no .restrat (did you mean \"restart\"?)"}},
		"no such parameter":  {[]string{`return escalate(str(ctx.params.limt))`}, []string{"r.star:13:36 unknown-name: ctx.params has no .limt (did you mean \"limit\"?)"}},
		"no such part":       {[]string{`return escalate(ctx.target.nam)`}, []string{"r.star:13:32 unknown-name: ctx.target has no .nam (did you mean \"name\"?)"}},
		"no such argument":   {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h", cuont = 1)`}, []string{"r.star:13:57 argument: ctx.svc.restart has no argument \"cuont\" (did you mean \"count\"?)"}},
		"missing argument":   {[]string{`ctx.svc.restart("a", cooldown = "1h")`}, []string{"r.star:13:5 argument: ctx.svc.restart needs reason"}},
		"type":               {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1h", count = "1")`}, []string{"r.star:13:57 argument: ctx.svc.restart: count must be an int, got \"1\""}},
		"duration":           {[]string{`ctx.svc.restart("a", reason = "r", cooldown = "1 hour")`}, []string{`r.star:13:40 argument: ctx.svc.restart: cooldown must be a duration, got "1 hour"`}},
		"only a run knows":   {[]string{`a = {"reason": "r"}`, `ctx.svc.restart("a", cooldown = "1h", **a)`}, nil},
		"query":              {[]string{`ctx.metrics.value("sum(rate(x[5m])")`}, []string{"r.star:13:23 query: "}},
		"query's parameter":  {[]string{`ctx.metrics.value("up > $limt")`}, []string{"r.star:13:23 query: "}},
		"inner function":     {[]string{`def f(ctx): return [ctx.metrics.value("x") for i in range(2)]`, `f(ctx)`}, []string{"r.star:13:25 query-in-loop: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := findings(t, map[string]string{"r.star": head + "    " + strings.Join(c.body, "\n    ") + "\n"})
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("got %q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

// What does not load is one finding, a library that two load is looked at once, and files are looked at in order.
func TestFiles(t *testing.T) {
	t.Parallel()
	run := head + "    look(ctx)\n"
	got := findings(t, map[string]string{
		"a.star":           "load(\"//lib/all.star\", \"look\", \"spare\")\n" + run,
		"b.star":           "load(\"//lib/all.star\", \"look\")\n" + run,
		"c.star":           "def run(ctx)\n",
		"d.star":           run,
		"a_test.star":      "def test_a(t):\n    t.runn()\n",
		"broken_test.star": "def test_b(t):\n    x = = 1\n",
		"lib/all.star":     "spare = 1\n\ndef look(ctx):\n    for i in range(2):\n        ctx.metrics.value(\"up\")\n",
	})
	want := []string{
		"a.star:1:33 dead-load: spare is loaded and never used",
		"broken_test.star:2:9 syntax: got '=', want primary expression",
		"c.star:2:1 syntax: got newline, want ':'",
		"d.star:13:5 unknown-name: undefined: look",
		"lib/all.star:5:9 query-in-loop: ctx.metrics.value is asked once for each round of the loop",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkCheck looks at 1,000 runbooks of 40 lines that share a library.
func BenchmarkCheck(b *testing.B) {
	const n = 1000
	files := map[string]string{"lib/all.star": "def look(ctx):\n    return ctx.metrics.value(\"up\")\n"}
	var names []string
	text := "load(\"//lib/all.star\", \"look\")\n" + head + "    look(ctx)\n" +
		strings.Repeat("    if ctx.metrics.value(\"x\") > ctx.params.limit:\n        return escalate(\"no\")\n", 12) +
		"    ctx.svc.restart(\"a\", reason = \"r\", cooldown = \"1h\")\n"
	for i := range n {
		names = append(names, fmt.Sprintf("r%03d.star", i))
		files[names[i]] = text
	}
	p := newProject(b, files)
	for b.Loop() {
		found, err := check.Files(b.Context(), p, names, nil)
		if err != nil || len(found) != 0 {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/n, "ms/runbook")
}
