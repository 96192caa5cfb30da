package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// behaviour is what a plugin does with one action.
type behaviour struct {
	execute error // it ends before it can be asked anything
	started error // it ends without Started
	proceed error // told to act, it does not say that it does
	silent  bool  // with proceed: it acted nevertheless
	decline error // told not to act, it does not acknowledge
	wait    error // its outcome is unknown
	state   action.StepState
	message string
	// before is called when it is told to act, during when it acts.
	before, during func()
	// mute acts until the context ends.
	mute bool
}

var errPlugin = problem.New(problem.PluginFailed, "the plugin ended: signal: killed")

// fakeHost answers queries from the recorded metrics and carries actions out as it is told.
type fakeHost struct {
	p      *proc
	mu     sync.Mutex
	behave func(pluginhost.Execute) *behaviour
	query  func(function, expr string) error // fails queries
	asked  []string
	done   []pluginhost.Execute
	probe  func(context.Context) (pluginhost.ProbeResult, error) // nil cannot tell
	probed []pluginhost.Probe
	alerts map[string]func(name string) (value.Value, error) // by connection
}

var _ pluginhost.Host = (*fakeHost)(nil)

func (h *fakeHost) Manifest(_ context.Context, plugin string) (sdk.Manifest, error) {
	if plugin != "svc" {
		return sdk.Manifest{}, problem.New(problem.PluginMissing, "no plugin %s", plugin)
	}
	return manifest(), nil
}

func (h *fakeHost) Query(ctx context.Context, c pluginhost.Connection, function string, args value.Dict) (value.Value, error) {
	if h.p.isDead() {
		return nil, errKilled
	}
	if err := ctx.Err(); err != nil {
		return nil, problem.Wrap(problem.Interrupted, err, "query")
	}
	if c.Plugin == "svc" {
		if function == "diagnose" {
			h.p.w.mu.Lock()
			defer h.p.w.mu.Unlock()
			h.p.w.diagnosed++
			return value.Int(h.p.w.diagnosed), nil
		}
		return value.String("running"), nil
	}
	arg := func(name string) value.Value { v, _ := args.Get(name); return v }
	if function == "alerts" {
		name, _ := arg("name").(value.String)
		return h.alerts[c.Name](string(name))
	}
	expr, _ := arg("expr").(value.String)
	h.mu.Lock()
	h.asked = append(h.asked, string(expr))
	fail := h.query
	h.mu.Unlock()
	if fail != nil {
		if err := fail(function, string(expr)); err != nil {
			return nil, err
		}
	}
	out := value.List{}
	if function == "instant" {
		at, _ := arg("at").(value.Time)
		samples, err := h.p.w.db.Instant(ctx, string(expr), time.Time(at))
		for _, s := range samples {
			out = append(out, series(s.Labels, []kit.Point{{At: s.At, Value: s.Value}}))
		}
		return out, err
	}
	start, _ := arg("start").(value.Time)
	end, _ := arg("end").(value.Time)
	step, _ := arg("step").(value.Duration)
	all, err := h.p.w.db.Range(ctx, string(expr), time.Time(start), time.Time(end), time.Duration(step))
	for _, s := range all {
		out = append(out, series(s.Labels, s.Points))
	}
	return out, err
}

func (h *fakeHost) Probe(ctx context.Context, c pluginhost.Connection, p pluginhost.Probe) (pluginhost.ProbeResult, error) {
	h.mu.Lock()
	h.probed = append(h.probed, p)
	h.mu.Unlock()
	if c.Name != "svc" || string(p.Receipt) != "receipt" || p.Key == "" {
		h.p.w.t.Errorf("asked %+v over %s", p, c.Name)
	}
	if h.probe == nil {
		return pluginhost.ProbeResult{State: action.InDoubt}, nil
	}
	return h.probe(ctx)
}

func (h *fakeHost) Close() {}

