package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/alerts"
	"github.com/seed1de3961f/runbook/builtins/declare"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/metrics"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

const projectText = `project(
    metrics = connection("prometheus", config = {"url": "http://localhost:9090"}),
    connections = [connection("svc", match = {"job": "worker"})],
    policy = policy(mode = "auto", cooldown = "10m", attempts = 3, rates = [rate(100, per = "1h")], settle = "30s"),
    max_age = "1m",
    deadline = "5m",
)
`

// header declares a runbook over the fleet of workers.
const header = `runbook(
    owner    = "team",
    trigger  = every("15s"),
    severity = "warning",
    targets  = fleet(all = 'up{job="worker"}', sick = 'depth{job="worker"} > 100', by = "instance", held = "30s"),
    mode     = "auto",
)

`

const restart = header + `def run(ctx):
    ctx.svc.restart("x.service", reason = "stuck", timeout = "20s", within = "2m")
`

// tb is what the helpers need of a test, or of a check by rapid.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

// world is what outlives a process: the machine's clocks, the disk, the metrics and the services that actions change.
type world struct {
	t        tb
	state    control.State
	store    *storetest.Memory
	tree     *project.Tree
	made     [sha256.Size]byte // the digest of its files when it was made
	settings *project.Settings
	paths    []string
	db       *recorded.DB
	now      time.Time
	up       time.Duration
	pid      int

	mu      sync.Mutex
	live    map[int]bool
	effects map[string]int // by key: how often the action was really done
	killed  []action.Child // groups that recovery ended
	told    []notify.Message
	depth   map[string]float64
	// diagnosed counts how often the expensive question was asked.
	diagnosed int

	coverage func(*project.Runbook, tested.Way) guard.Coverage
}

// newWorld makes one with five healthy workers and a minute of metrics. files are the project's besides project.star.
func newWorld(t *testing.T, files map[string]string) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), projectText, files)
}

func newWorldIn(t tb, dir, settings string, files map[string]string) *world {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	w := &world{
		t: t, store: storetest.NewMemory(), db: recorded.New(recorded.Options{}), now: epoch, up: time.Hour,
		live: map[int]bool{}, effects: map[string]int{}, depth: map[string]float64{},
	}
	for i := 1; i <= 5; i++ {
		w.depth[fmt.Sprintf("w%d", i)] = 5
	}
	var err error
	w.state, err = control.Init(filepath.Join(dir, "state"), filepath.Join(dir, "gate"))
	ok(err)
	ok(os.WriteFile(filepath.Join(dir, "project.star"), []byte(settings), 0o600))
	for path, text := range files {
		ok(os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600))
		w.paths = append(w.paths, path)
	}
	slices.Sort(w.paths)
	w.tree, err = project.Open(dir)
	ok(err)
	w.made = w.files()
	worker, err := w.spawn(context.Background())
	ok(err)
	defer worker.Close()
	w.settings, err = project.LoadSettings(context.Background(), worker, w.tree)
	ok(err)
	w.pass(2 * time.Minute)
	return w
}

// pass lets time go by, measuring every 15 seconds.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	const scrape = 15 * time.Second
	for end := w.now.Add(d); ; {
		next := w.now.Truncate(scrape).Add(scrape)
		if next.After(end) {
			w.up += end.Sub(w.now)
			w.now = end
			return
		}
		w.up += next.Sub(w.now)
		w.now = next
		w.measure()
	}
}

func (w *world) measure() {
	w.t.Helper()
	for name, v := range w.depth {
		labels := map[string]string{"instance": name, "job": "worker"}
		for metric, v := range map[string]float64{"up": 1, "depth": v} {
			l := maps.Clone(labels)
			l["__name__"] = metric
			if err := w.db.Append(l, w.now, v); err != nil {
				w.t.Fatalf("%v", err)
			}
		}
	}
}

// sick makes a worker sick for long enough.
func (w *world) sick(name string) {
	w.t.Helper()
	w.depth[name] = 1000
	w.pass(time.Minute)
}

