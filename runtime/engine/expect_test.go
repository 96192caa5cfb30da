package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
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
	warmed, closed *atomic.Int32
}

func (w warmWorker) Warm(context.Context, string, sandbox.Vocabulary, sandbox.Source) {
	w.warmed.Add(1)
}

func (w warmWorker) Close() { w.closed.Add(1); w.Worker.Close() }

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
	if d := cmp.Diff(Expected{Runbook: "a.star", Connections: []string{"svc"}, Started: r.Started}, expected); d != "" {
		t.Fatal(d)
	}
	w.depth["w3"] = 5
	for _, c := range []struct {
		name    string
		opts    Options
		halted  bool
		started []string
		warmed  int32
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
		host := &eagerHost{fakeHost: p.host}
		var warmed, spawned, closed atomic.Int32
		p.wrap = func(d *Deps) {
			d.Host = host
			d.Spawn = func(ctx context.Context) (sandbox.Worker, error) {
				inner, err := w.spawn(ctx)
				spawned.Add(1)
				return warmWorker{inner, &warmed, &closed}, err
			}
		}
		r, err := p.run()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if slices.Sort(host.started); !slices.Equal(host.started, c.started) || warmed.Load() != c.warmed {
			t.Errorf("%s: %q were started ahead and %d workers, want %q and %d", c.name, host.started, warmed.Load(), c.started, c.warmed)
		}
		if host.released != 1 || spawned.Load() != closed.Load() {
			t.Errorf("%s: released %d times, %d of %d workers ended", c.name, host.released, closed.Load(), spawned.Load())
		}
		if d := cmp.Diff(Expected{Started: r.Started}, ExpectAfter(r)); d != "" {
			t.Errorf("%s: nobody is sick: %s", c.name, d)
		}
	}
}

// order notes which came first: a question to the metric source or a transaction.
type order struct {
	*eagerHost
	Store
	mu    sync.Mutex
	first string
	asked chan struct{} // closed with the first question; nil: nobody waits for one
}

func (o *order) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == "" {
		o.first = what
	}
	if what == "question" && o.asked != nil {
		close(o.asked)
		o.asked = nil
	}
}

func (o *order) Query(ctx context.Context, c pluginhost.Connection, function string, args value.Dict) (value.Value, error) {
	o.note("question")
	return o.eagerHost.Query(ctx, c, function, args)
}

// View is where a run begins with its recovery.
func (o *order) View(ctx context.Context, keys []string, fn func(store.ReadTx) error) error {
	o.mu.Lock()
	wait := o.asked
	o.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-time.After(10 * time.Second):
		}
	}
	o.note("transaction")
	return o.Store.View(ctx, keys, fn)
}

// What a runbook asks if it is due is asked beside the recovery, if it is likely to be due; it makes no difference to anything else.
func TestAsksAhead(t *testing.T) {
	t.Parallel()
	const byAlert = `runbook(owner = "ops", trigger = alert("Stuck"), severity = "warning", mode = "auto", targets = fleet(all = 'up{job="worker"}', by = "instance"))

def run(ctx):
    nothing("x")
`
	for _, c := range []struct {
		name, text string
		last       time.Duration // the run before began so long ago; 0: it is not known
		opts       Options
		halted     bool
		first      string
	}{
		{"due", restart, 20 * time.Minute, Options{}, false, "question"},
		{"not known", restart, 0, Options{}, false, "transaction"},
		{"its slot was run", restart, time.Nanosecond, Options{}, false, "transaction"},
		{"by hand", restart, 20 * time.Minute, Options{Target: "w3"}, false, "transaction"},
		{"dry run", restart, 20 * time.Minute, Options{DryRun: true}, false, "transaction"},
		{"halted", restart, 20 * time.Minute, Options{}, true, "transaction"},
		{"by an alert", byAlert, 20 * time.Minute, Options{}, false, "transaction"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]string{"a.star": c.text})
			w.sick("w3")
			if c.halted {
				if err := w.state.Halt(t.Context(), control.HaltRequest{Reason: "fire", By: "ann"}); err != nil {
					t.Fatal(err)
				}
			}
			p := w.process()
			p.opts = c.opts
			if c.last != 0 {
				p.opts.Expected.Started = w.now.Add(-c.last)
			}
			p.host.alerts = map[string]func(string) (value.Value, error){}
			o := &order{eagerHost: &eagerHost{fakeHost: p.host}}
			if c.first == "question" {
				o.asked = make(chan struct{})
			}
			p.wrap = func(d *Deps) { o.Store, d.Host, d.Store = d.Store, o, o }
			r, err := p.run()
			if err != nil {
				t.Fatal(err)
			}
			if o.first != c.first {
				t.Errorf("a %s came first, want a %s", o.first, c.first)
			}
			if c.text != restart {
				return
			}
			if done := len(w.effects); (done == 1) != (!c.opts.DryRun && !c.halted) {
				t.Errorf("%d effects", done)
			}
			var asked []string
			for _, q := range r.Runbooks[0].Queries {
				asked = append(asked, q.Function)
			}
			if d := cmp.Diff([]string{"fleet", "symptom", "age", "gaps", "fleet before"}, asked); d != "" {
				t.Error(d)
			}
		})
	}
}

