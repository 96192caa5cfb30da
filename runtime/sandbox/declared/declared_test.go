package declared

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// files is a project in memory.
type files map[string]string

func (f files) Read(path string) ([]byte, error) {
	text, ok := f[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

// process counts what is asked of a worker process.
type process struct {
	loads, evaluations int
	dead               bool
	fail               error
}

func (p *process) Load(_ context.Context, path string, _ sandbox.Vocabulary, src sandbox.Source) (sandbox.Module, error) {
	p.loads++
	if p.fail != nil {
		return sandbox.Module{}, p.fail
	}
	m := sandbox.Module{Path: path, Doc: "doc of " + path, Defs: []string{"run"}, Records: []*value.Record{{Type: "runbook", Pos: value.Pos{File: path, Line: 3}, Fields: []value.Field{}}}}
	for _, p := range []string{"lib/x.star", path} {
		text, err := src.Read(p)
		if err != nil {
			return m, err
		}
		m.Closure = append(m.Closure, sandbox.File{Path: p, SHA256: hash(text)})
	}
	return m, nil
}

func (p *process) Evaluate(context.Context, string, string, sandbox.Vocabulary, sandbox.Source, sandbox.Context, kit.Caller) (sandbox.Result, error) {
	p.evaluations++
	return sandbox.Result{Steps: 7}, nil
}
func (p *process) Dead() bool { return p.dead }
func (p *process) Close()     { p.dead = true }

var (
	words  = sandbox.Vocabulary{Declarations: []kit.Function{{Name: "runbook", Kind: kit.Declare}}}
	others = sandbox.Vocabulary{Declarations: []kit.Function{{Name: "runbook", Kind: kit.Declare, Doc: "another release"}}}
)

// site is a memory on disk, and what happens to the processes that are started.
type site struct {
	t       *testing.T
	file    string
	exe     string
	src     files
	started int
	p       *process
	fail    error
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, file: filepath.Join(dir, "cache", "declared"), exe: filepath.Join(dir, "exe"), src: files{"a.star": "a", "lib/x.star": "x"}}
	if err := os.WriteFile(s.exe, []byte("1"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// load is one run: a fresh memory, one file loaded, and the memory saved. It returns how often a process was asked.
func (s *site) load(path string, v sandbox.Vocabulary, limits sandbox.Limits) (sandbox.Module, int) {
	s.t.Helper()
	m := Open(s.file, s.exe)
	s.p, s.started = &process{fail: s.fail}, 0
	w := m.Worker(limits, func(context.Context) (sandbox.Worker, error) { s.started++; return s.p, nil })
	defer w.Close()
	mod, err := w.Load(s.t.Context(), path, v, s.src)
	if !errors.Is(err, s.fail) {
		s.t.Fatal(err)
	}
	if err := m.Save(); err != nil {
		s.t.Fatal(err)
	}
	return mod, s.p.loads
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, asked := s.load("a.star", words, sandbox.Limits{})
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	second, asked := s.load("a.star", words, sandbox.Limits{})
	if asked != 0 || s.started != 0 {
		t.Errorf("asked %d times, started %d", asked, s.started)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("(-said +remembered)\n%s", diff)
	}
}

func TestForgotten(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *site){
		"the file changed":            func(s *site) { s.src["a.star"] = "b" },
		"what it loads changed":       func(s *site) { s.src["lib/x.star"] = "y" },
		"the binary changed":          func(s *site) { must(s.t, os.WriteFile(s.exe, []byte("22"), 0o700)) },
		"the memory is gone":          func(s *site) { must(s.t, os.Remove(s.file)) },
		"a bit of it is wrong":        func(s *site) { s.flip(-3) },
		"its head is wrong":           func(s *site) { s.flip(2) },
		"it is cut off":               func(s *site) { must(s.t, os.Truncate(s.file, 40)) },
		"it cannot be read":           func(s *site) { must(s.t, os.Remove(s.file)); must(s.t, os.Mkdir(s.file, 0o700)) },
		"the binary cannot be looked": func(s *site) { must(s.t, os.Remove(s.exe)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.load("a.star", words, sandbox.Limits{})
			change(s)
			m := Open(s.file, s.exe)
			p := &process{}
			w := m.Worker(sandbox.Limits{}, func(context.Context) (sandbox.Worker, error) { return p, nil })
			defer w.Close()
			if _, err := w.Load(t.Context(), "a.star", words, s.src); err != nil || p.loads != 1 {
				t.Errorf("asked %d times: %v", p.loads, err)
			}
		})
	}
	s := newSite(t)
	s.load("a.star", words, sandbox.Limits{})
	if _, asked := s.load("a.star", others, sandbox.Limits{}); asked != 1 {
		t.Error("another vocabulary was taken for the same")
	}
	s.load("a.star", words, sandbox.Limits{})
	if _, asked := s.load("a.star", words, sandbox.Limits{Steps: 5}); asked != 1 {
		t.Error("other limits were taken for the same")
	}
	s.fail = errors.New("broken")
	s.src["a.star"] = "c"
	s.load("a.star", words, sandbox.Limits{})
	if _, asked := s.load("a.star", words, sandbox.Limits{}); asked != 1 {
		t.Error("a failure was remembered")
	}
}

func TestSaveMakesNoStateDirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.file = filepath.Join(t.TempDir(), "state", "cache", "declared")
	m := Open(s.file, s.exe)
	w := m.Worker(sandbox.Limits{}, func(context.Context) (sandbox.Worker, error) { return &process{}, nil })
	defer w.Close()
	if _, err := w.Load(t.Context(), "a.star", words, s.src); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("save: %v", err)
	}
}

func TestProcessIsStartedWhenNeeded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.load("a.star", words, sandbox.Limits{})
	m := Open(s.file, s.exe)
	p, started := &process{}, 0
	start := func(context.Context) (sandbox.Worker, error) { started++; return p, nil }
	w := m.Worker(sandbox.Limits{}, start)
	if _, err := w.Load(t.Context(), "a.star", words, s.src); err != nil || w.Dead() || started != 0 {
		t.Fatalf("%v, dead %v, started %d", err, w.Dead(), started)
	}
	w.(sandbox.Warmer).Warm(t.Context(), "a.star", words, s.src)
	for range 2 {
		if r, err := w.Evaluate(t.Context(), "a.star", "run", words, s.src, sandbox.Context{}, nil); err != nil || r.Steps != 7 {
			t.Fatal(r, err)
		}
	}
	if started != 1 || p.evaluations != 2 {
		t.Errorf("started %d, evaluated %d", started, p.evaluations)
	}
	p.dead = true
	if !w.Dead() {
		t.Error("its process is dead, and it is not")
	}
	w.Close()

	// A process that does not outlive the loading ahead is replaced: the evaluation is as it would have been without.
	fragile, sound := &process{fail: errors.New("killed"), dead: true}, &process{}
	next := []*process{fragile, sound}
	again := m.Worker(sandbox.Limits{}, func(context.Context) (sandbox.Worker, error) { p := next[0]; next = next[1:]; return p, nil })
	again.(sandbox.Warmer).Warm(t.Context(), "a.star", words, s.src)
	if r, err := again.Evaluate(t.Context(), "a.star", "run", words, s.src, sandbox.Context{}, nil); err != nil || r.Steps != 7 || sound.evaluations != 1 || fragile.evaluations != 0 {
		t.Errorf("%+v, %v, evaluated %d and %d times", r, err, fragile.evaluations, sound.evaluations)
	}
	again.Close()

	closed := m.Worker(sandbox.Limits{}, start)
	closed.Close()
	if _, err := closed.Evaluate(t.Context(), "a.star", "run", words, s.src, sandbox.Context{}, nil); err == nil || !closed.Dead() || started != 1 {
		t.Errorf("closed: %v, dead %v, started %d", err, closed.Dead(), started)
	}
	failing := m.Worker(sandbox.Limits{}, func(context.Context) (sandbox.Worker, error) { return nil, errors.New("no memory") })
	if _, err := failing.Evaluate(t.Context(), "a.star", "run", words, s.src, sandbox.Context{}, nil); err == nil || !failing.Dead() {
		t.Errorf("failing: %v, dead %v", err, failing.Dead())
	}
	failing.Close()
}

