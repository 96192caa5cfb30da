package testrun

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store/memory"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Project is what tests of runbooks need of a project.
type Project struct {
	Tree      *project.Tree
	Data      *project.Tree // where recordings and rule files are; Tree if nil
	Settings  *project.Settings
	Families  []kit.Family   // builtin and plugin families
	Manifests []sdk.Manifest // of every plugin that is known, none of which is started
	Spawn     func(ctx context.Context) (sandbox.Worker, error)
	Version   string
}

func (p *Project) open(name string) (io.ReadCloser, error) {
	if p.Data != nil {
		return p.Data.Data(name)
	}
	return p.Tree.Data(name)
}

// Beginning is where a test's clock begins.
var Beginning = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const minute = time.Minute

// booted is for how long the test's machine has been up when the test begins.
const booted = 24 * time.Hour

// world is what a test has set up and what has happened in it.
type world struct {
	p         *Project
	settings  *project.Settings
	dir       string // of the test's file, relative to the project
	scratch   string // holds the state directory
	state     control.State
	store     *memory.Store
	db        *recorded.DB
	memo      *memo      // of a backtest, nil if each query is asked by itself
	foresight *foresight // of a backtest, nil with memo
	now       time.Time
	runs      []*trace.Run
	pid       int
	halted    bool
	host      *host
	alerts    []alert
	rules     []recorded.RuleFile
	judged    *recorded.Rules // the same, once they were evaluated
	until     time.Time       // the last evaluation
	first     time.Time       // of all samples; zero if there is none
	warnings  []string        // about the recordings, each once

	files sandbox.Source // of the project, as they were when this world first read them

	mu      sync.Mutex
	read    map[string]*project.Runbook // by path
	told    []notify.Message
	idle    []sandbox.Worker
	covered map[string]*Covered // by path
}

// newWorld makes an empty one; the caller ends it with close.
func newWorld(p *Project, dir string) (*world, error) {
	scratch, err := os.MkdirTemp("/dev/shm", "runbook-test-") // what is synced there waits for no disk
	if err != nil {
		scratch, err = os.MkdirTemp("", "runbook-test-")
	}
	if err != nil {
		return nil, problem.Wrap(problem.StateUnusable, err, "a directory for the test")
	}
	w := &world{p: p, dir: dir, scratch: scratch, store: memory.New(), db: recorded.New(recorded.Options{}), now: Beginning, files: p.Tree.Frozen(), read: map[string]*project.Runbook{}, covered: map[string]*Covered{}}
	w.host = &host{w: w}
	if w.state, err = control.InitAs(filepath.Join(scratch, "state"), filepath.Join(scratch, "gate"), "test"); err != nil {
		w.close()
		return nil, err
	}
	// No secret is there where tests run, and nothing needs one: no plugin is started.
	s := *p.Settings
	s.Metrics.Config, s.Connections, s.Alerts = nil, slices.Clone(s.Connections), slices.Clone(s.Alerts)
	for i := range s.Alerts {
		s.Alerts[i].Config = nil
	}
	for i := range s.Connections {
		s.Connections[i].Config = nil
	}
	s.Policy.Mode = guard.Auto
	w.settings = &s
	return w, nil
}

func (w *world) close() {
	for _, worker := range w.idle {
		worker.Close()
	}
	_ = os.RemoveAll(w.scratch)
}

// moment reads a time as a test writes it.
func (w *world) moment(v value.Value) (time.Time, error) {
	switch v := v.(type) {
	case value.Time:
		return time.Time(v), nil
	case value.Duration:
		return Beginning.Add(time.Duration(v)), nil
	case value.String:
		if at, err := time.Parse(time.RFC3339, string(v)); err == nil {
			return at.UTC(), nil
		}
		if d, err := value.ParseDuration(string(v)); err == nil {
			return Beginning.Add(d), nil
		}
		return time.Time{}, problem.New(problem.Argument, "%q is no time", string(v)).WithHint(`write "2026-03-01T10:20:00Z", or how long after the beginning of the test: "20m"`)
	}
	return time.Time{}, problem.New(problem.Argument, "a time is text, not a %s", v.Kind()).WithHint(`write "2026-03-01T10:20:00Z", or how long after the beginning of the test: "20m"`)
}

// set moves the clock. The first time of a test may be any; after a run it only goes forward, as the records' does.
func (w *world) set(at time.Time) error {
	if len(w.runs) > 0 && at.Before(w.now) {
		return problem.New(problem.Argument, "the clock of a test does not go back: it is %s already", w.now.Format(time.RFC3339)).WithHint("write what happens in order of time")
	}
	w.now = at
	return nil
}

// path is that of a file which the test names.
func (w *world) path(name string) string {
	if rooted, ok := strings.CutPrefix(name, "//"); ok {
		return path.Clean(rooted)
	}
	return path.Join(w.dir, name)
}

