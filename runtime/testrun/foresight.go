package testrun

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
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
		o = f.look(ctx, rb, at)
		f.known[rb.Path] = o
	}
	i := int(at.Sub(o.from) / f.memo.step)
	if !o.Quiet(i) {
		return nil, false
	}
	return func(key string) bool { return o.There(key, i) }, true
}

// look asks for everything that the runbook looks at from a time on.
func (f *foresight) look(ctx context.Context, rb *project.Runbook, from time.Time) outlook {
	step := f.memo.step
	times := min(manyTicks, int(f.memo.to.Sub(from)/step)+1)
	until := from.Add(time.Duration(times-1) * step)
	never := outlook{from: from, until: until}
	window, grid := engine.Window(f.settings, rb)
	if rb.Targets.All == nil || rb.Targets.Sick.Left == nil || step%grid != 0 {
		return never
	}
	ages := rb.Targets.Sick.Left.Timestamps()
	a := engine.Ahead{From: from, Step: step, Times: times, Ages: make([][]kit.Series, len(ages))}
	var asking sync.WaitGroup
	var failed atomic.Bool
	ask := func(into *[]kit.Series, expr *promexpr.Expr, from time.Time, step time.Duration) {
		asking.Go(func() {
			found, ok := f.memo.ahead(ctx, expr.String(), from, until, step)
			if *into = found; !ok {
				failed.Store(true)
			}
		})
	}
	ask(&a.Members, rb.Targets.All, from, step)
	ask(&a.Symptom, rb.Targets.Sick.Left, from.Add(-window), grid)
	for i, age := range ages {
		ask(&a.Ages[i], age, from, step)
	}
	if asking.Wait(); failed.Load() {
		return never
	}
	return outlook{engine.Foresee(rb, f.settings.MaxAge, a), from, until}
}
