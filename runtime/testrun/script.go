package testrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Script runs the tests of one file of a project: its functions test_...(t), in the order of the file, and its scenarios. file is relative to the
// project's root. The error is that of a file that could not be read, or of the context.
func Script(ctx context.Context, p *Project, file string, o Options) ([]Result, error) {
	tests, err := find(ctx, p, file)
	if err != nil {
		return nil, err
	}
	if len(tests) == 0 {
		return nil, problem.New(problem.Usage, "there is no test in this file").At(value.Pos{File: file}).WithHint("write def test_something(t):")
	}
	tests = slices.DeleteFunc(tests, func(t *test) bool { return o.Run != nil && !o.Run.MatchString(t.name) })
	out := make([]Result, len(tests))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, o.Parallel))
	for i, t := range tests {
		g.Go(func() error {
			out[i] = t.run(ctx, p)
			return ctx.Err()
		})
	}
	return out, g.Wait()
}

// test is one test of a file.
type test struct {
	file, name string
	fn         string        // the function
	scenario   *value.Record // or what is declared
}

// find loads a file and lists its tests.
func find(ctx context.Context, p *Project, file string) ([]*test, error) {
	w, err := p.Spawn(ctx)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	m, err := w.Load(ctx, file, Vocabulary(), p.Tree)
	if err != nil {
		return nil, err
	}
	var out []*test
	for _, name := range m.Defs {
		if strings.HasPrefix(name, "test_") {
			out = append(out, &test{file: file, name: name, fn: name})
		}
	}
	for _, r := range m.Records {
		if r.Type != "scenario" {
			return nil, problem.New(problem.Script, "%s(...) has no effect here", r.Type).At(r.Pos).WithHint("write it where it is expected")
		}
		name, _ := r.Get("name")
		n, _ := name.Value.(value.String)
		out = append(out, &test{file: file, name: string(n), scenario: r})
	}
	for i, t := range out {
		if slices.ContainsFunc(out[:i], func(o *test) bool { return o.name == t.name }) {
			return nil, problem.New(problem.Script, "two tests have the name %q", t.name).At(value.Pos{File: file})
		}
	}
	return out, nil
}

// run runs the test in a world of its own.
func (t *test) run(ctx context.Context, p *Project) Result {
	r := Result{File: t.file, Name: t.name, Verdict: Passed}
	w, err := newWorld(p, path.Dir(t.file))
	if err != nil {
		r.Verdict, r.Problem = Broken, asProblem(t.file, err)
		return r
	}
	defer w.close()
	s := &script{w: w, expected: map[value.Pos]bool{}}
	if t.scenario != nil {
		err = s.scenario(ctx, t.scenario)
	} else {
		err = s.evaluate(ctx, t)
	}
	r.Covered, r.Warnings = w.covered, w.warnings
	var failed *failure
	switch {
	case errors.As(err, &failed):
		r.Verdict, r.Failures = Failed, []string{failed.Error()}
	case err != nil:
		r.Verdict, r.Problem = Broken, asProblem(t.file, err)
	}
	if r.Verdict != Passed {
		for _, run := range w.runs {
			r.Explained = append(r.Explained, trace.Explain(run))
		}
	}
	return r
}

// failure is an expectation that does not hold.
type failure struct {
	pos  value.Pos
	text string
}

func (f *failure) Error() string { return strings.TrimPrefix(f.pos.String()+": "+f.text, ": ") }

// script answers what the functions of t ask for.
type script struct {
	w        *world
	expected map[value.Pos]bool // expectations, and whether something was asked of them
}

var _ kit.Caller = (*script)(nil)

// evaluate calls the test's function.
func (s *script) evaluate(ctx context.Context, t *test) error {
	worker, err := s.w.p.Spawn(ctx)
	if err != nil {
		return err
	}
	defer worker.Close()
	if _, err := worker.Evaluate(ctx, t.file, t.fn, Vocabulary(), s.w.p.Tree, sandbox.Context{Bare: true}, s); err != nil {
		return err
	}
	if len(s.expected) == 0 {
		return &failure{value.Pos{File: t.file}, t.name + " expects nothing, so it could not fail"}
	}
	for pos, used := range s.expected {
		if !used {
			return &failure{pos, "this expects nothing: write t.expect(...).equal(...)"}
		}
	}
	return nil
}

// Call implements kit.Caller. A problem gets the position of the call, as does a failure.
func (s *script) Call(ctx context.Context, req kit.Request) (value.Value, error) {
	v, err := s.call(ctx, req)
	var f *failure
	var p *problem.Problem
	switch {
	case err == nil:
		if v == nil {
			v = value.Null{}
		}
		return v, nil
	case errors.As(err, &f):
		f.pos = req.Pos
		return nil, f
	case errors.As(err, &p):
		if p.Pos == (value.Pos{}) {
			q := *p
			p = q.At(req.Pos)
		}
		return nil, p
	}
	return nil, problem.New(problem.Argument, "%v", err).At(req.Pos)
}

