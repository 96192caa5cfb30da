// Package engine carries out one run: recover, find out what is due, look, evaluate, decide, record, act, record, report.
//
// Promises:
//   - Recovery comes first and verification second, whatever the run is about and also while halted.
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
	"sort"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
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
	Look      func(action.Owner) process.Liveness
	KillGroup func(action.Child) error
	Sinks     []notify.Sink
	Heartbeat func(ctx context.Context, r *trace.Run) error
	Log       *slog.Logger
	Version   string
	// Hook, if set, is called between two moments of an action ("reserved", "begun", "acting", "finished"); tests stop the
	// process there.
	Hook func(point string)
}

// Options say what a run is about.
type Options struct {
	Paths  []string // runbook files, relative to the project; from project.Runbooks
	Target string   // name or key: evaluate this target only, now, whatever the schedule says
	DryRun bool     // decide and show, change nothing
}

type engine struct {
	Deps
	Options
	dry      bool
	run      *trace.Run
	source   source
	deadline time.Time
	mu       sync.Mutex // over conns
	conns    map[string]pluginhost.Connection
}

// Run is one pass. The trace is returned also with an error, which means that the run could not be completed.
func Run(ctx context.Context, d Deps, o Options) (*trace.Run, error) {
	e := &engine{Deps: d, Options: o, dry: o.DryRun, conns: map[string]pluginhost.Connection{}}
	started := e.wall()
	e.deadline = started.Add(d.Settings.Deadline)
	e.run = &trace.Run{
		// Milliseconds, so that "last" is the last of two runs of one second.
		V: trace.Version, ID: started.UTC().Format("20060102-150405.000-") + suffix(), Engine: d.Version, Namespace: d.State.Namespace, Owner: d.Self,
		Trigger: "schedule", DryRun: o.DryRun, Started: started, Policy: d.Settings.Digest, Runbooks: []*trace.Runbook{},
	}
	if o.Target != "" {
		e.run.Trigger = "manual"
	}
	ctx, cancel := context.WithTimeout(ctx, d.Settings.Deadline)
	defer cancel()
	err := e.pass(ctx)
	if ferr := e.finish(ctx, err); err == nil {
		err = ferr
	}
	return e.run, err
}

