package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	starjson "go.starlark.net/lib/json"
	starmath "go.starlark.net/lib/math"
	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/starlarktest"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// reports collects what starlarktest's assertions say.
type reports struct{ lines []string }

func (r *reports) Error(args ...any) { r.lines = append(r.lines, fmt.Sprint(args...)) }

// execute runs a chunk, rewritten or not, and describes everything that can be observed.
func execute(opts syntax.FileOptions, path, src string, rewritten bool) (seen []string, tr *tracer) {
	tr = &tracer{note: func(int, int) {}, flush: func(wire.Events) error { return nil }, drop: func(starlark.Value, value.Pos, int, bool) error { return nil }}
	var r reports
	predeclared := starlark.StringDict{"struct": starlark.NewBuiltin("struct", starlarkstruct.Make)}
	thread := &starlark.Thread{
		Print: func(_ *starlark.Thread, s string) { r.lines = append(r.lines, "print "+s) },
		Load: func(_ *starlark.Thread, m string) (starlark.StringDict, error) {
			switch m {
			case "assert.star":
				return starlarktest.LoadAssertModule()
			case "json.star":
				return starlark.StringDict{"json": starjson.Module}, nil
			case "math.star":
				return starlark.StringDict{"math": starmath.Module}, nil
			case "time.star":
				return starlark.StringDict{"time": startime.Module}, nil
			}
			return nil, errors.New("no such module")
		},
	}
	starlarktest.SetReporter(thread, &r)
	f, err := opts.Parse(path, src, 0)
	if err != nil {
		return []string{err.Error()}, tr
	}
	if rewritten {
		maps.Copy(predeclared, tr.hooks(tr.file(0, rewrite(f, path, src))))
	}
	prog, err := starlark.FileProgram(f, predeclared.Has)
	if err != nil {
		return []string{err.Error()}, tr
	}
	globals, err := prog.Init(thread, predeclared)
	seen = r.lines
	if ee, ok := errors.AsType[*starlark.EvalError](err); ok {
		seen = append(seen, ee.Backtrace())
	}
	for _, name := range globals.Keys() {
		if x := globals[name].String(); !strings.Contains(x, "0x") {
			seen = append(seen, name+" = "+clip(x, 2000))
		}
	}
	return seen, tr
}

// TestSameBehaviour: go.starlark.net's own tests have the same results, the same errors and the same positions with
// the rewrite as without.
func TestSameBehaviour(t *testing.T) {
	t.Parallel()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "go.starlark.net").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "starlark", "testdata", "*.star"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	chunks, failing, statements, conditions := 0, 0, 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line := 0
		for chunk := range strings.SplitSeq(string(text), "\n---\n") {
			src := strings.Repeat("\n", line) + chunk
			line += strings.Count(chunk, "\n") + 2
			opts := syntax.FileOptions{Set: true}
			for _, o := range []struct {
				name string
				flag *bool
			}{{"globalreassign", &opts.GlobalReassign}, {"toplevelcontrol", &opts.TopLevelControl}, {"while", &opts.While}, {"recursion", &opts.Recursion}} {
				*o.flag = strings.Contains(chunk, "option:"+o.name)
			}
			want, _ := execute(opts, filepath.Base(file), src, false)
			got, tr := execute(opts, filepath.Base(file), src, true)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, chunk at line %d: %s", filepath.Base(file), line, d)
			}
			chunks++
			if strings.Contains(strings.Join(want, "\n"), "Traceback") {
				failing++
			}
			for _, f := range tr.files {
				statements += len(f.statements)
				conditions += len(f.conditions)
			}
		}
	}
	t.Logf("%d chunks, %d of them end in an error; %d statements, %d conditions", chunks, failing, statements, conditions)
	if chunks < 80 || failing < 30 || statements < 1000 || conditions < 50 {
		t.Error("fewer than there should be: is the test still reading what it thinks?")
	}
}

