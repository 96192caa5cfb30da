// Package engine carries out one run: recover, find out what is due, look, evaluate, decide, record, act, record, report.
//
// Promises:
//   - Recovery comes first and verification second, whatever the run is about and also while halted. Metrics may be asked for beside them, as of the
//     start of the run; nothing is decided before.
//   - An action begins only after every guard has passed and its record is durable; what cannot be recorded does not begin.
//   - An error is never evidence of a problem: a failed query, a dead worker or a lying plugin ends in no action.
//   - One runbook's failure does not keep the others from being evaluated.
//   - The store is not held while a query, a worker or a plugin is waited for.
//   - Every run leaves a trace; a run that completed leaves its heartbeat.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Store is what the engine needs of the store.
type Store interface {
	store.Store
	store.Scanner
}

// Deps is everything that a run touches; all of it is handed in.
type Deps struct {
	State     control.State
	Store     Store
	Host      pluginhost.Host
	Spawn     func(ctx context.Context) (sandbox.Worker, error)
	Tree      *project.Tree
	Settings  *project.Settings
	Families  []kit.Family // builtin and plugin families
	Sample    ledger.Clock
	Now       func() time.Time // wall clock
	Env       func(string) (string, bool)
	Self      action.Owner
	Person    string // whose process this is: user@host
	Look      func(action.Owner) process.Liveness
	KillGroup func(action.Child) error
	Sinks     []notify.Sink
	Heartbeat func(ctx context.Context, r *trace.Run, totals ledger.Totals) error
	Log       *slog.Logger
	Version   string
	// Hook, if set, is called between two moments of an action ("reserved", "begun", "proceed" under the gate, "acting", "finished"); tests stop the
	// process there.
	Hook func(point string)
	// Coverage says what passing tests of exactly this source cover of the way that an evaluation has taken. It is not asked where the policy does not.
	Coverage func(rb *project.Runbook, way tested.Way) guard.Coverage
	// Files are the project's, Tree.Frozen() if nil; and Loaded, if set, returns the runbook of a path, which load loads. A simulation of many runs of the same
	// files reads each once.
	Files  sandbox.Source
	Loaded func(path string, load func() (*project.Runbook, error)) (*project.Runbook, error)
	// Leaving is what waits for the processes that are not needed any more, after the run; nil: the run does.
	Leaving *sync.WaitGroup
	// Adjust, if set, may change what a runbook declares before it is used: a test sets its mode.
	Adjust func(rb *project.Runbook)
}

// Options say what a run is about.
type Options struct {
	Paths   []string // runbook files, relative to the project; from project.Runbooks
	Target  string   // name or key: evaluate this target only, now, whatever the schedule says
	DryRun  bool     // decide and show, change nothing
	InOrder bool     // one runbook after the other, so that a simulation decides the same each time
	// Traceless leaves the trace to the caller: a simulation of a month keeps of each run what it needs, and has no use for the rest.
	Traceless bool
	// Quiet, if set, says whether every target of a runbook is known to be healthy at the time of the run, and of a key whether it is that of one. A
	// simulation that has looked ahead says so, and is spared a look of which nothing comes.
	Quiet func(rb *project.Runbook, at time.Time) (there func(key string) bool, quiet bool)
	// Expected is what the run before this one needed: it is started at once.
	Expected Expected
	// Approval is the request that a person has just approved, "" if that is not why this runs.
	Approval string
}

type engine struct {
	Deps
	Options
	dry      bool
	run      *trace.Run
	totals   *ledger.Totals // with this run, once it is counted
	source   source
	files    sandbox.Source // of the project, as they were when this run first read them
	deadline time.Time
	doubtful []ledger.Doubt // what is in doubt when the run ends
	broken   breaker.Doc    // where the breaker stands then
	mu       sync.Mutex     // over conns, sources, run.Cleanups and run.Recovered
	conns    map[string]pluginhost.Connection
	sources  map[string]*ledger.Source // of what was evaluated, by digest
}