func (h *fakeHost) Execute(ctx context.Context, _ pluginhost.Connection, x pluginhost.Execute) (pluginhost.Execution, error) {
	if h.p.isDead() {
		return nil, errKilled
	}
	if err := ctx.Err(); err != nil {
		return nil, problem.Wrap(problem.Interrupted, err, "execute")
	}
	h.mu.Lock()
	h.done = append(h.done, x)
	b := h.behave(x)
	h.mu.Unlock()
	if b.execute != nil {
		return nil, b.execute
	}
	return &fakeExecution{h: h, x: x, b: b}, nil
}

type fakeExecution struct {
	h                     *fakeHost
	x                     pluginhost.Execute
	b                     *behaviour
	told, declined, ended bool
}

func (e *fakeExecution) Started() ([]byte, action.Child, error) {
	if e.b.started != nil {
		return nil, action.Child{}, e.b.started
	}
	return []byte("receipt"), action.Child{PID: 5000 + e.h.p.self.PID, Start: 7, Group: 5000 + e.h.p.self.PID}, nil
}

// effect is the moment at which the world changes. Whatever else happens, the records must say beforehand that it may.
func (e *fakeExecution) effect() {
	w := e.h.p.w
	w.mu.Lock()
	w.effects[e.x.Key]++
	n := w.effects[e.x.Key]
	w.mu.Unlock()
	if n > 1 {
		w.t.Errorf("%s on %s was done %d times", e.x.Function, e.x.Target.Key, n)
	}
	if set := w.state.Check(func(k string) (string, bool) { v, ok := e.h.p.env[k]; return v, ok }); len(set) > 0 {
		w.t.Errorf("acted while halted: %v", set)
	}
	var all []*action.Step
	var mine *action.Step
	err := w.store.Scan(context.Background(), "step/", false, func(_ string, val []byte) bool {
		s, err := action.DecodeStep(val)
		if err != nil {
			w.t.Errorf("%v", err)
			return false
		}
		all = append(all, s)
		if s.Key == e.x.Key {
			mine = s
		}
		return true
	})
	switch {
	case err != nil:
		w.t.Errorf("%v", err)
	case mine == nil:
		w.t.Errorf("acted without a record")
	case mine.State != action.Begun:
		w.t.Errorf("acted while its record says %s", mine.State)
	default:
		e.alone(mine, all)
	}
}

// alone checks that nothing on record forbids the step.
func (e *fakeExecution) alone(mine *action.Step, all []*action.Step) {
	w := e.h.p.w
	for _, s := range all {
		if s.Key == mine.Key || s.Identity.Target != mine.Identity.Target {
			continue
		}
		if s.State == action.InDoubt || s.State == action.Abandoned && w.attempt(s).State.Holds() {
			w.t.Errorf("acted on %s while %s is %s", mine.Identity.Target, s.ID, s.State)
		}
		same := s.Identity.AttemptID() == mine.Identity.AttemptID()
		if s.State.Began() && !same && s.Action == mine.Action && mine.ReservedAt.Trusted >= s.ReservedAt.Trusted && mine.ReservedAt.Trusted < s.ReservedAt.Trusted+s.Cooldown {
			w.t.Errorf("acted on %s again after %s of %s", mine.Identity.Target, mine.ReservedAt.Trusted-s.ReservedAt.Trusted, s.Cooldown)
		}
	}
	a := w.attempt(mine)
	open := a.State == action.Open && !mine.Cleanup || a.Cleanup != nil && a.Cleanup.State == action.CleanupRuns && mine.Cleanup
	if !open || a.Owner != e.h.p.self {
		w.t.Errorf("acted for an attempt that is %s, of %+v", a.State, a.Owner)
	}
}