// load adds a recording.
func (w *world) load(rec recorded.Recording) (recorded.Loaded, error) {
	rec.Name = w.path(rec.Name)
	f, err := w.p.open(rec.Name)
	if err != nil {
		return recorded.Loaded{}, err
	}
	defer f.Close()
	loaded, err := w.db.Load(f, rec)
	if err == nil {
		w.began(loaded.From)
	}
	w.warn(loaded.Warnings)
	return loaded, err
}

func (w *world) warn(warnings []string) {
	for _, x := range warnings {
		if !slices.Contains(w.warnings, x) {
			w.warnings = append(w.warnings, x)
		}
	}
}

// began notes the time of a sample.
func (w *world) began(at time.Time) {
	if w.first.IsZero() || at.Before(w.first) {
		w.first = at
	}
}

// series adds a series in promtool's notation.
func (w *world) series(series, values string, start time.Time, step time.Duration) error {
	_, err := w.db.Notation(series, values, start, step)
	if err == nil {
		w.began(start)
	}
	return err
}

// alert is one that a test lets fire.
type alert struct {
	labels       map[string]string
	since, until time.Time // until is zero if it does not end
	silenced     bool
}

// evaluate brings the rules up to date. Series that are added afterwards to a time that is over are too late for them.
func (w *world) evaluate(ctx context.Context) error {
	if len(w.rules) == 0 {
		return nil
	}
	if w.judged == nil {
		rules, err := w.db.LoadRules(w.rules, recorded.RuleOptions{})
		if err != nil {
			return err
		}
		w.judged, w.until = rules, w.first.Add(-time.Millisecond)
	}
	if w.first.IsZero() || !w.until.Before(w.now) {
		return nil
	}
	err := w.judged.Advance(ctx, w.until, w.now)
	w.until = w.now
	return err
}

// firing are the alerts that fire now, as a plugin answers: those of the test, and those of rules.
func (w *world) firing(name string, where map[string]string) value.List {
	out := value.List{}
	add := func(labels, annotations map[string]string, since time.Time, silenced bool) {
		if name != "" && labels["alertname"] != name {
			return
		}
		for k, v := range where {
			if labels[k] != v {
				return
			}
		}
		out = append(out, value.Map(map[string]value.Value{
			"name": text(labels["alertname"]), "labels": value.Strings(labels), "annotations": value.Strings(annotations),
			"since": value.Time(since), "updated": value.Time(w.now), "silenced": value.Bool(silenced),
		}))
	}
	for _, a := range w.alerts {
		if !a.since.After(w.now) && (a.until.IsZero() || a.until.After(w.now)) {
			add(a.labels, nil, a.since, a.silenced)
		}
	}
	if w.judged != nil {
		for _, a := range w.judged.Firing("") {
			add(a.Labels, a.Annotations, a.FiredAt, false)
		}
	}
	return out
}

// promtool adds the input series of a unit test file of Prometheus rules.
func (w *world) promtool(name, group string) error {
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
	u, err := recorded.ParseUnitTests(name, text)
	if err != nil {
		return err
	}
	var names []string
	for _, g := range u.Groups {
		if g.Name == group || group == "" && len(u.Groups) == 1 {
			w.began(Beginning)
			w.warn(g.Warnings())
			return g.Append(w.db, Beginning)
		}
		names = append(names, g.Name)
	}
	return problem.New(problem.NotFound, "%s has no test group %q%s", name, group, problem.DidYouMean(group, names)).WithHint("it has: %s", strings.Join(names, ", "))
}

// sample is what the test's machine says of the time.
func (w *world) sample() (clock.Sample, error) {
	return clock.Sample{Wall: w.now, Boot: "test", Uptime: booted + w.now.Sub(Beginning), Synced: true}, nil
}

// runOptions say how a runbook is run.
type runOptions struct {
	path, target string
	mode         guard.Mode
	untested     bool
	traceless    bool
}

// run is one run of one runbook.
func (w *world) run(ctx context.Context, o runOptions) (*trace.Run, *trace.Runbook, error) {
	r, err := w.process(ctx, []string{w.path(o.path)}, o)
	if err != nil {
		return nil, nil, err
	}
	rb := r.Runbooks[0]
	switch {
	case rb.Problem != nil && !rb.Due:
		return nil, nil, rb.Problem
	case len(r.Problems) > 0:
		return nil, nil, r.Problems[0]
	}
	return r, rb, nil
}

// tick is one run of several runbooks, which are named from the project's root.
func (w *world) tick(ctx context.Context, runbooks []string, mode guard.Mode) (*trace.Run, error) {
	return w.process(ctx, runbooks, runOptions{mode: mode, traceless: true})
}