// Run is one pass. The trace is returned also with an error, which means that the run could not be completed.
func Run(ctx context.Context, d Deps, o Options) (*trace.Run, error) {
	e := &engine{Deps: d, Options: o, dry: o.DryRun, files: d.Files, conns: map[string]pluginhost.Connection{}, sources: map[string]*ledger.Source{}}
	if e.files == nil {
		e.files = d.Tree.Frozen()
	}
	if e.Leaving == nil {
		e.Leaving = &sync.WaitGroup{}
	}
	started := e.wall()
	e.deadline = started.Add(d.Settings.Deadline)
	e.run = &trace.Run{
		// Milliseconds, so that "last" is the last of two runs of one second.
		V: trace.Version, ID: started.UTC().Format("20060102-150405.000-") + suffix(), Engine: d.Version, Namespace: d.State.Namespace, Owner: d.Self,
		Trigger: "schedule", DryRun: o.DryRun, Started: started, Policy: d.Settings.Digest, Untested: d.Settings.Policy.Untested, Runbooks: []*trace.Runbook{},
	}
	if o.Target != "" {
		e.run.Trigger = "manual"
	}
	if o.Approval != "" {
		e.run.Trigger = "approval " + o.Approval
	}
	ctx, cancel := context.WithTimeout(ctx, d.Settings.Deadline)
	defer cancel()
	err := e.pass(ctx)
	if ferr := e.finish(ctx, err); err == nil {
		err = ferr
	}
	if d.Leaving == nil {
		e.Leaving.Wait()
	}
	return e.run, err
}

