package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

const badFleet = `fleet(all = 'up{job="worker"}', sick = 'bad_depth > 1000', by = "instance", held = "30s")`

// A runbook that is wrong costs nothing but itself.
func TestBadRunbook(t *testing.T) {
	t.Parallel()
	head := declaration("bad", badFleet) + "\n"
	run := head + "def run(ctx):\n    "
	for name, c := range map[string]struct {
		file string
		want said
	}{
		"syntax error":        {head + "def run(ctx:\n    pass\n", said{2, problem.Syntax, "bad.star:2:13", "", ""}},
		"unknown builtin":     {strings.Replace(run, "fleet(", "flet(", 1) + "pass\n", said{2, problem.UnknownName, "bad.star:1:", `did you mean "fleet"?`, ""}},
		"unknown name":        {run + "return escalte(\"x\")\n", said{2, problem.UnknownName, "bad.star:3:12", `did you mean "escalate"?`, ""}},
		"python: try":         {run + "try:\n        pass\n    except:\n        pass\n", said{2, problem.Syntax, "bad.star:3:5", "try", "default"}},
		"python: f-string":    {run + "return nothing(f\"{ctx.target.name}\")\n", said{2, problem.Syntax, "bad.star:3:", "f-string", "%"}},
		"python: import":      {"import os\n" + run + "pass\n", said{2, problem.Syntax, "bad.star:1:1", "import", "load"}},
		"unknown family":      {run + "ctx.exce.run(\"mark\", reason = \"x\")\n", said{2, problem.UnknownName, "bad.star:3:8", `did you mean "exec"?`, ""}},
		"unknown function":    {run + "ctx.exec.rum(\"mark\", reason = \"x\")\n", said{2, problem.UnknownName, "bad.star:3:13", `did you mean "run"?`, ""}},
		"unknown argument":    {run + "ctx.exec.run(\"mark\", raeson = \"x\")\n", said{2, problem.Argument, "bad.star:3:", `did you mean "reason"?`, ""}},
		"no reason":           {run + "ctx.exec.run(\"mark\")\n", said{2, problem.Argument, "bad.star:3:", "reason", ""}},
		"empty reason":        {run + "ctx.exec.run(\"mark\", reason = \" \")\n", said{2, problem.Argument, "bad.star:3:", "reason", "queue stuck"}},
		"no runbook()":        {"def run(ctx):\n    pass\n", said{2, problem.Argument, "bad.star", "there is no runbook(", "begin the file with runbook("}},
		"no run":              {head, said{2, problem.Argument, "bad.star:1:1", "no function run", "def run(ctx)"}},
		"bad PromQL":          {strings.Replace(run, "bad_depth > 1000", "bad_depth >", 1) + "pass\n", said{2, problem.Query, "bad.star:1:", "", ""}},
		"no comparison":       {strings.Replace(run, "bad_depth > 1000", "bad_depth", 1) + "pass\n", said{2, problem.Query, "bad.star:1:", "", ">"}},
		"load of nothing":     {"load(\"//lib/x.star\", \"x\")\n" + run + "pass\n", said{2, problem.Load, "bad.star:1:", "lib/x.star", ""}},
		"not text":            {head + "\x00\x01\xff", said{2, problem.Syntax, "bad.star", "not UTF-8", "UTF-8"}},
		"empty":               {"", said{2, problem.Argument, "bad.star", "there is no runbook(", ""}},
		"division by zero":    {run + "x = 1 / (len(ctx.target.name) - 2)\n", said{1, problem.Script, "bad.star:3:", "zero", ""}},
		"missing label":       {run + "x = ctx.target.labels[\"storage\"]\n", said{1, problem.Script, "bad.star:3:", "storage", ""}},
		"fail":                {run + "fail(\"no idea\")\n", said{1, problem.Script, "bad.star:3:9", "no idea", ""}},
		"returns a number":    {run + "return 3\n", said{1, problem.Script, "bad.star:2:1", "of type int", "escalate"}},
		"recurses":            {head + "def f(n):\n    return f(n + 1)\ndef run(ctx):\n    f(0)\n", said{1, problem.Script, "bad.star:3:", "recurs", ""}},
		"loops for ever":      {run + "for i in range(1000000):\n        for j in range(1000000):\n            pass\n", said{1, problem.Limit, "bad.star:", "limits(steps", ""}},
		"loads for ever":      {head + "X = [i * j for i in range(1000) for j in range(1000000) if i < 0]\ndef run(ctx):\n    pass\n", said{1, problem.Limit, "bad.star:2:", "limits(", ""}},
		"allocates":           {run + "s = \"x\" * 1000\n    for i in range(40):\n        s = s + s\n", said{1, problem.Limit, "bad.star:5", "memory", "limits(memory"}},
		"one huge allocation": {run + "s = \"x\" * (1 << 30)\n", said{1, problem.Script, "bad.star:3:", "1073741824", ""}},
		"huge range":          {run + "s = sorted(range(1 << 40))\n", said{1, problem.Limit, "bad.star:3:", "range of", ""}},
		"prints without end":  {run + "for i in range(1000000):\n        for j in range(1000000):\n            print(\"x\" * 1000)\n", said{1, problem.Limit, "bad.star:", "limits(", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write(t, "bad.star", c.file)
			s.runs(t, c.want)
		})
	}
}

