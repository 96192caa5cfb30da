package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// carryOut runs the protocol of a step that is reserved: start the plugin, record BEGUN, pass the gate, wait for the end.
func (v *evaluation) carryOut(run context.Context, c *call, step *action.Step, rec *trace.Action) (value.Value, error) {
	ctx, cancel := context.WithTimeout(run, c.timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	x, err := v.e.Host.Execute(ctx, c.conn, pluginhost.Execute{Function: c.fn.Name, Args: c.args, Target: v.target, Key: step.Key, Deadline: deadline})
	var receipt []byte
	var child action.Child
	if err == nil {
		receipt, child, err = x.Started()
	}
	if err != nil {
		v.say(rec, "the plugin ended before it began: "+err.Error())
		if e := v.move(step, rec, action.Event{To: action.NotStarted, By: action.ByEngine, Why: err.Error()}); e != nil {
			return nil, v.end(trace.Interrupted, e)
		}
		return v.refuse(c, rec, trace.Failed, v.e.asProblem(problem.PluginFailed, err, "%s did not start", c.name).At(c.pos))
	}
	v.say(rec, fmt.Sprintf("plugin %s says it is ready to act (receipt of %d bytes)", c.plugin, len(receipt)))
	if err := v.move(step, rec, action.Event{To: action.Begun, By: action.ByEngine, Receipt: receipt, Child: child, Why: "the plugin is ready; its effect may happen from here on"}); err != nil {
		// Nothing was told to proceed; whether the record says BEGUN or not, recovery will find out from the store.
		_ = v.decline(ctx, x, "the record could not be written")
		x.Kill()
		return nil, v.end(trace.Interrupted, err)
	}
	v.e.hook("begun")
	// Once it is told to act an interrupt lets it end, and what it did is recorded. Its own timeout still holds.
	wait, done := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer done()
	if err := v.pass(run, ctx, wait, c, step, rec, x); err != nil {
		return nil, err
	}
	v.e.hook("acting")
	end, err := x.Wait(wait)
	v.e.hook("finished")
	if err != nil {
		x.Kill()
		return nil, v.doubt(c, step, rec, err)
	}
	v.say(rec, strings.TrimSuffix(fmt.Sprintf("plugin %s says %s: %s", c.plugin, end.State, clip(end.Message, 200)), ": "))
	if err := v.move(step, rec, action.Event{To: end.State, By: action.ByPlugin, Outcome: &action.Outcome{Value: end.Value, Message: end.Message}, Why: end.Message}); err != nil {
		return nil, v.end(trace.Interrupted, err)
	}
	rec.Message = end.Message
	if end.State == action.Failed {
		v.failed = true
		p := problem.New(problem.ActionFailed, "%s failed on %s: %s", c.name, v.target.Name, firstLine(end.Message)).At(c.pos)
		return v.notOK(c, rec, end.State, trace.Failed, p)
	}
	v.acted = true
	return result(end.State, end.Value, "", nil), nil
}

// pass takes the step through the gate: the halt sources are read again and the plugin is told to proceed while halt waits. run is the
// run's context, ctx has the step's timeout too, and wait only that.
func (v *evaluation) pass(run, ctx, wait context.Context, c *call, step *action.Step, rec *trace.Action, x pluginhost.Execution) error {
	told := false
	err := v.e.State.Pass(ctx, v.e.Env, func() error {
		if err := ctx.Err(); err != nil {
			return err // nothing new begins
		}
		told = true
		v.e.hook("proceed")
		return x.Proceed(wait)
	})
	switch {
	case err == nil:
		v.say(rec, "not halted; told to proceed; the plugin acts")
		return nil
	case told:
		x.Kill()
		return v.doubt(c, step, rec, err)
	}
	as := trace.Refused
	switch {
	case run.Err() != nil && errors.Is(err, run.Err()):
		as, err = trace.Interrupted, v.e.interrupted(run.Err())
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		as, err = trace.Failed, problem.New(problem.PluginTimeout, "%s was not ready to act within its timeout of %s", c.name, value.FormatDuration(c.timeout)).At(c.pos).
			WithHint("give it more time with timeout=")
	}
	v.say(rec, "stopped at the gate: "+err.Error())
	if e := v.decline(ctx, x, err.Error()); e != nil {
		x.Kill()
		return v.doubt(c, step, rec, e)
	}
	if e := v.move(step, rec, action.Event{To: action.NotStarted, By: action.ByPlugin, Why: "stopped at the gate: " + err.Error()}); e != nil {
		return v.end(trace.Interrupted, e)
	}
	return v.end(as, err)
}

// declineWithin is how long a plugin may take to acknowledge that it does not act. It has its own limit; this one is for a host that lies.
const declineWithin = 10 * time.Second

func (v *evaluation) decline(ctx context.Context, x pluginhost.Execution, why string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), declineWithin)
	defer cancel()
	return x.Decline(ctx, why)
}