func (s *script) call(ctx context.Context, req kit.Request) (value.Value, error) {
	w, a := s.w, req.Args
	switch req.Family + "." + req.Function {
	case ".now":
		if at, given := a["at"]; given {
			at, err := w.moment(at)
			if err != nil {
				return nil, err
			}
			if err := w.set(at); err != nil {
				return nil, err
			}
		}
		return value.Time(w.now), nil
	case ".advance":
		return nil, w.set(w.now.Add(span(a["by"])))
	case ".duration":
		return a["text"], nil
	case ".metrics":
		_, err := w.load(recordingOf(a))
		return nil, err
	case ".series":
		start := Beginning
		if at, given := a["start"]; given {
			var err error
			if start, err = w.moment(at); err != nil {
				return nil, err
			}
		}
		return nil, w.series(str(a["series"]), str(a["values"]), start, span(a["step"]))
	case ".promtool":
		return nil, w.promtool(str(a["path"]), str(a["group"]))
	case ".alert":
		return nil, w.fire(a)
	case ".rules":
		return nil, w.addRules(str(a["path"]))
	case ".change":
		return nil, w.change(ctx, a)
	case ".fake":
		return nil, w.host.pretend(a)
	case ".halt":
		w.halted = true
		return nil, nil
	case ".resume":
		w.halted = false
		return nil, nil
	case ".run":
		return s.run(ctx, a)
	case "run.target":
		return targetOf(a)
	case ".action":
		return actionRecord(a), nil
	case ".expect":
		if _, again := s.expected[req.Pos]; !again {
			s.expected[req.Pos] = false
		}
		x := record(typeExpectation, "got", a["got"])
		x.Pos = req.Pos
		return x, nil
	}
	if req.Family == typeExpectation {
		x := a["expectation"].(*value.Record)
		if _, mine := s.expected[x.Pos]; mine {
			s.expected[x.Pos] = true
		}
		got, _ := x.Get("got")
		return nil, w.host.compare(req.Function, got.Value, a["want"])
	}
	return nil, problem.New(problem.Internal, "t.%s is not answered", req.Function)
}

// fire is t.alert.
func (w *world) fire(a kit.Args) error {
	if len(w.settings.Alerts) == 0 {
		return problem.New(problem.Project, "%s names no Alertmanager", project.File).WithHint(`write project(alerts = [connection("alertmanager", config = {"url": "http://..."})])`)
	}
	x := alert{labels: stringMap(a["labels"]), since: w.now, silenced: a["silenced"] == value.Bool(true)}
	x.labels["alertname"] = str(a["name"])
	var err error
	if at, given := a["since"]; given {
		if x.since, err = w.moment(at); err != nil {
			return err
		}
	}
	if at, given := a["until"]; given {
		if x.until, err = w.moment(at); err != nil {
			return err
		}
	}
	w.alerts = append(w.alerts, x)
	return nil
}

// change is t.change.
func (w *world) change(ctx context.Context, a kit.Args) error {
	c := ledger.Change{Component: str(a["component"]), Version: str(a["version"]), Started: w.now, By: "test"}
	var err error
	if at, given := a["started"]; given {
		if c.Started, err = w.moment(at); err != nil {
			return err
		}
	}
	if at, given := a["ended"]; given {
		if c.Ended, err = w.moment(at); err != nil {
			return err
		}
	}
	_, err = ledger.AddChange(ctx, w.store, w.sample, c)
	return err
}

// addRules is t.rules.
func (w *world) addRules(name string) error {
	if w.judged != nil {
		return problem.New(problem.Argument, "t.rules comes before the first t.run")
	}
	name = w.path(name)
	f, err := w.p.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return problem.Wrap(problem.Recording, err, "read %s", name)
	}
	w.rules = append(w.rules, recorded.RuleFile{Name: name, Text: text})
	_, err = recorded.New(recorded.Options{}).LoadRules(w.rules[len(w.rules)-1:], recorded.RuleOptions{})
	return err
}

// recordingOf is what t.metrics says about a file.
func recordingOf(a kit.Args) recorded.Recording {
	rec := recorded.Recording{Name: str(a["path"]), Disorder: recorded.Disorder(str(a["disorder"]))}
	if rec.Disorder == "refuse" {
		rec.Disorder = recorded.Refuse
	}
	if values, given := a["values"]; given {
		rec.CSV = &recorded.CSV{Time: str(a["time"]), Layout: str(a["layout"]), Values: stringMap(values), Labels: stringMap(a["labels"]), Add: stringMap(a["add"])}
	}
	return rec
}