// TestConditions shows how conditions are taken apart, and the source text and values that are kept.
func TestConditions(t *testing.T) {
	t.Parallel()
	src := `
d = {"a": [1, 2]}
def f(x):
    if x > 1 and not (x == 5 or x in d["a"]) and None != d.get("b", None):
        return "yes"
    elif d["a"][0:1] == [
        1,
    ] or x:
        return "é" if d["a"][0] != -1 else "no"
    return [y for y in (1, 2) if y]
f(1)
f(3)
`
	_, tr := execute(syntax.FileOptions{}, "x.star", src, true)
	got := strings.Builder{}
	for _, e := range tr.pending.List {
		fmt.Fprintf(&got, "%d:%d %s -> %s", e.Pos.Line, e.Pos.Col, e.Source, e.Result)
		for _, v := range e.Values {
			fmt.Fprintf(&got, " | %s = %s", v.Source, v.Value)
		}
		got.WriteByte('\n')
	}
	want := `4:8 x > 1 -> false | x = 1
6:10 d["a"][0:1] == [ 1, ] -> true | d["a"][0:1] = [1] | [ 1, ] = [1]
9:23 d["a"][0] != -1 -> true | d["a"][0] = 1
4:8 x > 1 -> true | x = 3
4:23 x == 5 -> false | x = 3
4:33 x in d["a"] -> false | x = 3 | d["a"] = [1, 2]
4:50 None != d.get("b", None) -> false | d.get("b", None) = None
6:10 d["a"][0:1] == [ 1, ] -> true | d["a"][0:1] = [1] | [ 1, ] = [1]
9:23 d["a"][0] != -1 -> true | d["a"][0] = 1
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

// TestCaps: a condition in a loop is recorded 20 times, but each way it goes at least once, and the rest is counted.
func TestCaps(t *testing.T) {
	t.Parallel()
	_, tr := execute(syntax.FileOptions{}, "x.star", "x = [1 for i in range(1000) if i < 999]\n", true)
	list := tr.pending.List
	if len(list) != maxPerSite+1 || list[maxPerSite].Result != "false" || tr.pending.Dropped != 1000-maxPerSite-1 {
		t.Errorf("%d events, %d dropped", len(list), tr.pending.Dropped)
	}
	var b strings.Builder
	b.WriteString("def f(i):\n    pass\n")
	for range 1000 {
		b.WriteString("    if i == 3: pass\n")
	}
	b.WriteString("x = [f(i) for i in range(30)]\n")
	_, tr = execute(syntax.FileOptions{}, "x.star", b.String(), true)
	if tr.events < maxEvents || tr.events > mostEvents {
		t.Errorf("%d events", tr.events)
	}
	for _, c := range tr.files[0].arms {
		if !c.yes || !c.no {
			t.Fatalf("%+v", c)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	src := "def f():\n    n = 0\n    for i in range(10000):\n        if i % 3 == 0:\n            n += i\n    return n\nx = f()\n"
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprint(on), func(b *testing.B) {
			for b.Loop() {
				execute(syntax.FileOptions{}, "x.star", src, on)
			}
		})
	}
}

// FuzzRewrite: what compiles does so with the rewrite too, and what does not fails in the same words.
func FuzzRewrite(f *testing.F) {
	f.Add("def run(ctx):\n    x = [i for i in range(3) if i % 2 or not i]\n    return x[0] if x and x[0] < 2 else (lambda y: y)(1)\n")
	f.Add("a, (b, c) = 1, (2, 3)\nfor i in range(2):\n    if a == b != c: continue\n    a += i\nload('//x.star', y = 'z')\n")
	f.Add("def f(a, b = 1, *c, d, **e):\n    while a: pass\n    f(*c, **e)\n    return {1: a, 'x': b}[1].c[1:2:3]\n")
	f.Fuzz(func(t *testing.T, src string) {
		opts := syntax.FileOptions{Set: true, While: true, TopLevelControl: true, Recursion: true}
		compile := func(rewritten bool) string {
			tree, err := opts.Parse("main.star", src, 0)
			if err != nil {
				return "" // nothing to rewrite
			}
			has := starlark.StringDict{}.Has
			if rewritten {
				rewrite(tree, "main.star", src)
				has = isHook
			}
			if _, err = starlark.FileProgram(tree, has); err != nil {
				return err.Error()
			}
			return ""
		}
		if want, got := compile(false), compile(true); want != got {
			t.Errorf("without the rewrite: %s\nwith it: %s", want, got)
		}
	})
}