func (e *engine) pass(ctx context.Context) error {
	conn, err := e.connection(e.Settings.Metrics)
	e.source = source{host: e.Host, conn: conn, wall: e.wall, broken: err}
	if err == nil {
		e.prestart(conn) // unless Begin has
	}
	e.run.Halt = e.State.Check(e.Env)
	l := e.startLoading(ctx)
	defer e.release(l)
	if !e.dry {
		if err := e.recover(ctx); err != nil {
			return err
		}
	}
	if !e.dry {
		if err := e.probe(ctx); err != nil {
			return err
		}
		if err := e.cleanups(ctx); err != nil {
			return err
		}
	}
	if err := e.verify(ctx); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	due, err := e.due(ctx, l)
	if err != nil {
		return err
	}
	g := errgroup.Group{}
	if g.SetLimit(atOnce()); e.InOrder {
		g.SetLimit(1)
	}
	for _, d := range due {
		g.Go(func() error {
			defer d.release()
			if err := e.runbook(ctx, d, l); err != nil {
				d.trace.Problem = e.ending(ctx.Err(), err, d.runbook.Path)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if p := e.noSuchTarget(); p != nil {
		e.problem(p)
	}
	return nil
}

// atOnce is how many runbooks a run looks at and evaluates at once.
func atOnce() int { return max(16, 4*runtime.NumCPU()) }

// release ends what a run needs to look and to act, once it has.
func (e *engine) release(l *loading) {
	if r, ok := e.Host.(pluginhost.Releaser); ok {
		r.Release()
	}
	for _, w := range l.end() {
		e.Leaving.Go(w.Close)
	}
}

// problem adds a problem of the run as a whole. One cause, such as a full disk, is met in several places and told once.
func (e *engine) problem(p *problem.Problem) {
	for _, q := range e.run.Problems {
		if q.Code == p.Code && q.Message == p.Message {
			return
		}
	}
	e.run.Problems = append(e.run.Problems, p)
}

// noSuchTarget is the problem of a run by hand for a target that no runbook knows: doing nothing about it must not look like health. A runbook
// that could not be asked may know it.
func (e *engine) noSuchTarget() *problem.Problem {
	if e.Target == "" {
		return nil
	}
	var known []string
	for _, rb := range e.run.Runbooks {
		if rb.Problem != nil || !rb.Due {
			return nil
		}
		for _, t := range rb.Targets {
			if t.Key == e.Target || t.Name == e.Target {
				return nil
			}
			known = append(known, t.Key, t.Name)
		}
	}
	return problem.New(problem.NotFound, "no runbook here has a target %q%s", e.Target, problem.DidYouMean(e.Target, known)).
		WithHint("runbook run --dry-run shows what is sick; --target takes a name such as w3, or a key such as instance=w3")
}

// runbook looks at one runbook's fleet and evaluates it for each sick target.
func (e *engine) runbook(ctx context.Context, d dueRunbook, l *loading) error {
	rb, tr := d.runbook, d.trace
	if e.Quiet != nil {
		if there, quiet := e.Quiet(rb, e.run.Started); quiet {
			return e.observe(ctx, rb, func(key string) (trace.Condition, bool) { return trace.Healthy, there(key) }, over(rb, guard.FleetView{ID: rb.Targets.ID}))
		}
	}
	all, fleet, err := e.look(ctx, rb, tr, e.sightOf(ctx, d))
	if err != nil {
		return e.whereToLook(rb, err)
	}
	for _, s := range all {
		tr.Targets = append(tr.Targets, s.trace)
	}
	slices.SortStableFunc(tr.Targets, func(a, b *trace.Target) int { return strings.Compare(a.Key, b.Key) })
	w := e.warm(ctx, rb, all, l)
	leave := func() {
		if w != nil {
			e.Leaving.Go(w.Close)
		}
		w = nil
	}
	defer leave()
	if err := e.observe(ctx, rb, foundIn(all), over(rb, fleet)); err != nil {
		return err
	}
	if err := blind(rb, all); err != nil {
		return err
	}
	acted := "" // nothing is queued behind an action: what comes after it is decided from fresh data
	for _, s := range all {
		if s.trace.Condition != trace.Sick || !e.wanted(s.target) {
			continue
		}
		if acted != "" {
			s.trace.Evaluation = &trace.Evaluation{Outcome: trace.Skipped, Reason: "this run has acted on " + acted + "; what it knows of this target is older than that, so the next run looks again"}
			continue
		}
		if w == nil || w.Dead() {
			if w != nil {
				w.Close()
			}
			if w, err = e.Spawn(ctx); err != nil {
				return err
			}
		}
		if err := e.evaluate(ctx, w, leave, rb, tr, s, fleet); err != nil {
			return err
		}
		if began(s.trace.Evaluation) {
			acted = s.target.Name
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// foundIn finds what was seen of a target by its key; all are sorted by it.
func foundIn(all []seen) func(key string) (trace.Condition, bool) {
	return func(key string) (trace.Condition, bool) {
		i, ok := slices.BinarySearchFunc(all, key, func(s seen, key string) int { return strings.Compare(s.target.Key, key) })
		if !ok {
			return "", false
		}
		return all[i].trace.Condition, true
	}
}

// warm is a worker for the sick targets, on its way while the records are read; nil if there is nothing to evaluate, or if none can be had, which
// the evaluation meets again.
func (e *engine) warm(ctx context.Context, rb *project.Runbook, all []seen, l *loading) sandbox.Worker {
	if !slices.ContainsFunc(all, func(s seen) bool { return s.trace.Condition == trace.Sick && e.wanted(s.target) }) {
		return nil
	}
	w := l.take(rb.Path)
	if w == nil {
		var err error
		if w, err = e.Spawn(ctx); err != nil {
			return nil
		}
	}
	warm(ctx, w, rb.Path, rb.Vocabulary, e.files)
	return w
}

// whereToLook puts the place on an error of the engine's own queries that can mend it: the connection if the source is at fault, and the
// runbook if its query is.
func (e *engine) whereToLook(rb *project.Runbook, err error) error {
	p, ok := errors.AsType[*problem.Problem](err)
	switch {
	case ok && p.Code == problem.MetricsSource:
		return at(err, e.Settings.Metrics.Pos)
	case ok && p.Code == problem.Query:
		return at(err, rb.Pos)
	}
	return err
}

// began says whether any action of the evaluation may have had an effect.
func began(ev *trace.Evaluation) bool {
	for _, x := range ev.Events {
		if x.Action != nil && x.Action.State.Began() {
			return true
		}
	}
	return false
}

func (e *engine) wanted(t action.Target) bool {
	return e.Target == "" || e.Target == t.Name || e.Target == t.Key
}

// connection resolves the secrets of a connection, once.
func (e *engine) connection(c project.Connection) (pluginhost.Connection, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.conns[c.Name]; ok {
		return r, nil
	}
	r, err := resolve(e.Settings, c)
	if err == nil {
		e.conns[c.Name] = r
	}
	return r, err
}

func resolve(s *project.Settings, c project.Connection) (pluginhost.Connection, error) {
	config, err := s.Resolve(c)
	if err != nil {
		return pluginhost.Connection{}, err
	}
	return pluginhost.Connection{Name: c.Name, Plugin: c.Plugin, Config: config, Confine: (*pluginhost.Confine)(c.Confine)}, nil
}

func (e *engine) wall() time.Time { return e.Now().Truncate(time.Millisecond) }

func (e *engine) hook(point string) {
	if e.Hook != nil {
		e.Hook(point)
	}
}

func (e *engine) newNonce() string {
	n, err := action.NewNonce(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails on a supported system
	}
	return n
}

func suffix() string { return fmt.Sprintf("%.6s", rand.Text()) }
