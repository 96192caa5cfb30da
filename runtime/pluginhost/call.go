package pluginhost

import (
	"context"
	"errors"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// Query implements Host. It takes as long as ctx and the function's timeout allow.
func (h *Plugins) Query(ctx context.Context, c Connection, function string, args value.Dict) (value.Value, error) {
	a, err := encodeArgs(c, function, args)
	if err != nil {
		return nil, err
	}
	var out value.Value
	err = h.call(ctx, c, function, func(ctx context.Context, p *process) error {
		r, err := p.rpc.Query(ctx, &pluginpb.QueryRequest{Function: function, Args: a})
		if err != nil {
			return err
		}
		if pr := pluginpb.ToProblem(r.GetDiagnostics(), problem.PluginFailed); pr != nil {
			return p.secret.problem(pr, "%s.%s", c.Plugin, function)
		}
		if out, err = pluginpb.Decode(r.GetValue()); err != nil {
			return problem.Wrap(problem.PluginFailed, err, "%s.%s", c.Plugin, function)
		}
		return nil
	})
	return out, err
}

// Ready starts the plugin of a connection, if it does not run, and configures it: an error is what the first call would meet.
func (h *Plugins) Ready(ctx context.Context, c Connection) error {
	return h.call(ctx, c, "", func(context.Context, *process) error { return nil })
}

// Probe implements Host.
func (h *Plugins) Probe(ctx context.Context, c Connection, q Probe) (ProbeResult, error) {
	a, err := encodeArgs(c, q.Function, q.Args)
	if err != nil {
		return ProbeResult{}, err
	}
	out := ProbeResult{State: action.InDoubt}
	err = h.call(ctx, c, q.Function, func(ctx context.Context, p *process) error {
		r, err := p.rpc.Probe(ctx, &pluginpb.ProbeRequest{
			Function: q.Function, Args: a, Target: encodeTarget(q.Target), Key: q.Key, Receipt: q.Receipt,
		})
		if err != nil {
			return err
		}
		if pr := pluginpb.ToProblem(r.GetDiagnostics(), problem.PluginFailed); pr != nil {
			return p.secret.problem(pr, "%s.%s: probe", c.Plugin, q.Function)
		}
		out.Message = p.secret.text(pluginpb.Text(r.GetMessage()))
		switch r.GetState() {
		case pluginpb.ProbeState_PROBE_STATE_DONE:
			out.State = action.ResolvedDone
		case pluginpb.ProbeState_PROBE_STATE_NOT_DONE:
			out.State = action.ResolvedNotDone
		}
		return nil
	})
	return out, err
}

// Plan implements Planner.
func (h *Plugins) Plan(ctx context.Context, c Connection, q Plan) (PlanResult, error) {
	a, err := encodeArgs(c, q.Function, q.Args)
	if err != nil {
		return PlanResult{}, err
	}
	var out PlanResult
	err = h.call(ctx, c, q.Function, func(ctx context.Context, p *process) error {
		r, err := p.rpc.Plan(ctx, &pluginpb.PlanRequest{Function: q.Function, Args: a, Target: encodeTarget(q.Target)})
		if err != nil {
			return err
		}
		if pr := pluginpb.ToProblem(r.GetDiagnostics(), problem.PluginFailed); pr != nil {
			return p.secret.problem(pr, "%s.%s: plan", c.Plugin, q.Function)
		}
		out.NoChange = r.GetNoChange()
		for _, ch := range r.GetChanges() {
			out.Changes = append(out.Changes, PlannedChange{
				What: p.secret.text(ch.GetWhat()), Before: p.secret.text(ch.GetBefore()), After: p.secret.text(ch.GetAfter()),
			})
		}
		return nil
	})
	return out, err
}

// call makes one call that has no effect, on a shared process. fn's error is a *problem.Problem or one of gRPC.
func (h *Plugins) call(ctx context.Context, c Connection, function string, fn func(context.Context, *process) error) error {
	pl, err := h.pool(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(pl.manifest, function))
	defer cancel()
	p, err := pl.take(ctx, false)
	if err != nil {
		return err
	}
	defer pl.put(p)
	err = fn(ctx, p)
	var pr *problem.Problem
	if err == nil || errors.As(err, &pr) {
		return err
	}
	// Its handler may still be running, or it is broken: nothing else is asked of this process. (The code is no help: a
	// plugin's side may notice the end of the time a moment before ours does.)
	pl.retire(p)
	return p.callError(c.Plugin+"."+function, err)
}

// timeoutOf is how long a function may take.
func timeoutOf(m sdk.Manifest, function string) time.Duration {
	for _, f := range m.Functions {
		if f.Name != function {
			continue
		}
		atMost := f.MaxTimeout
		if atMost <= 0 {
			atMost = maxCall
		}
		if f.DefaultTimeout > 0 {
			return min(f.DefaultTimeout, atMost)
		}
		return min(defaultCall, atMost)
	}
	return defaultCall
}

func encodeArgs(c Connection, function string, args value.Dict) (*pluginpb.Dict, error) {
	a, err := pluginpb.EncodeDict(args)
	if err != nil {
		return nil, problem.New(problem.Argument, "%s.%s: %v", c.Plugin, function, err)
	}
	return a, nil
}

func encodeTarget(t action.Target) *pluginpb.Target {
	return &pluginpb.Target{Key: t.Key, Name: t.Name, Labels: t.Labels}
}
