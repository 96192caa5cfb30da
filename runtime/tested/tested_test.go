package tested

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

func at(line int) value.Pos { return value.Pos{File: "a.star", Line: line, Col: 5} }

func branch(line int, way string) sandbox.Event {
	return sandbox.Event{Kind: "branch", Pos: at(line), Source: "x > 1", Result: way}
}

func TestGap(t *testing.T) {
	t.Parallel()
	f := &File{Arms: []string{Arm(at(2), true), Arm(at(3), false)}, Actions: []string{Action(at(4), "a.b", true), Action(at(4), "a.b", false), Action(at(5), "a.c", true)}}
	good := Way{Branches: []sandbox.Event{branch(2, "true"), branch(3, "false"), {Kind: "print", Pos: at(9)}}, Done: []Done{{at(4), "a.b", false}}, Pos: at(5), Action: "a.c"}
	with := func(change func(*Way)) Way {
		w := good
		change(&w)
		return w
	}
	for name, x := range map[string]struct {
		way  Way
		want string
	}{
		"covered":          {good, ""},
		"the other way":    {with(func(w *Way) { w.Branches = []sandbox.Event{branch(2, "false")} }), "a.star:2:5: that x > 1 is false"},
		"another place":    {with(func(w *Way) { w.Branches = append(w.Branches, branch(7, "true")) }), "a.star:7:5: that x > 1 is true"},
		"another action":   {with(func(w *Way) { w.Action = "a.d" }), "a.star:5:5: a.d"},
		"elsewhere":        {with(func(w *Way) { w.Pos = at(6) }), "a.star:6:5: a.c"},
		"never ok":         {with(func(w *Way) { w.Pos, w.Action, w.Done = at(6), "a.b", nil }), "a.star:6:5: a.b"},
		"an end before it": {with(func(w *Way) { w.Done = []Done{{at(5), "a.c", false}} }), "a.star:5:5: that a.c is not done"},
		"too many":         {with(func(w *Way) { w.Lost = true }), "a.star:5:5: there were more branches on the way than are recorded, so that nobody can tell whether each"},
	} {
		if got := f.Gap(x.way); got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
	f.Cleanup = "a.star:9:5: x was never true"
	if got := f.Gap(good); got != "" {
		t.Errorf("a cleanup is judged at the first step only: %q", got)
	}
	good.First = true
	if got := f.Gap(good); got != "cleanup: a.star:9:5: x was never true" {
		t.Errorf("%q", got)
	}
	f.Cleanup = Covered
	if got := f.Gap(good); got != "" {
		t.Errorf("%q", got)
	}
}

type files map[string]string

func (f files) Read(name string) ([]byte, error) {
	text, ok := f[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func manifest(version, param string) sdk.Manifest {
	return sdk.Manifest{Name: "svc", Version: version, Functions: []sdk.Function{{Name: "restart", Kind: sdk.Action, Params: []sdk.Param{{Name: param, Type: "string"}}}}}
}

// Whatever a test was about has to be what is there now; a plugin's version says nothing about that.
func TestStale(t *testing.T) {
	t.Parallel()
	rb := &project.Runbook{Path: "a.star", Digest: "d", Closure: []sandbox.File{{Path: "a.star"}}, Params: value.Dict{{Key: value.String("limit"), Value: value.Int(1)}}}
	src := files{"a.star": "ctx.svc.restart()"}
	file := func(rb project.Runbook, m sdk.Manifest) *File {
		t.Helper()
		f, err := New(&rb, src, []sdk.Manifest{m, {Name: "other"}})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	old := file(*rb, manifest("1", "name"))
	if len(old.Plugins) != 1 {
		t.Errorf("plugins: %v", old.Plugins)
	}
	another, params := *rb, *rb
	another.Digest = "e"
	params.Params = value.Dict{{Key: value.String("limit"), Value: value.Int(2)}}
	for want, now := range map[string]*File{
		"":                                file(*rb, manifest("2", "name")),
		"was changed since it was tested": file(another, manifest("1", "name")),
		"has other parameters than those that were tested": file(params, manifest("1", "name")),
		"was tested with another plugin svc":               file(*rb, manifest("1", "unit")),
	} {
		if got := old.Stale(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	rb := &project.Runbook{Path: "x/a.star", Digest: "d", Closure: []sandbox.File{{Path: "x/a.star"}}}
	src := files{"x/a.star": "ctx.svc.restart()"}
	f, err := New(rb, src, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Actions = []string{Action(at(5), "svc.restart", true)}
	text, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	way := Way{Pos: at(5), Action: "svc.restart"}
	for name, x := range map[string]struct {
		text []byte
		want string
	}{
		"covered":     {text, ""},
		"no file":     {nil, "x/a.star was never tested: there is no a.tested"},
		"damaged":     {text[:20], "x/a.tested cannot be read: unexpected EOF"},
		"newer":       {bytes.Replace(text, []byte(`"v": 1`), []byte(`"v": 2`), 1), "x/a.tested has version 2, this binary knows 1"},
		"changed":     {bytes.Replace(text, []byte(`"d"`), []byte(`"e"`), 1), "x/a.star was changed since it was tested"},
		"not covered": {bytes.Replace(text, []byte(`:5:5`), []byte(`:6:5`), 1), "a.star:5:5: svc.restart was never tested"},
	} {
		disk := fstest.MapFS{}
		if x.text != nil {
			disk["x/a.tested"] = &fstest.MapFile{Data: x.text}
		}
		g := Gate{Source: src, Data: func(name string) (io.ReadCloser, error) { return disk.Open(name) }}
		for range 2 { // the second time it is remembered
			c := g.Judge(rb, way)
			if !c.Enforced || c.Covered != (x.want == "") || c.Missing != x.want {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	g := Gate{Source: src, Data: func(string) (io.ReadCloser, error) { return nil, errors.New("input/output error") }}
	if c := g.Judge(rb, way); c.Covered || !strings.Contains(c.Missing, "input/output error") {
		t.Errorf("%+v", c)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"source":"a","arms":["a.star:1:1 true"]}`))
	f.Add([]byte(`{"v":1,"plugins":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := Decode("a.tested", text)
		if err != nil {
			return
		}
		again, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode("a.tested", again); err != nil {
			t.Fatal(err)
		}
	})
}