func (w *world) sample() (clock.Sample, error) {
	return clock.Sample{Wall: w.now, Boot: "b", Uptime: w.up, Synced: true}, nil
}

// proc is one process that runs the engine. What it does after it was killed has no effect.
type proc struct {
	w    *world
	self action.Owner
	host *fakeHost
	st   *faultyStore
	opts Options
	hook func(point string)
	ctx  context.Context
	env  map[string]string
	mu   sync.Mutex
	dead bool
	// look and end are what this process sees of others and what becomes of groups that it ends, if not the usual.
	look func(action.Owner) process.Liveness
	end  func(action.Child) error
	beat func(*trace.Run) error
	// wrap may put something of its own between the engine and the world.
	wrap func(*Deps)
}

var errKilled = errors.New("this process was killed")

func (w *world) process() *proc {
	w.pid++
	p := &proc{w: w, self: action.Owner{Host: "h", Boot: "b", PID: 1000 + w.pid, Start: uint64(w.pid)}, ctx: context.Background(), env: map[string]string{}}
	p.host = &fakeHost{p: p, behave: func(pluginhost.Execute) *behaviour { return &behaviour{} }}
	p.st = &faultyStore{p: p, inner: w.store, at: map[int]fault{}}
	return p
}

func (p *proc) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
}

func (p *proc) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// run is one run of the engine, after which the process is gone.
func (p *proc) run() (*trace.Run, error) {
	w := p.w
	w.mu.Lock()
	w.live[p.self.PID] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.live[p.self.PID] = false
		w.mu.Unlock()
	}()
	if p.opts.Paths == nil {
		p.opts.Paths = w.paths
	}
	families, err := pluginhost.Families([]sdk.Manifest{manifest()})
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	vocabulary := slices.Concat(declare.Families(), []kit.Family{metrics.Family(), alerts.Family()}, families)
	deps := Deps{
		State: w.state, Store: p.st, Host: p.host, Tree: w.tree, Settings: w.settings,
		Families: vocabulary,
		Spawn:    w.spawn,
		Sample:   w.sample, Now: func() time.Time { return w.now },
		Env:  func(k string) (string, bool) { v, ok := p.env[k]; return v, ok },
		Self: p.self,
		Heartbeat: func(_ context.Context, r *trace.Run, _ ledger.Totals) error {
			if p.beat != nil {
				return p.beat(r)
			}
			return nil
		},
		Look: func(o action.Owner) process.Liveness {
			if p.look != nil && o != p.self {
				return p.look(o)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.live[o.PID] {
				return process.Live
			}
			return process.Dead
		},
		KillGroup: func(c action.Child) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.killed = append(w.killed, c)
			if p.end != nil {
				return p.end(c)
			}
			return nil
		},
		Sinks: []notify.Sink{sink{w}}, Version: "test", Coverage: w.coverage,
		Hook: func(point string) {
			if p.hook != nil {
				p.hook(point)
			}
		},
	}
	if p.wrap != nil {
		p.wrap(&deps)
	}
	r, err := Run(p.ctx, deps, p.opts)
	if err == nil && !p.isDead() && p.ctx.Err() == nil {
		w.decidesAgain(r, vocabulary)
	}
	return r, err
}

// decidesAgain is true of every run that a test makes: the same source and the record of the run give the same decision.
func (w *world) decidesAgain(r *trace.Run, families []kit.Family) {
	w.t.Helper()
	b, err := trace.Encode(r)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	if r, err = trace.Decode(b); err != nil {
		w.t.Fatalf("%v", err)
	}
	decided, err := Replay{
		Families: families,
		Spawn:    w.spawn,
		Source: func(ctx context.Context, _, digest string) (sandbox.Source, error) {
			if r.DryRun {
				return w.tree, nil // which leaves nothing behind
			}
			src, err := ledger.LoadSource(ctx, w.store, digest)
			if err == nil && src == nil {
				err = fmt.Errorf("the files of %s are not kept", digest)
			}
			return src, err
		},
	}.Run(context.Background(), r)
	if err != nil {
		w.t.Fatalf("replay: %v", err)
	}
	for _, d := range decided {
		if !d.Same {
			w.t.Errorf("decided again, %s on %s is not the same: %s%s\nwas %s\nis  %s", d.Runbook, d.Target, d.Unknown, d.Difference, d.Was, d.Is)
		}
	}
}