// doubt records that nobody knows whether the effect happened, and tells the owner.
func (v *evaluation) doubt(c *call, step *action.Step, rec *trace.Action, cause error) error {
	v.say(rec, "outcome unknown: "+cause.Error())
	// Halted with --kill it was a person who ended it.
	v.killed = len(v.e.State.Check(v.e.Env)) > 0
	if err := v.move(step, rec, action.Event{To: action.InDoubt, By: action.ByEngine, Why: cause.Error()}); err != nil {
		return v.end(trace.Interrupted, err)
	}
	// Whatever the cause is called: a plugin that was killed has failed, but nobody knows whether the action has.
	p := problem.Wrap(problem.InDoubt, cause, "%s on %s began and its outcome is unknown", c.name, v.target.Name).At(c.pos).
		WithHint("look at %s, then type: runbook resolve %s --nonce %s --as done|not-done|abandoned --reason \"...\"", v.target.Name, step.ID, step.Nonce)
	rec.Problem, v.doubtful = p, step.ID
	return v.end(trace.DoubtRemains, p)
}

// move takes a step along one arrow, durably.
func (v *evaluation) move(step *action.Step, rec *trace.Action, ev action.Event) error {
	var next *action.Step
	var attempt *action.Attempt
	keys := append([]string{ledger.KeyClock, ledger.KeyStep(step.Key), ledger.KeyAttempt(v.attempt.ID)}, ledger.PutKeys()...)
	keys = append(keys, ledger.RefundKeys(v.attempt, step)...)
	err := v.e.insist(keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		if next, err = ledger.LoadStep(tx, step.Key); err != nil {
			return err
		}
		if attempt, err = ledger.LoadAttempt(tx, v.attempt.ID); err != nil {
			return err
		}
		if next.Nonce != step.Nonce {
			return problem.New(problem.Internal, "step %s is no longer ours", step.ID)
		}
		if err := next.Apply(ev, now); err != nil {
			return err
		}
		if next.State != ev.To {
			return ledger.PutLate(tx, next)
		}
		if next.State.Settled() {
			attempt.EndedAt = next.EndedAt
		}
		attempt.Control = attempt.Control || v.killed
		if ev.To == action.Begun {
			store.Mark(tx)
		}
		return ledger.SettleStep(tx, attempt, next)
	})
	if err != nil {
		return fmt.Errorf("record that %s is %s: %w", step.ID, ev.To, err)
	}
	*step, *v.attempt = *next, *attempt
	rec.State = step.State
	if step.State != ev.To {
		v.say(rec, fmt.Sprintf("%s came too late: the record had moved on to %s; kept as late", ev.To, step.State))
		return problem.New(problem.InDoubt, "%s ended as %s after its record had become %s", step.ID, ev.To, step.State).
			WithHint("type: runbook actions --in-doubt")
	}
	return nil
}

// recordWithin is how long a run keeps trying to record what happened, also after it was cancelled.
const recordWithin = 15 * time.Second

// insist records what has happened. It outlives the run's own cancellation, and while another process holds the store, for a backup, it
// waits longer than the store itself does: what is known of an action must not be lost to that.
func (e *engine) insist(keys []string, fn func(store.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	for {
		err := e.Store.Update(ctx, keys, fn)
		if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != problem.StoreBusy {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
