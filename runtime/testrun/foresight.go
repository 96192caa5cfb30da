package testrun

import (
	"context"
	"sync"
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
	var failed bool
	ask := func(expr string, from time.Time, step time.Duration) []kit.Series {
		found, ok := f.memo.ahead(ctx, expr, from, until, step)
		failed = failed || !ok
		return found
	}
	a := engine.Ahead{
		From: from, Step: step, Times: times,
		Members: ask(rb.Targets.All.String(), from, step),
		Symptom: ask(rb.Targets.Sick.Left.String(), from.Add(-window), grid),
	}
	for _, t := range rb.Targets.Sick.Left.Timestamps() {
		a.Ages = append(a.Ages, ask(t.String(), from, step))
	}
	if failed {
		return never
	}
	return engine.Quiet(rb, f.settings.MaxAge, a)
}
