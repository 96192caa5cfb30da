package engine

import (
	"context"
	"errors"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// finish records what people must be told and the trace, then delivers, then leaves the heartbeat. It is not cancelled with the run, and each
// part has its own time: a receiver of notices that hangs must not cost the trace.
func (e *engine) finish(ctx context.Context, failed error) error {
	ended := ctx.Err()
	if failed != nil {
		e.problem(e.ending(ended, failed, "the run could not be completed"))
	}
	err := e.within(ctx, e.doubts)
	if err == nil && !e.dry {
		if err := e.within(ctx, e.notices); err != nil {
			e.problem(e.asProblem(problem.NoticeFailed, err, "record notices"))
		}
	}
	e.run.Ended = e.wall()
	e.run.Exit = exitOf(e.run, ended)
	if e.dry || err != nil {
		return err
	}
	if err := e.within(ctx, e.save); err != nil {
		return err
	}
	said := len(e.run.Problems)
	if err := e.within(ctx, e.forget); err != nil {
		e.problem(e.asProblem(problem.Internal, err, "forget what is older than %s", value.FormatDuration(e.Settings.Retention)))
	}
	if err := e.within(ctx, e.deliver); err != nil {
		e.problem(e.asProblem(problem.NoticeFailed, err, "deliver notices"))
	}
	if failed == nil && ended == nil && e.Heartbeat != nil {
		e.run.Exit = exitOf(e.run, ended)
		if err := e.within(ctx, func(ctx context.Context) error { return e.Heartbeat(ctx, e.run, *e.totals) }); err != nil {
			e.problem(e.asProblem(problem.NoticeFailed, err, "leave the heartbeat"))
		}
	}
	if len(e.run.Problems) == said {
		return nil
	}
	e.run.Exit = exitOf(e.run, ended)
	return e.within(ctx, e.save)
}

// within gives fn the time that recording may take, also after the run was cancelled.
func (e *engine) within(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
	defer cancel()
	return fn(ctx)
}

// forget removes a few of the records that have come to an end and are older than project(retention=).
func (e *engine) forget(ctx context.Context) error {
	if e.Settings.Retention <= 0 {
		return nil
	}
	horizon := e.wall().Add(-e.Settings.Retention)
	if _, err := ledger.Forget(ctx, e.Store, e.Sample, horizon); err != nil {
		return err
	}
	if err := ledger.ForgetSources(ctx, e.Store, e.Sample, horizon); err != nil {
		return err
	}
	return ledger.AuditLog(e.Now).Forget(ctx, e.Store, horizon)
}

// save writes the trace, with the files of what was evaluated, and what has changed outside the store.
func (e *engine) save(ctx context.Context) error {
	halts, unread := e.State.History()
	if unread != nil && e.totals == nil { // said once
		e.problem(e.asProblem(problem.StateUnusable, unread, "read the history of halts"))
	}
	keys := append(ledger.NotedKeys(), ledger.KeyClock, ledger.KeyTotals)
	for digest := range e.sources {
		keys = append(keys, ledger.KeySource(digest))
	}
	totals, counted := ledger.Totals{}, e.totals != nil
	err := e.Store.Update(ctx, keys, func(tx store.Tx) (err error) {
		if _, err := ledger.Tick(tx, e.Sample); err != nil {
			return err
		}
		if !counted {
			if totals, err = ledger.CountRun(tx, e.run); err != nil {
				return err
			}
		}
		if err := ledger.NotePolicy(tx, e.Settings.Digest, e.Person, e.wall()); err != nil {
			return err
		}
		if unread == nil { // what could not be read has not been changed
			if err := ledger.NoteHalts(tx, halts, e.wall()); err != nil {
				return err
			}
		}
		for digest, src := range e.sources {
			if err := ledger.KeepSource(tx, digest, src, e.run.Started); err != nil {
				return err
			}
		}
		if e.Traceless {
			return nil
		}
		b, err := trace.Encode(e.run)
		if err != nil {
			return err
		}
		tx.Put(ledger.KeyRun(e.run.ID), b)
		return nil
	})
	if err == nil && !counted {
		e.totals = &totals
	}
	return err
}

// saveTrace writes what is known of this evaluation's runbook with the reservation, so that a run that is killed has said
// what it was about to do and why. KeyRun is read: another runbook of the same run may have said so before.
func (v *evaluation) saveTrace(tx store.Tx) error {
	if v.e.Traceless {
		return nil
	}
	v.e.mu.Lock()
	part := *v.e.run
	v.e.mu.Unlock()
	part.Runbooks, part.Cleanups = nil, nil
	before, err := tx.Get(ledger.KeyRun(part.ID))
	if err != nil {
		return err
	}
	if before != nil {
		r, err := trace.Decode(before)
		if err != nil {
			return err
		}
		for _, rb := range r.Runbooks {
			if v.cleaning || rb.Path != v.trb.Path {
				part.Runbooks = append(part.Runbooks, rb)
			}
		}
		for _, c := range r.Cleanups {
			if !v.cleaning || c.Attempt != v.cleaned.Attempt {
				part.Cleanups = append(part.Cleanups, c)
			}
		}
	}
	if v.cleaning {
		part.Cleanups = append(part.Cleanups, v.cleaned)
	} else {
		part.Runbooks = append(part.Runbooks, v.trb)
	}
	b, err := trace.Encode(&part)
	if err != nil {
		return err
	}
	tx.Put(ledger.KeyRun(part.ID), b)
	return nil
}

// ending is the problem of an error, which is that of the run's own end if it came from there.
func (e *engine) ending(ended, err error, what string) *problem.Problem {
	if ended != nil && errors.Is(err, ended) {
		return e.interrupted(ended)
	}
	return e.asProblem(problem.Internal, err, "%s", what)
}

// interrupted says why the run's context ended.
func (e *engine) interrupted(ended error) *problem.Problem {
	if errors.Is(ended, context.DeadlineExceeded) {
		return problem.New(problem.Deadline, "the run's deadline of %s has passed", value.FormatDuration(e.Settings.Deadline)).
			WithHint("give the run more time with project(deadline=)")
	}
	return problem.New(problem.Interrupted, "the run was interrupted by a signal")
}

// exitOf is the exit code of a run: the worst of what happened. What needs repair outranks what was refused. ended is why the run's
// context ended, if it did.
func exitOf(r *trace.Run, ended error) problem.Exit {
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
	if len(r.InDoubt) > 0 || len(r.Halt) > 0 || strings.HasPrefix(r.Breaker, string(breaker.Open)) {
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
	for _, c := range r.Cleanups {
		switch c.State {
		case action.CleanupFailed:
			note(problem.ExitFailed)
		case action.CleanupWaits:
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
	if worst == problem.ExitOK && errors.Is(ended, context.Canceled) {
		return problem.ExitInterrupted
	}
	return worst
}