// run is t.run.
func (s *script) run(ctx context.Context, a kit.Args) (value.Value, error) {
	w := s.w
	if at, given := a["at"]; given {
		at, err := w.moment(at)
		if err != nil {
			return nil, err
		}
		if err := w.set(at); err != nil {
			return nil, err
		}
	}
	o := runOptions{path: str(a["runbook"]), target: str(a["target"]), mode: guard.Mode(str(a["mode"])), untested: a["tested"] == value.Bool(false)}
	if !slices.Contains([]guard.Mode{guard.Shadow, guard.Recommend, guard.Approve, guard.Auto}, o.mode) {
		return nil, problem.New(problem.Argument, "t.run: there is no mode %q", o.mode).WithHint(`the modes are "shadow", "recommend", "approve" and "auto"`)
	}
	before := len(w.told)
	_, rb, err := w.run(ctx, o)
	if err != nil {
		return nil, err
	}
	return w.answer(rb, w.told[before:]), nil
}

// targetOf is run.target.
func targetOf(a kit.Args) (value.Value, error) {
	r, name := a["run"].(*value.Record), str(a["name"])
	targets, _ := r.Get("targets")
	list, _ := targets.Value.(value.List)
	var names []string
	for _, x := range list {
		t, ok := x.(*value.Record)
		if !ok {
			continue
		}
		n, _ := t.Get("name")
		k, _ := t.Get("key")
		if str(n.Value) == name || str(k.Value) == name {
			return t, nil
		}
		names = append(names, str(n.Value))
	}
	if due, _ := r.Get("due"); due.Value == value.Bool(false) {
		why, _ := r.Get("why")
		return nil, problem.New(problem.NotFound, "the runbook was not due: %s", str(why.Value)).WithHint("let time pass first, with t.advance(...)")
	}
	if trouble, _ := r.Get("problem"); trouble.Value != value.Value(value.Null{}) {
		return nil, problem.New(problem.NotFound, "the run has no target %q: %s", name, str(trouble.Value))
	}
	p := problem.New(problem.NotFound, "the run has no target %q%s", name, problem.DidYouMean(name, names))
	if len(names) == 0 {
		return nil, p.WithHint("it has none at all: does fleet(all=) find series at that time?")
	}
	return nil, p.WithHint("it has: %s", strings.Join(names[:min(len(names), 20)], ", "))
}

func actionRecord(a kit.Args) *value.Record {
	r := record(typeAction, "name", a["name"])
	for _, name := range []string{"first", "args"} {
		if v, given := a[name]; given {
			r.Fields = append(r.Fields, value.Field{Name: name, Value: v})
		}
	}
	return r
}

// pretend is t.fake.
func (h *host) pretend(a kit.Args) error {
	f := &fake{function: str(a["function"]), outcome: str(a["outcome"]), message: str(a["message"]), target: str(a["target"]), value: a["value"], left: -1}
	fn, err := h.fn(f.function)
	if err != nil {
		return err
	}
	known := fakeOutcomes
	if fn.Kind != kit.Action {
		known = []string{fakeOK, fakeFailed}
	}
	if !slices.Contains(known, f.outcome) {
		return problem.New(problem.Argument, "t.fake: %s cannot end as %q%s", f.function, f.outcome, problem.DidYouMean(f.outcome, known)).WithHint("it ends as: %s", strings.Join(known, ", "))
	}
	if f.target != "" && fn.Kind != kit.Action {
		return problem.New(problem.Argument, "t.fake: %s is not about a target", f.function)
	}
	if n, given := a["times"].(value.Int); given {
		if n < 1 {
			return problem.New(problem.Argument, "t.fake: times must be at least 1, got %d", n)
		}
		f.left = int(n)
	}
	if f.value == nil {
		f.value = value.Null{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fakes = append(h.fakes, f)
	return nil
}

// compare is what an expectation's method asks. A *failure says that it does not hold.
func (h *host) compare(how string, got, want value.Value) error {
	got, err := h.normal(got)
	if err != nil {
		return err
	}
	if want, err = h.normal(want); err != nil {
		return err
	}
	holds := false
	switch how {
	case "equal":
		holds = same(got, want)
	case "differ":
		holds = !same(got, want)
	case "contain", "lack":
		if holds, err = contains(got, want); err != nil {
			return err
		}
		holds = holds == (how == "contain")
	}
	if holds {
		return nil
	}
	says := map[string]string{"equal": "got %s, want %s", "differ": "got %s, want anything but %s", "contain": "%s does not contain %s", "lack": "%s contains %s"}[how]
	text := fmt.Sprintf(says, show(got), show(want))
	if how == "equal" {
		text += difference(got, want)
	}
	return &failure{text: text}
}

func str(v value.Value) string {
	s, _ := v.(value.String)
	return string(s)
}

func span(v value.Value) time.Duration {
	d, _ := v.(value.Duration)
	return time.Duration(d)
}

func list(v value.Value) value.List {
	l, _ := v.(value.List)
	return l
}

func dict(v value.Value) value.Dict {
	d, _ := v.(value.Dict)
	return d
}

func stringMap(v value.Value) map[string]string {
	out := map[string]string{}
	for _, e := range dict(v) {
		out[str(e.Key)] = str(e.Value)
	}
	return out
}
