package testrun

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// foresight knows of each runbook of a backtest at which of the next ticks its whole fleet is healthy. Most are, in most recordings, and nothing comes of a
// look at one.
type foresight struct {
	memo     *memo
	settings *project.Settings

	mu    sync.Mutex
	known map[string]outlook // by the runbook's path
}

// outlook is what is known of the ticks from a time on.
type outlook struct {
	engine.Outlook
	from, until time.Time
}

// quiet implements engine.Options.Quiet.
func (f *foresight) quiet(ctx context.Context, rb *project.Runbook, at time.Time) (there func(key string) bool, quiet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.known[rb.Path]
	if !ok || at.After(o.until) {
		from := at
		if next := o.until.Add(f.memo.step); ok {
			if _, until := f.span(next); !at.After(until) {
				from = next // as it was prepared, also if the runbook was not due then
			}
		}
		o = f.look(ctx, rb, from)
		f.known[rb.Path] = o
	}
	i := int(at.Sub(o.from) / f.memo.step)
	if !o.Quiet(i) {
		return nil, false
	}
	return func(key string) bool { return o.There(key, i) }, true
}

// look asks for everything that the runbook looks at from a time on, and has what comes after that prepared.
func (f *foresight) look(ctx context.Context, rb *project.Runbook, from time.Time) outlook {
	times, until := f.span(from)
	never := outlook{from: from, until: until}
	if _, grid := engine.Window(f.settings, rb); rb.Targets.All == nil || rb.Targets.Sick.Left == nil || f.memo.step%grid != 0 {
		return never
	}
	f.memo.drop(from)
	asks := f.questions(rb, from, until)
	answers := make([][]kit.Series, len(asks))
	var asking sync.WaitGroup
	var failed atomic.Bool
	for i, ask := range asks {
		asking.Go(func() {
			found, ok := f.memo.ahead(ctx, ask)
			if answers[i] = found; !ok {
				failed.Store(true)
			}
		})
	}
	if asking.Wait(); failed.Load() {
		return never
	}
	if next := until.Add(f.memo.step); !next.After(f.memo.to) {
		_, until := f.span(next)
		for _, ask := range f.questions(rb, next, until) {
			f.memo.prepare(ctx, ask, next)
		}
	}
	a := engine.Ahead{From: from, Step: f.memo.step, Times: times, Members: answers[0], Symptom: answers[1], Ages: answers[2:]}
	return outlook{engine.Foresee(rb, f.settings.MaxAge, a), from, until}
}

// span is how many ticks from a time on are foreseen at once, and which is the last.
func (f *foresight) span(from time.Time) (times int, until time.Time) {
	times = min(manyTicks, int(f.memo.to.Sub(from)/f.memo.step)+1)
	return times, from.Add(time.Duration(times-1) * f.memo.step)
}

// questions are those of a look: for the members, the symptom, and when that was measured.
func (f *foresight) questions(rb *project.Runbook, from, until time.Time) []question {
	window, grid := engine.Window(f.settings, rb)
	sick := rb.Targets.Sick.Left
	out := []question{{rb.Targets.All.String(), from, until, f.memo.step}, {sick.String(), from.Add(-window), until, grid}}
	for _, t := range sick.Timestamps() {
		out = append(out, question{t.String(), from, until, f.memo.step})
	}
	return out
}