func (e *engine) pass(ctx context.Context) error {
	conn, err := e.connection(e.Settings.Metrics)
	if err != nil {
		return err
	}
	e.source = source{host: e.Host, conn: conn, wall: e.wall}
	e.prestart(conn) // it is ready by the time that it is asked
	l := e.startLoading(ctx)
	defer l.end()
	e.run.Halt = e.State.Check(e.Env)
	if !e.dry {
		if err := e.recover(ctx); err != nil {
			return err
		}
	}
	if err := e.verify(ctx); err != nil {
		return err
	}
	due, err := e.due(ctx, l)
	if err != nil {
		return err
	}
	g := errgroup.Group{}
	g.SetLimit(max(16, 4*runtime.NumCPU()))
	for _, d := range due {
		g.Go(func() error {
			defer d.release()
			if err := e.runbook(ctx, d.runbook, d.trace, l); err != nil {
				d.trace.Problem = e.asProblem(problem.Internal, err, "%s", d.runbook.Path)
				if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
					d.trace.Problem = e.interrupted(ctx.Err())
				}
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
func (e *engine) runbook(ctx context.Context, rb *project.Runbook, tr *trace.Runbook, l *loading) error {
	all, fleet, err := e.look(ctx, rb, tr)
	if err != nil {
		return e.whereToLook(rb, err)
	}
	for _, s := range all {
		tr.Targets = append(tr.Targets, s.trace)
	}
	sort.SliceStable(tr.Targets, func(i, j int) bool { return tr.Targets[i].Key < tr.Targets[j].Key })
	if !e.dry {
		if err := e.observe(ctx, rb, all); err != nil {
			return err
		}
	}
	var w sandbox.Worker
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	acted := "" // nothing is queued behind an action: what comes after it is decided from fresh data
	for _, s := range all {
		if s.trace.Condition != trace.Sick || !e.wanted(s.target) {
			continue
		}
		if w == nil || w.Dead() {
			if w != nil {
				w.Close()
			}
			if w = l.take(); w == nil {
				if w, err = e.Spawn(ctx); err != nil {
					return err
				}
			}
		}
		if acted != "" {
			s.trace.Evaluation = &trace.Evaluation{Outcome: trace.Skipped, Reason: "this run has acted on " + acted + "; what it knows of this target is older than that, so the next run looks again"}
			continue
		}
		if err := e.evaluate(ctx, w, rb, tr, s, fleet); err != nil {
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

// observe moves the open episodes of a runbook on by what was seen: healthy time counts only where it was observed, and an
// episode ends after an hour of it.
func (e *engine) observe(ctx context.Context, rb *project.Runbook, all []seen) error {
	var eps map[string]ledger.Episode
	err := e.Store.View(ctx, []string{ledger.KeyEpisodes(rb.Name)}, func(tx store.ReadTx) (err error) {
		eps, err = ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(rb.Name))
		return err
	})
	if err != nil || len(eps) == 0 {
		return err
	}
	return e.Store.Update(ctx, []string{ledger.KeyClock, ledger.KeyOpen, ledger.KeyEpisodes(rb.Name)}, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(rb.Name))
		if err != nil {
			return err
		}
		open, err := ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
		if err != nil {
			return err
		}
		held := map[string]bool{}
		for _, o := range open {
			held[o.Target] = true
		}
		for _, s := range all {
			ep, ok := eps[s.target.Key]
			if !ok {
				continue
			}
			switch s.trace.Condition {
			case trace.Sick, trace.Pending:
				ep.Healthy, ep.SickAt = 0, now
			case trace.Healthy:
				// What was observed reaches back as far as the window of the symptom, never to the last tick.
				ep.Healthy += min(now.Trusted-ep.SeenAt.Trusted, max(rb.Targets.Held, e.Settings.MaxAge))
			}
			ep.SeenAt = now
			if ep.Healthy >= ledger.Stable && !held[s.target.Key] {
				delete(eps, s.target.Key)
				continue
			}
			eps[s.target.Key] = ep
		}
		return ledger.Write(tx, ledger.KeyEpisodes(rb.Name), eps)
	})
}

// finish records the trace, delivers what people must be told, and leaves the heartbeat. It is not cancelled with the run.
func (e *engine) finish(ctx context.Context, failed error) error {
	if failed != nil {
		e.problem(e.asProblem(problem.Internal, failed, "the run could not be completed"))
	}
	interrupted := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
	defer cancel()
	var errs []error
	if err := e.doubts(ctx); err != nil {
		errs = append(errs, err)
	}
	if !e.dry && len(errs) == 0 {
		if err := e.notices(ctx); err != nil {
			e.problem(e.asProblem(problem.NoticeFailed, err, "deliver notices"))
		}
	}
	e.run.Ended = e.wall()
	e.run.Exit = exitOf(e.run)
	if interrupted && e.run.Exit == problem.ExitOK {
		e.run.Exit = problem.ExitInterrupted
	}
	if e.dry || len(errs) > 0 {
		return errors.Join(errs...)
	}
	if failed == nil && e.Heartbeat != nil {
		if err := e.Heartbeat(ctx, e.run); err != nil {
			e.problem(e.asProblem(problem.NoticeFailed, err, "leave the heartbeat"))
			e.run.Exit = exitOf(e.run)
		}
	}
	return e.Store.Update(ctx, []string{ledger.KeyClock}, func(tx store.Tx) error {
		if _, err := ledger.Tick(tx, e.Sample); err != nil {
			return err
		}
		b, err := trace.Encode(e.run)
		if err != nil {
			return err
		}
		tx.Put(ledger.KeyRun(e.run.ID), b)
		return nil
	})
}

// saveTrace writes what is known of this evaluation's runbook with the reservation, so that a run that is killed has said
// what it was about to do and why.
func (v *evaluation) saveTrace(tx store.Tx) error {
	part := *v.e.run
	part.Runbooks = []*trace.Runbook{v.trb}
	b, err := trace.Encode(&part)
	if err != nil {
		return err
	}
	tx.Put(ledger.KeyRun(part.ID), b)
	return nil
}

// connection resolves the secrets of a connection, once.
func (e *engine) connection(c project.Connection) (pluginhost.Connection, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.conns[c.Name]; ok {
		return r, nil
	}
	config, err := e.Settings.Resolve(c)
	if err != nil {
		return pluginhost.Connection{}, err
	}
	r := pluginhost.Connection{Name: c.Name, Plugin: c.Plugin, Config: config}
	e.conns[c.Name] = r
	return r, nil
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

// interrupted says why a context ended.
func (e *engine) interrupted(err error) *problem.Problem {
	if errors.Is(err, context.DeadlineExceeded) {
		return problem.New(problem.Deadline, "the run's deadline of %s has passed", value.FormatDuration(e.Settings.Deadline)).
			WithHint("give the run more time with project(deadline=)")
	}
	return problem.New(problem.Interrupted, "the run was interrupted by a signal")
}

func suffix() string { return fmt.Sprintf("%.6s", rand.Text()) }

// exitOf is the exit code of a run: the worst of what happened. What needs repair outranks what was refused.
func exitOf(r *trace.Run) problem.Exit {
	rank := map[problem.Exit]int{
		problem.ExitOK: 0, problem.ExitFindings: 1, problem.ExitRefused: 2, problem.ExitFailed: 3, problem.ExitUsage: 4,
		problem.ExitInternal: 5, problem.ExitInterrupted: 6,
	}
	worst := problem.ExitOK
	note := func(x problem.Exit) {
		if rank[x] > rank[worst] {
			worst = x
		}
	}
	for _, p := range r.Problems {
		note(problem.ExitOf(p.Code))
	}
	if len(r.InDoubt) > 0 || len(r.Halt) > 0 {
		note(problem.ExitRefused)
	}
	for _, v := range r.Verified {
		if v.State == action.Ineffective {
			note(problem.ExitFailed)
		}
		if v.State == action.Inconclusive {
			note(problem.ExitRefused)
		}
	}
	for _, rb := range r.Runbooks {
		if rb.Problem != nil {
			note(problem.ExitOf(rb.Problem.Code))
		}
		for _, t := range rb.Targets {
			ev := t.Evaluation
			if ev == nil {
				continue
			}
			if ev.Problem != nil {
				note(problem.ExitOf(ev.Problem.Code))
			}
			switch ev.Outcome {
			case trace.Refused, trace.DoubtRemains, trace.Skipped:
				note(problem.ExitRefused)
			case trace.Failed:
				note(problem.ExitFailed)
			}
		}
	}
	return worst
}