// What was asked ahead for a runbook that another run has taken is of no use, and not in the trace; the other's record stands.
func TestAsksAheadInVain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	w.tick()
	p := w.process()
	p.opts.Expected.Started = w.now.Add(-20 * time.Minute) // of a run that knows nothing of the one just now
	o := &order{eagerHost: &eagerHost{fakeHost: p.host}, asked: make(chan struct{})}
	p.wrap = func(d *Deps) { o.Store, d.Host, d.Store = d.Store, o, o }
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	if rb := r.Runbooks[0]; rb.Due || len(rb.Queries)+len(rb.Targets) != 0 || o.first != "question" {
		t.Errorf("due %t, %d queries, %d targets, a %s first", rb.Due, len(rb.Queries), len(rb.Targets), o.first)
	}
	if len(w.effects) != 1 {
		t.Errorf("%d effects", len(w.effects))
	}
}

// narrowWorker is a worker that must not execute two runbooks.
type narrowWorker struct {
	sandbox.Worker
	t    *testing.T
	path string
}

func (w *narrowWorker) is(path string) {
	if w.path != "" && w.path != path {
		w.t.Errorf("%s was executed in the process of %s", path, w.path)
	}
	w.path = path
}

func (w *narrowWorker) Warm(_ context.Context, path string, _ sandbox.Vocabulary, _ sandbox.Source) {
	w.is(path)
}

func (w *narrowWorker) Evaluate(ctx context.Context, path, fn string, v sandbox.Vocabulary, src sandbox.Source, c sandbox.Context, caller kit.Caller) (sandbox.Result, error) {
	w.is(path)
	return w.Worker.Evaluate(ctx, path, fn, v, src, c, caller)
}

// The worker that was started for one runbook evaluates no other.
func TestExpectedWorkerIsOfOneRunbook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart, "b.star": restart})
	w.sick("w3")
	for _, expected := range []string{"a.star", "b.star", "gone.star"} {
		p := w.process()
		p.opts.Expected.Runbook = expected
		var spawned atomic.Int32
		p.wrap = func(d *Deps) {
			d.Spawn = func(ctx context.Context) (sandbox.Worker, error) {
				inner, err := w.spawn(ctx)
				spawned.Add(1)
				return &narrowWorker{Worker: inner, t: t}, err
			}
		}
		if _, err := p.run(); err != nil || spawned.Load() == 0 {
			t.Fatal(err, spawned.Load())
		}
		w.pass(20 * time.Minute)
	}
}

// slowWorker takes until it is let go to end.
type slowWorker struct {
	sandbox.Worker
	release chan struct{}
	ended   *atomic.Int32
}

func (w slowWorker) Close() {
	<-w.release
	w.ended.Add(1)
	w.Worker.Close()
}

// Whoever says what waits for the processes of a run is not made to wait by the run.
func TestLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.sick("w3")
	p := w.process()
	var leaving sync.WaitGroup
	var ended atomic.Int32
	release := make(chan struct{})
	p.wrap = func(d *Deps) {
		d.Leaving = &leaving
		d.Spawn = func(ctx context.Context) (sandbox.Worker, error) {
			inner, err := w.spawn(ctx)
			return slowWorker{inner, release, &ended}, err
		}
	}
	if _, err := p.run(); err != nil || len(w.effects) != 1 || ended.Load() != 0 {
		t.Fatalf("%v, %d effects, %d workers ended", err, len(w.effects), ended.Load())
	}
	close(release)
	leaving.Wait()
	if ended.Load() == 0 {
		t.Error("no worker was ended")
	}
}
