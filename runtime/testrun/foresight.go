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
	from  time.Time
	quiet []bool
}

// quiet implements engine.Options.Quiet.
func (f *foresight) quiet(ctx context.Context, rb *project.Runbook, at time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.known[rb.Path]
	if i := int(at.Sub(o.from) / f.memo.step); ok && i < len(o.quiet) {
		return o.quiet[i]
	}
	o = outlook{at, f.look(ctx, rb, at)}
	f.known[rb.Path] = o
	return o.quiet[0]
}

// look asks for everything that the runbook looks at from a time on.
func (f *foresight) look(ctx context.Context, rb *project.Runbook, from time.Time) []bool {
	step := f.memo.step
	times := min(manyTicks, int(f.memo.to.Sub(from)/step)+1)
	never := make([]bool, times)
	window, grid := engine.Window(f.settings, rb)
	if rb.Targets.All == nil || rb.Targets.Sick.Left == nil || step%grid != 0 {
		return never
	}
	until := from.Add(time.Duration(times-1) * step)
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
	return engine.Quiet(rb, f.settings.MaxAge, a)
}
