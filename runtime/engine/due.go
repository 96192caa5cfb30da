package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	asked   <-chan *sight // one, if it was asked for ahead; nil: it was not
}

// loading reads the runbooks, which touches nothing, beside the recovery, which waits for the disk.
type loading struct {
	vocab  sandbox.Vocabulary
	done   chan struct{} // closed when the rest is set
	cancel context.CancelFunc
	traces []*trace.Runbook
	loaded []dueRunbook
	worker sandbox.Worker // that read them, nil once it was taken
	err    error

	asking sync.WaitGroup // ahead
	turns  chan struct{}  // bounds how many at once

	mu    sync.Mutex
	ahead sandbox.Worker // that was started because it is likely to be needed, nil once it was taken
	of    string         // the path of the runbook that it has loaded, and may evaluate
}

func (e *engine) startLoading(ctx context.Context) *loading {
	l := &loading{vocab: project.RunbookVocabulary(e.Families), done: make(chan struct{}), turns: make(chan struct{}, atOnce())}
	ctx, l.cancel = context.WithCancel(ctx)
	e.startExpected(ctx, l)
	go func() {
		defer close(l.done)
		l.err = e.load(ctx, l)
	}()
	return l
}

// end gives up, and returns the workers that nobody has taken.
func (l *loading) end() []sandbox.Worker {
	l.cancel()
	<-l.done
	l.asking.Wait()
	return slices.DeleteFunc([]sandbox.Worker{l.worker, l.ahead}, func(w sandbox.Worker) bool { return w == nil })
}

// take returns the worker that has loaded this runbook, and no other, ahead of its evaluation or to read what it declares; else nil: no runbook is
// evaluated in a process in which another one was executed.
func (l *loading) take(path string) sandbox.Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	var w sandbox.Worker
	switch {
	case l.ahead != nil && l.of == path:
		w, l.ahead = l.ahead, nil
	case len(l.traces) == 1:
		w, l.worker = l.worker, nil
	}
	if w != nil && w.Dead() {
		w.Close()
		return nil
	}
	return w
}

// load loads the runbooks. One that cannot be loaded is a problem of its own; the others go on.
func (e *engine) load(ctx context.Context, l *loading) error {
	for _, path := range e.Paths {
		tr := &trace.Runbook{Path: path, Name: strings.TrimSuffix(path, ".star"), Why: "the run ended before it could be"}
		l.traces = append(l.traces, tr)
		if l.worker == nil || l.worker.Dead() {
			if l.worker != nil {
				l.worker.Close()
			}
			var err error
			if l.worker, err = e.Spawn(ctx); err != nil {
				return err
			}
		}
		rb, err := e.loaded(path, func() (*project.Runbook, error) {
			return project.LoadRunbook(ctx, l.worker, e.files, e.Settings, path, l.vocab)
		})
		if err != nil {
			tr.Why = "it could not be loaded"
			tr.Problem = e.asProblem(problem.Load, err, "load %s", path)
			continue
		}
		if e.Adjust != nil {
			e.Adjust(rb)
		}
		tr.Name, tr.Owner, tr.Mode, tr.Digest, tr.Params = rb.Name, rb.Owner, rb.Mode, rb.Digest, rb.Params
		l.loaded = append(l.loaded, dueRunbook{rb, tr, func() {}, e.askAhead(ctx, l, rb)})
	}
	return nil
}

func (e *engine) loaded(path string, load func() (*project.Runbook, error)) (*project.Runbook, error) {
	if e.Loaded == nil {
		return load()
	}
	return e.Loaded(path, load)
}

// due claims the runbooks whose slot has not been run.
func (e *engine) due(ctx context.Context, l *loading) ([]dueRunbook, error) {
	<-l.done
	e.run.Runbooks = append(e.run.Runbooks, l.traces...)
	if l.err != nil {
		return nil, l.err
	}
	loaded := l.loaded
	if e.dry || e.Target != "" {
		for i := range loaded {
			loaded[i].trace.Due = true
			loaded[i].trace.Why = map[bool]string{true: "asked for by hand", false: "dry run"}[e.Target != ""]
		}
		loaded = slices.DeleteFunc(loaded, e.byHandOnly)
		if e.dry {
			return loaded, nil
		}
	}
	return e.claim(ctx, loaded)
}

// byHandOnly says, also to its trace, whether a runbook is only for a person, and none has asked.
func (e *engine) byHandOnly(d dueRunbook) bool {
	if !d.runbook.Manual || e.Target != "" {
		return false
	}
	d.trace.Due, d.trace.Why = false, "only by hand: runbook run "+d.runbook.Path+" --target T"
	return true
}

// slotOf is the number of the slot of a runbook that has a schedule.
func slotOf(at time.Time, rb *project.Runbook) int64 { return at.UnixNano() / int64(rb.Every) }

// claim takes the lock of each runbook and its slot. A second tick of a runbook that is still being evaluated finds the lock
// taken and leaves it; missed slots collapse into one.
func (e *engine) claim(ctx context.Context, loaded []dueRunbook) ([]dueRunbook, error) {
	var mine []dueRunbook
	keys := []string{ledger.KeyClock}
	for _, d := range loaded {
		if e.byHandOnly(d) {
			continue
		}
		unlock, ok, err := e.State.LockRunbook(d.runbook.Name)
		if err != nil {
			d.trace.Problem = e.asProblem(problem.StateUnusable, err, "lock runbook %s", d.runbook.Name)
			continue
		}
		if !ok {
			d.trace.Due, d.trace.Why = false, "another run is evaluating it right now"
			if e.Target != "" {
				d.trace.Problem = problem.New(problem.Refused, "another run is evaluating %s right now", d.runbook.Name).WithHint("type it again when that has ended: runbook status")
			}
			continue
		}
		d.release = unlock
		mine = append(mine, d)
		if d.runbook.Every > 0 {
			keys = append(keys, ledger.KeySlot(d.runbook.Name, d.runbook.Every))
		}
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
			if d.runbook.Alert != nil {
				d.trace.Due, d.trace.Why = true, d.runbook.Trigger()+": asked at every run"
				due = append(due, d)
				continue
			}
			every := d.runbook.Every
			slot := slotOf(now.Wall, d.runbook)
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