// An action in a loop is carried out once: the second is one too many within the cooldown.
func TestActsInALoop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.commands = `"mark": ` + s.shell(`: > "$0/$1"; echo x >> "$0/count-$1"`)
	s.project(t)
	s.runbook(t, "bad", "for i in range(100):\n    ctx.exec.run(\"mark\", reason = \"again and again\")")
	r := s.do(t, "run", "--json")
	said{4, problem.Refused, "bad.star:5:9", "refused by cooldown", ""}.check(t, badProblem(t, r.doc))
	if r.exit != 4 || s.lines(t, "count-w5") != 1 {
		t.Errorf("exit %d, done %d times", r.exit, s.lines(t, "count-w5"))
	}
	s.otherwiseWell(t, r.doc)
}

// Without project.star nothing is known, so nothing is run; a project.star that never ends does not keep a terminal busy.
func TestBadProject(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string // "": what a site has
		want said
	}{
		"loops for ever":    {"X = [x for x in range(1000000) for y in range(1000000) if x < 0]\n", said{1, problem.Limit, "project.star:1:", "limits(", ""}},
		"syntax error":      {"project(\n", said{2, problem.Syntax, "project.star:", "", ""}},
		"empty":             {"", said{2, problem.Project, "project.star", "project", "project(metrics"}},
		"unknown setting":   {"project(metrics = connection(\"prometheus\", config = {\"url\": \"http://x\"}), stat = \"x\")\n", said{2, problem.Argument, "project.star:1:", `did you mean "state"?`, ""}},
		"unknown plugin":    {"project(metrics = connection(\"prometheus\", config = {\"url\": \"http://x\"}), connections = [connection(\"exce\", match = {\"a\": \"b\"})])\n", said{2, problem.PluginMissing, "project.star:1:", `did you mean "exec"?`, "exec"}},
		"unknown in config": {"project(metrics = connection(\"prometheus\", config = {\"ulr\": \"http://x\"}))\n", said{2, problem.Project, "project.star:1:", `did you mean "url"?`, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write(t, "project.star", c.file)
			from := time.Now()
			r := s.do(t, "run", "--json")
			if took := time.Since(from); took > 30*time.Second {
				t.Errorf("took %s", took)
			}
			if r.exit != c.want.exit || r.doc.Error == nil {
				t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
			}
			c.want.check(t, r.doc.Error.Problem)
			if len(r.doc.Error.More) > 0 || strings.Count(r.err, "runbook: error:") != 1 {
				t.Errorf("more than one error: %s", r.err)
			}
			if s.marked(t, "w9") {
				t.Error("something was done")
			}
		})
	}
}

// A target for which no connection says where to act is left alone.
func TestNoConnectionForTheTarget(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.match = `{"instance": "w9"}`
	s.project(t)
	s.runbook(t, "bad", `ctx.exec.run("mark", reason = "queue stuck")`)
	s.runs(t, said{4, problem.NoConnection, "bad.star:4:5", `no connection of plugin "exec"`, `connection("exec", name = "w5"`})
}

func TestBadPaths(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write(t, "../elsewhere.star", "")
	s.write(t, "empty/README.md", "")
	s.write(t, "alpha_test.star", "")
	for name, c := range map[string]struct {
		args []string
		want said
	}{
		"missing":        {[]string{"omegga.star"}, said{2, problem.Usage, "", `did you mean "omega.star"?`, "alpha.star, omega.star"}},
		"outside":        {[]string{"../elsewhere.star"}, said{2, problem.Usage, "", "not in the project", ""}},
		"empty dir":      {[]string{"empty"}, said{2, problem.Usage, "", "no runbook in empty", ""}},
		"not a runbook":  {[]string{"empty/README.md"}, said{2, problem.Usage, "", "does not end in .star", ""}},
		"a test":         {[]string{"alpha_test.star"}, said{2, problem.Usage, "", "it is a test", ""}},
		"the settings":   {[]string{"project.star"}, said{2, problem.Usage, "", "settings", ""}},
		"unknown target": {[]string{"--target", "w99"}, said{2, problem.NotFound, "", `"w99"`, ""}},
		"near target":    {[]string{"--target", "instance=w55"}, said{2, problem.NotFound, "", `did you mean "instance=w5"?`, ""}},
		"unknown flag":   {[]string{"--tagret", "w9"}, said{2, problem.Usage, "", "--tagret", "--target"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.do(t, append([]string{"run", "--json"}, c.args...)...)
			if r.exit != c.want.exit || r.doc.Error == nil {
				t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
			}
			c.want.check(t, r.doc.Error.Problem)
			if s.marked(t, "w9") {
				t.Fatal("something was done")
			}
		})
	}
	r := s.do(t, "run", "--json", "--target", "w1")
	if r.exit != 0 || s.marked(t, "w9") {
		t.Errorf("a target of one runbook only: exit %d, %s", r.exit, r.err)
	}
}
