package testrun

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// fake says how a function of a plugin ends.
type fake struct {
	function string // "exec.run"
	outcome  string
	target   string
	message  string
	value    value.Value
	left     int // how often; -1 for always
}

// The outcomes of a fake.
const (
	fakeOK         = "ok"
	fakeNoChange   = "no_change"
	fakeFailed     = "failed"
	fakeNotStarted = "not_started"
	fakeTimeout    = "timeout"
	fakeInDoubt    = "in_doubt"
)

var fakeOutcomes = []string{fakeOK, fakeNoChange, fakeFailed, fakeNotStarted, fakeTimeout, fakeInDoubt}

// host stands in for all plugins: the metric source answers from the test's recording, and the others as the test says.
type host struct {
	w     *world
	mu    sync.Mutex
	fakes []*fake
}

var (
	_ pluginhost.Host   = (*host)(nil)
	_ pluginhost.Direct = (*host)(nil)
)

// Manifest implements pluginhost.Host.
func (h *host) Manifest(_ context.Context, plugin string) (sdk.Manifest, error) {
	var names []string
	for _, m := range h.w.p.Manifests {
		if m.Name == plugin {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return sdk.Manifest{}, problem.New(problem.PluginMissing, "there is no plugin %q%s", plugin, problem.DidYouMean(plugin, names))
}

// fn finds a function of a plugin by its full name.
func (h *host) fn(name string) (kit.Function, error) {
	plugin, function, dotted := strings.Cut(name, ".")
	if !dotted {
		return kit.Function{}, problem.New(problem.Argument, "%q is not the name of a plugin's function", name).WithHint(`write it as "exec.run"`)
	}
	_, fn, err := kit.Find(h.w.p.Families, plugin, function)
	return fn, err
}

// answering is the fake for a call: the newest that is for it and not used up.
func (h *host) answering(function, target string) *fake {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range slices.Backward(h.fakes) {
		if f.function != function || f.target != "" && f.target != target || f.left == 0 {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f
	}
	return nil
}

// Query implements pluginhost.Host.
func (h *host) Query(ctx context.Context, c pluginhost.Connection, function string, args value.Dict) (value.Value, error) {
	name := c.Plugin + "." + function
	if f := h.answering(name, ""); f != nil {
		if f.outcome == fakeFailed {
			return nil, problem.New(problem.PluginFailed, "%s: %s", name, orElse(f.message, "the test lets it fail"))
		}
		return f.value, nil
	}
	if i := slices.IndexFunc(h.w.settings.Alerts, func(a project.Connection) bool { return a.Name == c.Name }); i >= 0 && function == "alerts" {
		if i > 0 {
			return value.List{}, nil
		}
		name, _ := args.Get("name")
		where, _ := args.Get("where")
		return h.w.firing(str(name), stringMap(where)), nil
	}
	return nil, problem.New(problem.NotFound, "the test does not say what %s answers", name).WithHint("write: t.fake(%q, value = ...)", name)
}

// faked says whether the test says what a function answers.
func (h *host) faked(function string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.fakes, func(f *fake) bool { return f.function == function && f.left != 0 })
}

// Series implements pluginhost.Direct: it is what the recording answers.
func (h *host) Series(ctx context.Context, c pluginhost.Connection, function string, args value.Dict) ([]kit.Series, bool, error) {
	if c.Name != h.w.settings.Metrics.Name || h.faked(c.Plugin+"."+function) {
		return nil, false, nil
	}
	found, err := h.measured(ctx, function, args)
	return found, true, err
}

func (h *host) measured(ctx context.Context, function string, args value.Dict) ([]kit.Series, error) {
	m := h.w.memo
	arg := func(name string) value.Value { v, _ := args.Get(name); return v }
	text, _ := arg("expr").(value.String)
	expr := string(text)
	if function == "instant" {
		v, _ := arg("at").(value.Time)
		if at := time.Time(v); m != nil {
			return m.instant(ctx, expr, at)
		}
		return instant(ctx, h.w.db, expr, time.Time(v))
	}
	start, _ := arg("start").(value.Time)
	end, _ := arg("end").(value.Time)
	step, _ := arg("step").(value.Duration)
	if m != nil {
		return m.over(ctx, expr, time.Time(start), time.Time(end), time.Duration(step))
	}
	return h.w.db.Range(ctx, expr, time.Time(start), time.Time(end), time.Duration(step))
}

// Execute implements pluginhost.Host.
func (h *host) Execute(_ context.Context, c pluginhost.Connection, x pluginhost.Execute) (pluginhost.Execution, error) {
	f := h.answering(c.Plugin+"."+x.Function, x.Target.Name)
	if f == nil {
		f = &fake{outcome: fakeOK}
	}
	if f.outcome == fakeNotStarted {
		return nil, problem.New(problem.PluginFailed, "%s", orElse(f.message, "the test does not let it start"))
	}
	return execution{f, x.Function}, nil
}

// Probe implements pluginhost.Host: nobody can tell.
func (h *host) Probe(context.Context, pluginhost.Connection, pluginhost.Probe) (pluginhost.ProbeResult, error) {
	return pluginhost.ProbeResult{State: action.InDoubt}, nil
}

// Close implements pluginhost.Host.
func (h *host) Close() {}

// execution is an action that ends as the test says.
type execution struct {
	fake     *fake
	function string
}

// Started implements pluginhost.Execution.
func (e execution) Started() ([]byte, action.Child, error) {
	return []byte("test"), action.Child{}, nil
}

// Proceed implements pluginhost.Execution.
func (e execution) Proceed(ctx context.Context) error { return ctx.Err() }

// Decline implements pluginhost.Execution.
func (e execution) Decline(context.Context, string) error { return nil }

// Kill implements pluginhost.Execution.
func (e execution) Kill() {}

// Wait implements pluginhost.Execution.
func (e execution) Wait(context.Context) (pluginhost.Finished, error) {
	end := pluginhost.Finished{State: action.Succeeded, Value: e.fake.value, Message: e.fake.message}
	if end.Value == nil {
		end.Value = value.Null{}
	}
	switch e.fake.outcome {
	case fakeNoChange:
		end.State = action.NoChange
	case fakeFailed:
		end.State, end.Message = action.Failed, orElse(end.Message, "the test lets it fail")
	case fakeTimeout:
		return end, problem.Wrap(problem.PluginTimeout, context.DeadlineExceeded, "%s", orElse(end.Message, e.function+" did not end in time"))
	case fakeInDoubt:
		return end, problem.New(problem.PluginFailed, "%s", orElse(end.Message, "the plugin ended: signal: killed"))
	}
	return end, nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