func (s *site) flip(at int) {
	s.t.Helper()
	data, err := os.ReadFile(s.file)
	must(s.t, err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 1
	must(s.t, os.WriteFile(s.file, data, 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// anyValue draws a value of any kind.
func anyValue(t *rapid.T, depth int) value.Value {
	text := rapid.SampledFrom([]string{"", "a", "state", "ä\x00", "a longer text that may come again"})
	kinds := 9
	if depth < 3 {
		kinds = 12
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return value.Null{}
	case 1:
		return value.Bool(rapid.Bool().Draw(t, "bool"))
	case 2:
		return value.Int(rapid.Int64().Draw(t, "int"))
	case 3:
		return value.Big("123456789012345678901234567890")
	case 4:
		return value.Float(rapid.SampledFrom([]float64{0, -1.5, math.Inf(-1), math.MaxFloat64}).Draw(t, "float"))
	case 5:
		return value.String(text.Draw(t, "string"))
	case 6:
		return value.Bytes(text.Draw(t, "bytes"))
	case 7:
		return value.Duration(rapid.Int64().Draw(t, "duration"))
	case 8:
		return value.Time(time.Unix(rapid.Int64Range(-1e10, 1e10).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).UTC())
	case 9:
		l := make(value.List, rapid.IntRange(0, 3).Draw(t, "n"))
		for i := range l {
			l[i] = anyValue(t, depth+1)
		}
		return l
	case 10:
		d := make(value.Dict, rapid.IntRange(0, 3).Draw(t, "n"))
		for i := range d {
			d[i] = value.Entry{Key: anyValue(t, 3), Value: anyValue(t, depth+1)}
		}
		return d
	}
	r := &value.Record{Type: text.Draw(t, "type"), Pos: value.Pos{File: text.Draw(t, "file"), Line: rapid.IntRange(0, 1e6).Draw(t, "line"), Col: 7}}
	r.Fields = make([]value.Field, rapid.IntRange(0, 3).Draw(t, "n"))
	for i := range r.Fields {
		r.Fields[i] = value.Field{Name: text.Draw(t, "name"), Value: anyValue(t, depth+1), Pos: value.Pos{File: text.Draw(t, "file"), Line: i}}
	}
	return r
}

func TestCodec(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := anyValue(t, 0)
		w := writer{texts: map[string]uint64{}}
		w.value(v)
		r := reader{in: bytes.Clone(w.out)}
		got := r.value()
		if diff := cmp.Diff(v, got, cmp.Comparer(func(a, b value.Time) bool { return time.Time(a).Equal(time.Time(b)) })); diff != "" || r.broken || len(r.in) > 0 {
			t.Fatalf("broken %v, %d bytes left (-want +got)\n%s", r.broken, len(r.in), diff)
		}
	})
}

func FuzzEntries(f *testing.F) {
	w := writer{texts: map[string]uint64{}}
	w.entries(map[string]entry{"a.star": {
		vocabulary: "v", doc: "d", defs: []string{"run"}, closure: []sandbox.File{{Path: "a.star", SHA256: "0"}},
		records: []*value.Record{{Type: "t", Fields: []value.Field{{Name: "f", Value: value.List{value.Int(-1), value.String("t")}}}}},
	}})
	f.Add(w.out)
	f.Fuzz(func(_ *testing.T, in []byte) {
		_, _ = (&reader{in: in}).entries() // it must not panic, nor take more memory than the bytes are worth
	})
}