// tick is a run that nothing happens to.
func (w *world) tick() *trace.Run {
	w.t.Helper()
	r, err := w.process().run()
	if err != nil {
		w.t.Fatalf("run: %v", err)
	}
	return r
}

// sink keeps what people are told.
type sink struct{ w *world }

func (sink) Name() string      { return "test" }
func (sink) Wants(string) bool { return true }
func (s sink) Send(_ context.Context, m notify.Message) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.told = append(s.w.told, m)
	return nil
}

// reasons are those of all that people were told, in order.
func (w *world) reasons() []string {
	var out []string
	for _, m := range w.told {
		out = append(out, m.Reason)
	}
	return out
}

// steps are all records of actions, the oldest first.
func (w *world) steps() []*action.Step {
	w.t.Helper()
	all, err := ledger.Steps(context.Background(), w.store, 1000, nil)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	slices.SortStableFunc(all, func(a, b *action.Step) int {
		return int(a.ReservedAt.Trusted-b.ReservedAt.Trusted) + a.Identity.Step - b.Identity.Step
	})
	return all
}

func (w *world) states() []action.StepState {
	w.t.Helper()
	var out []action.StepState
	for _, s := range w.steps() {
		out = append(out, s.State)
	}
	return out
}

// attempt is the record of the attempt that a step belongs to.
func (w *world) attempt(s *action.Step) *action.Attempt {
	w.t.Helper()
	a, _, err := ledger.Attempt(context.Background(), w.store, s.Identity.AttemptID())
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return a
}

func (w *world) status() ledger.Status {
	w.t.Helper()
	s, err := ledger.ReadStatus(context.Background(), w.store, w.sample)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return s
}

// target is what a run saw of a target, in the first of its runbooks.
func target(t tb, r *trace.Run, name string) *trace.Target {
	t.Helper()
	for _, rb := range r.Runbooks {
		for _, x := range rb.Targets {
			if x.Name == name {
				return x
			}
		}
	}
	t.Fatalf("the run did not see %s: %+v", name, r.Runbooks[0])
	return nil
}

func evaluationOf(t tb, r *trace.Run, name string) *trace.Evaluation {
	t.Helper()
	ev := target(t, r, name).Evaluation
	if ev == nil {
		t.Fatalf("%s was not evaluated: %+v", name, target(t, r, name))
	}
	return ev
}

func manifest() sdk.Manifest {
	name := []sdk.Param{{Name: "name", Type: "string", Required: true}, {Name: "token", Type: "string", Sensitive: true}}
	return sdk.Manifest{Name: "svc", Version: "1", Functions: []sdk.Function{
		{Name: "restart", Kind: sdk.Action, Positional: 1, Params: name},
		{Name: "drain", Kind: sdk.Action, Positional: 1, Params: name, Settle: 15 * time.Second, CanProbe: true},
		{Name: "reboot", Kind: sdk.Action, Positional: 1, Params: name, EndsTarget: true},
		{Name: "status", Kind: sdk.Query, Positional: 1, Params: name[:1]},
		{Name: "diagnose", Kind: sdk.Analysis, Positional: 1, Params: name[:1], DefaultCooldown: time.Minute},
	}}
}

// series is the wire form of a metric answer.
func series(labels map[string]string, points []kit.Point) value.Value {
	list := value.List{}
	for _, p := range points {
		list = append(list, value.List{value.Time(p.At), value.Float(p.Value)})
	}
	return value.Dict{{Key: value.String("labels"), Value: value.Strings(labels)}, {Key: value.String("points"), Value: list}}
}

// newWorldFile adds a file to the project and returns its path.
func newWorldFile(t *testing.T, w *world, path, text string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.settings.Root, path), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