func (e *fakeExecution) Proceed(ctx context.Context) error {
	if e.told || e.declined || e.ended {
		e.h.p.w.t.Errorf("told to proceed after the end")
	}
	if e.h.p.isDead() {
		return errKilled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e.told = true
	if failed := e.h.p.st.failed; failed != "" {
		e.h.p.w.t.Errorf("told to proceed after %s", failed)
	}
	if e.b.before != nil {
		e.b.before()
	}
	if e.b.proceed == nil || e.b.silent {
		e.effect()
	}
	return e.b.proceed
}

func (e *fakeExecution) Decline(ctx context.Context, _ string) error {
	if e.told {
		e.h.p.w.t.Errorf("declined after it was told to proceed")
	}
	e.declined = true
	if e.h.p.isDead() {
		return errKilled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return e.b.decline
}

func (e *fakeExecution) Wait(ctx context.Context) (pluginhost.Finished, error) {
	if !e.told {
		e.h.p.w.t.Errorf("waited for without being told to proceed")
	}
	if e.b.during != nil {
		e.b.during()
	}
	if e.b.mute {
		<-ctx.Done()
		return pluginhost.Finished{}, ctx.Err()
	}
	if e.h.p.isDead() {
		return pluginhost.Finished{}, errKilled
	}
	e.ended = true
	if e.b.wait != nil {
		return pluginhost.Finished{}, e.b.wait
	}
	f := pluginhost.Finished{State: e.b.state, Value: value.Int(1), Message: e.b.message}
	if f.State == "" {
		f.State = action.Succeeded
	}
	return f, nil
}

func (e *fakeExecution) Kill() { e.ended = true }

// fault is what becomes of one transaction.
type fault string

const (
	refused     fault = "refused"      // nothing is written
	lostAnswer  fault = "lost answer"  // written, and nobody knows
	lostRequest fault = "lost request" // not written, and nobody knows
	killBefore  fault = "kill before"
	killAfter   fault = "kill after"
	busy        fault = "busy" // another process has the store for a moment
)

// faultyStore is a store of which the n-th Update goes wrong.
type faultyStore struct {
	p     *proc
	inner *storetest.Memory
	mu    sync.Mutex
	n     int
	at    map[int]fault
	// failed is the first Update that did not return nil.
	failed string
}

func (s *faultyStore) Update(ctx context.Context, keys []string, fn func(store.Tx) error) error {
	s.mu.Lock()
	s.n++
	n := s.n
	f := s.at[n]
	s.mu.Unlock()
	err := s.update(ctx, keys, fn, f)
	if err != nil {
		s.mu.Lock()
		if s.failed == "" {
			s.failed = fmt.Sprintf("transaction %d: %v", n, err)
		}
		s.mu.Unlock()
	}
	return err
}

func (s *faultyStore) update(ctx context.Context, keys []string, fn func(store.Tx) error, f fault) error {
	if s.p.isDead() {
		return errKilled
	}
	unknown := fmt.Errorf("commit: %w", store.ErrUnknown)
	switch f {
	case refused:
		return errors.New("no space left on device")
	case busy:
		return problem.New(problem.StoreBusy, "another process holds the store")
	case lostRequest:
		return unknown
	case killBefore:
		s.p.kill()
		return errKilled
	}
	// fn may run again.
	rerun := errors.New("again")
	if err := s.inner.Update(ctx, keys, func(tx store.Tx) error { return errors.Join(fn(tx), rerun) }); !errors.Is(err, rerun) {
		return err
	}
	err := s.inner.Update(ctx, keys, fn)
	switch {
	case f == lostAnswer && err == nil:
		return unknown
	case f == killAfter:
		s.p.kill()
		return errKilled
	}
	return err
}

func (s *faultyStore) View(ctx context.Context, keys []string, fn func(store.ReadTx) error) error {
	if s.p.isDead() {
		return errKilled
	}
	return s.inner.View(ctx, keys, fn)
}

func (s *faultyStore) Scan(ctx context.Context, prefix string, reverse bool, fn func(key string, val []byte) bool) error {
	if s.p.isDead() {
		return errKilled
	}
	return s.inner.Scan(ctx, prefix, reverse, fn)
}

var _ ledger.Records = (*faultyStore)(nil)
