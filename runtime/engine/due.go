package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// dueRunbook is a runbook that this process evaluates now. Nobody else does until release.
type dueRunbook struct {
	runbook *project.Runbook
	trace   *trace.Runbook
	release func()
}

// due loads the runbooks and claims those whose slot has not been run. A runbook that cannot be loaded is a problem of its
// own; the others go on.
func (e *engine) due(ctx context.Context) ([]dueRunbook, error) {
	var loaded []dueRunbook
	var w sandbox.Worker
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	for _, path := range e.Paths {
		tr := &trace.Runbook{Path: path, Name: strings.TrimSuffix(path, ".star"), Why: "the run ended before it could be"}
		e.run.Runbooks = append(e.run.Runbooks, tr)
		if w == nil || w.Dead() {
			if w != nil {
				w.Close()
			}
			var err error
			if w, err = e.Spawn(ctx); err != nil {
				return nil, err
			}
		}
		rb, err := project.LoadRunbook(ctx, w, e.Tree, e.Settings, path, e.Families)
		if err != nil {
			tr.Why = "it could not be loaded"
			tr.Problem = e.asProblem(problem.Load, err, "load %s", path)
			continue
		}
		tr.Name, tr.Owner, tr.Mode, tr.Digest, tr.Params = rb.Name, rb.Owner, rb.Mode, rb.Digest, rb.Params
		loaded = append(loaded, dueRunbook{rb, tr, func() {}})
	}
	if e.dry || e.Target != "" {
		for i := range loaded {
			loaded[i].trace.Due = true
			loaded[i].trace.Why = map[bool]string{true: "asked for by hand", false: "dry run"}[e.Target != ""]
		}
		if e.dry {
			return loaded, nil
		}
	}
	return e.claim(ctx, loaded)
}

// claim takes the lock of each runbook and its slot. A second tick of a runbook that is still being evaluated finds the lock
// taken and leaves it; missed slots collapse into one.
func (e *engine) claim(ctx context.Context, loaded []dueRunbook) ([]dueRunbook, error) {
	var mine []dueRunbook
	keys := []string{ledger.KeyClock}
	for _, d := range loaded {
		unlock, ok, err := e.State.LockRunbook(d.runbook.Name)
		if err != nil {
			d.trace.Problem = e.asProblem(problem.StateUnusable, err, "lock runbook %s", d.runbook.Name)
			continue
		}
		if !ok {
			d.trace.Due, d.trace.Why = false, "another run is evaluating it right now"
			continue
		}
		d.release = unlock
		mine = append(mine, d)
		keys = append(keys, ledger.KeySlot(d.runbook.Name, d.runbook.Every))
	}
	var due []dueRunbook
	err := e.Store.Update(ctx, keys, func(tx store.Tx) error {
		due = due[:0]
		now, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		for _, d := range mine {
			if e.Target != "" {
				due = append(due, d)
				continue
			}
			every := d.runbook.Every
			slot := now.Wall.UnixNano() / int64(every)
			at := time.Unix(0, slot*int64(every)).UTC().Format(time.TimeOnly)
			last, err := ledger.Read[*int64](tx, ledger.KeySlot(d.runbook.Name, every))
			if err != nil {
				return err
			}
			if last != nil && *last == slot {
				next := time.Unix(0, (slot+1)*int64(every)).UTC().Format(time.TimeOnly)
				d.trace.Due, d.trace.Why = false, fmt.Sprintf("every %s: the slot of %s has been run, the next is %s UTC", value.FormatDuration(every), at, next)
				continue
			}
			d.trace.Due, d.trace.Why = true, fmt.Sprintf("every %s: slot %s UTC", value.FormatDuration(every), at)
			if err := ledger.Write(tx, ledger.KeySlot(d.runbook.Name, every), slot); err != nil {
				return err
			}
			due = append(due, d)
		}
		return nil
	})
	for _, d := range mine {
		if err != nil || !slices.ContainsFunc(due, func(o dueRunbook) bool { return o.runbook == d.runbook }) {
			d.release()
		}
	}
	if err != nil {
		return nil, err
	}
	return due, nil
}