// process is one process that runs the engine.
func (w *world) process(ctx context.Context, paths []string, o runOptions) (*trace.Run, error) {
	if err := w.evaluate(ctx); err != nil {
		return nil, err
	}
	w.pid++
	self := action.Owner{Host: "test", Boot: "test", PID: w.pid, Start: uint64(w.pid)}
	d := engine.Deps{
		State: w.state, Store: w.store, Host: w.host, Tree: w.p.Tree, Settings: w.settings, Families: w.p.Families,
		Spawn: func(ctx context.Context) (sandbox.Worker, error) {
			worker, err := w.worker(ctx)
			if err != nil {
				return nil, err
			}
			return &watched{Worker: worker, w: w}, nil
		},
		Files: w.files, Loaded: w.loaded,
		Sample: w.sample,
		Now:    func() time.Time { return w.now },
		Env: func(name string) (string, bool) {
			if name == control.EnvHalt && w.halted {
				return "1", true
			}
			return "", false
		},
		Self: self,
		Look: func(o action.Owner) process.Liveness {
			if o == self {
				return process.Live
			}
			return process.Dead
		},
		KillGroup: func(action.Child) error { return nil },
		Sinks:     []notify.Sink{inbox{w}},
		Log:       slog.New(slog.DiscardHandler),
		Version:   w.p.Version,
		Adjust: func(rb *project.Runbook) {
			rb.Mode, rb.Policy.Mode = o.mode, o.mode
			w.mu.Lock()
			defer w.mu.Unlock()
			w.coverage(rb.Path)
			w.covered[rb.Path].Runbook = rb
		},
		Coverage: func(rb *project.Runbook, way tested.Way) guard.Coverage {
			return guard.Coverage{Enforced: true, Covered: !o.untested, Missing: way.Pos.String() + ": " + way.Action + " was never tested, says the test"}
		},
	}
	options := engine.Options{Paths: paths, Target: o.target, InOrder: true, Traceless: o.traceless}
	if w.foresight != nil {
		options.Quiet = func(rb *project.Runbook, at time.Time) (func(key string) bool, bool) {
			return w.foresight.quiet(ctx, rb, at)
		}
	}
	r, err := engine.Run(ctx, d, options)
	if r != nil {
		w.runs = append(w.runs, r)
		w.mu.Lock()
		for _, rb := range r.Runbooks {
			for _, t := range rb.Targets {
				w.coverage(rb.Path).actions(t.Evaluation)
			}
		}
		for _, c := range r.Cleanups {
			w.coverage(c.Path).actions(c.Evaluation)
		}
		w.mu.Unlock()
	}
	return r, err
}

// loaded implements engine.Deps.Loaded.
func (w *world) loaded(path string, load func() (*project.Runbook, error)) (*project.Runbook, error) {
	w.mu.Lock()
	rb := w.read[path]
	w.mu.Unlock()
	if rb != nil {
		return rb, nil
	}
	rb, err := load()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read[path] = rb
	return rb, nil
}

// coverage is that of a runbook; mu is held.
func (w *world) coverage(path string) Coverage {
	c := w.covered[path]
	if c == nil {
		c = &Covered{Coverage: Coverage{}}
		w.covered[path] = c
	}
	return c.Coverage
}

// worker is one that an earlier run of this world has left, or a new one.
func (w *world) worker(ctx context.Context) (sandbox.Worker, error) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		worker := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		return worker, nil
	}
	w.mu.Unlock()
	return w.p.Spawn(ctx)
}

// Close implements sandbox.Worker: it is kept for the next run, unless it has ended.
func (x *watched) Close() {
	if x.Dead() {
		x.Worker.Close()
		return
	}
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.w.idle = append(x.w.idle, x.Worker)
}

// watched is a worker whose evaluations count as covered.
type watched struct {
	sandbox.Worker
	w *world
}

// Evaluate implements sandbox.Worker.
func (x *watched) Evaluate(ctx context.Context, path, fn string, vocab sandbox.Vocabulary, src sandbox.Source, c sandbox.Context, caller kit.Caller) (sandbox.Result, error) {
	res, err := x.Worker.Evaluate(ctx, path, fn, vocab, src, c, caller)
	x.w.mu.Lock()
	x.w.coverage(path).add(res.Coverage)
	x.w.mu.Unlock()
	return res, err
}

// inbox is everybody who is told something.
type inbox struct{ w *world }

// Name implements notify.Sink.
func (inbox) Name() string { return "test" }

// Wants implements notify.Sink.
func (inbox) Wants(string) bool { return true }

// Send implements notify.Sink.
func (i inbox) Send(_ context.Context, m notify.Message) error {
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	i.w.told = append(i.w.told, m)
	return nil
}
