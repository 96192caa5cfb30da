package engine

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// eagerHost notes what is started ahead, and that nothing is asked after it was told so.
type eagerHost struct {
	*fakeHost
	mu       sync.Mutex
	started  []string
	released int
}

func (h *eagerHost) Prestart(c pluginhost.Connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started = append(h.started, c.Name)
}

func (h *eagerHost) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released++
}

// warmWorker notes that it was started.
type warmWorker struct {
	sandbox.Worker
	warmed, closed *int
}

func (w warmWorker) Warm(context.Context) { *w.warmed++ }
func (w warmWorker) Close()               { *w.closed++; w.Worker.Close() }

// What a run needed is started at the beginning of the next one, unless nothing may act; and what is not needed after all is ended.
func TestExpected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	r, err := p.run()
	if err != nil || len(w.effects) != 1 {
		t.Fatalf("%v, %d effects", err, len(w.effects))
	}
	expected := ExpectAfter(r)
	if d := cmp.Diff(Expected{Worker: true, Connections: []string{"svc"}}, expected); d != "" {
		t.Fatal(d)
	}
	w.depth["w3"] = 5
	for _, c := range []struct {
		name    string
		opts    Options
		halted  bool
		started []string
		warmed  int
	}{
		{"next", Options{Expected: expected}, false, []string{"prometheus", "svc"}, 1},
		{"nothing expected", Options{}, false, []string{"prometheus"}, 0},
		{"of a connection that is no more", Options{Expected: Expected{Connections: []string{"gone"}}}, false, []string{"prometheus"}, 0},
		{"dry run", Options{Expected: expected, DryRun: true}, false, []string{"prometheus"}, 0},
		{"halted", Options{Expected: expected}, true, []string{"prometheus"}, 0},
	} {
		if c.halted {
			if err := w.state.Halt(t.Context(), control.HaltRequest{Reason: "fire", By: "ann"}); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(w.settings.Sampling * 4)
		p := w.process()
		p.opts = c.opts
		host, warmed, spawned, closed := &eagerHost{fakeHost: p.host}, 0, 0, 0
		p.wrap = func(d *Deps) {
			d.Host = host
			d.Spawn = func(ctx context.Context) (sandbox.Worker, error) {
				inner, err := w.spawn(ctx)
				spawned++
				return warmWorker{inner, &warmed, &closed}, err
			}
		}
		r, err := p.run()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if slices.Sort(host.started); !slices.Equal(host.started, c.started) || warmed != c.warmed {
			t.Errorf("%s: %q were started ahead and %d workers, want %q and %d", c.name, host.started, warmed, c.started, c.warmed)
		}
		if host.released != 1 || spawned != closed {
			t.Errorf("%s: released %d times, %d of %d workers ended", c.name, host.released, closed, spawned)
		}
		if d := cmp.Diff(Expected{}, ExpectAfter(r)); d != "" {
			t.Errorf("%s: nobody is sick: %s", c.name, d)
		}
	}
}
