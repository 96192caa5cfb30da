package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// call is one action that a runbook asks for, with its arguments taken apart.
type call struct {
	name     string // "exec.run"
	plugin   string
	fn       sdk.Function
	args     value.Dict
	shown    value.Dict // args with secrets hidden
	reason   string
	cooldown time.Duration // longest of plugin and call
	timeout  time.Duration
	within   time.Duration
	expect   string
	must     bool
	conn     pluginhost.Connection
	pos      value.Pos
}

// act carries one action out, or explains why not. Its error ends the evaluation; with must=False what went wrong
// is a value instead, except where nothing may go on (in doubt, halted, out of time).
func (v *evaluation) act(ctx context.Context, req kit.Request, params []kit.Param, args kit.Args) (value.Value, error) {
	rec := &trace.Action{Action: req.Family + "." + req.Function, Pos: req.Pos}
	v.record.Events = append(v.record.Events, trace.Event{Action: rec})
	c, err := v.prepare(ctx, req, params, args, rec)
	if err != nil {
		return v.refuse(c, rec, trace.Refused, err)
	}
	step, err := v.reserve(ctx, c, rec)
	if err != nil {
		return v.refuse(c, rec, trace.Failed, err)
	}
	if v.e.dry {
		rec.Planned = true
		return result(action.Succeeded, value.Null{}, "", nil), nil // a plan shows every step, as if each one worked
	}
	if step == nil {
		return v.refuse(c, rec, trace.Refused, refusedProblem(rec, v.target))
	}
	return v.carryOut(ctx, c, step, rec)
}

// prepare takes the call apart and finds out where it would act.
func (v *evaluation) prepare(ctx context.Context, req kit.Request, params []kit.Param, args kit.Args, rec *trace.Action) (*call, error) {
	c := &call{name: rec.Action, plugin: req.Family, pos: req.Pos, must: true}
	own := map[string]value.Value{}
	for _, p := range params {
		if a, ok := args[p.Name]; ok {
			own[p.Name] = a
		}
	}
	for _, p := range kit.ReservedActionParams() {
		delete(own, p.Name)
	}
	c.args = value.Map(own)
	c.shown = hideSecrets(c.args, params)
	rec.Args = c.shown
	c.reason = text(args["reason"])
	rec.Reason = c.reason
	if m, ok := args["must"].(value.Bool); ok {
		c.must = bool(m)
	}
	if c.reason == "" {
		return c, problem.New(problem.Argument, "%s needs a reason that says something", c.name).At(req.Pos).
			WithHint(`say why in words: reason = "queue stuck"`)
	}
	m, err := v.e.Host.Manifest(ctx, req.Family)
	if err != nil {
		return c, err
	}
	for _, f := range m.Functions {
		if f.Name == req.Function {
			c.fn = f
		}
	}
	c.timeout = orDuration(args["timeout"], orDefault(c.fn.DefaultTimeout, 30*time.Second))
	if limit := orDefault(c.fn.MaxTimeout, 10*time.Minute); c.timeout > limit || c.timeout <= 0 {
		return c, problem.New(problem.Argument, "%s: timeout must be more than 0 and at most %s, got %s", c.name, value.FormatDuration(limit), value.FormatDuration(c.timeout)).At(req.Pos)
	}
	c.cooldown = max(orDuration(args["cooldown"], 0), c.fn.DefaultCooldown)
	c.within = orDuration(args["within"], 10*time.Minute)
	if c.within <= c.fn.Settle {
		return c, problem.New(problem.Argument, "%s: within (%s) must be longer than the time the action takes to settle (%s)", c.name, value.FormatDuration(c.within), value.FormatDuration(c.fn.Settle)).At(req.Pos)
	}
	c.expect = text(args["expect"])
	if c.expect == "" && c.fn.EndsTarget {
		return c, problem.New(problem.Argument, "%s ends its target, so that its symptom cannot be asked for afterwards", c.name).At(req.Pos).
			WithHint("add expect = \"PromQL that holds when the action helped\"")
	}
	if c.expect != "" {
		if _, err := v.rb.Parse(c.expect); err != nil {
			return c, err
		}
	}
	conn, err := v.e.Settings.ConnectionFor(req.Family, v.target.Labels)
	if err != nil {
		return c, err
	}
	rec.Connection = conn.Name
	if c.conn, err = v.e.connection(conn); err != nil {
		return c, err
	}
	if left := v.e.deadline.Sub(v.e.wall()); left < c.timeout {
		return c, problem.New(problem.Deadline, "%s may take %s, but the run ends in %s", c.name, value.FormatDuration(c.timeout), left.Round(time.Second)).At(req.Pos).
			WithHint("give the run more time with project(deadline=), or the action a shorter timeout")
	}
	return c, nil
}

// reserve asks all guards and records the step, in one transaction. It returns nil if a guard refused. In a dry run
// it asks and records nothing.
func (v *evaluation) reserve(ctx context.Context, c *call, rec *trace.Action) (*action.Step, error) {
	halt := v.e.State.Check(v.e.Env)
	first := v.attempt == nil
	var step *action.Step
	var attempt *action.Attempt
	decide := func(tx store.ReadTx, now action.Clock) error {
		step, attempt = nil, nil
		rec.Refused = false
		if err := ledger.Believed(tx, v.e.Sample); err != nil {
			return err
		}
		st, err := ledger.GuardState(tx, now, v.e.mayLive, v.rb.Name, c.name, v.target.Key)
		if err != nil {
			return err
		}
		st.Halt = halt
		if v.e.dry { // which has not recorded the episode that it would open
			st.Episode = guard.EpisodeState{ID: v.record.Episode, Attempts: v.record.Number - 1}
		}
		in := guard.Input{Now: now, Policy: v.rb.Policy, State: st, Request: guard.Request{
			Runbook: v.rb.Name, Target: v.target, Fleet: v.fleet, Episode: v.record.Episode, Action: c.name,
			Cooldown: c.cooldown, Severity: v.rb.Severity, OldestRead: v.oldest, Repeats: v.repeats(rec),
		}}
		if !first {
			in.Attempt = v.attempt.ID
		}
		rec.Verdicts = guard.Evaluate(in)
		if len(guard.Refused(rec.Verdicts)) > 0 {
			rec.Refused = true
		}
		return nil
	}
	if v.e.dry {
		keys := ledger.DecisionKeys(v.rb.Name, c.name, v.target.Key)
		return nil, v.e.Store.View(ctx, keys, func(tx store.ReadTx) error {
			now, err := ledger.Moment(tx, v.e.Sample)
			if err != nil {
				return err
			}
			return decide(tx, now)
		})
	}
	keys := append(ledger.DecisionKeys(v.rb.Name, c.name, v.target.Key), ledger.PutKeys()...)
	if !first {
		keys = append(keys, ledger.KeyAttempt(v.attempt.ID))
	}
	err := v.e.Store.Update(ctx, keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		if err := decide(tx, now); err != nil || rec.Refused {
			return err
		}
		if attempt, err = v.openAttempt(tx, c, now); err != nil {
			return err
		}
		if step, err = v.newStep(attempt, c, now); err != nil {
			return err
		}
		attempt.Steps = append(attempt.Steps, step.Key)
		rec.ID = step.ID
		if err := ledger.Charge(tx, attempt, step, first, now, longest(v.rb.Policy.WithDefaults().Rates)); err != nil {
			return err
		}
		if err := ledger.Put(tx, attempt, step); err != nil {
			return err
		}
		rec.State = step.State
		v.record.Attempt = attempt.ID
		return v.saveTrace(tx)
	})
	if err != nil || step == nil {
		rec.ID, rec.State = "", ""
		return nil, err
	}
	v.attempt = attempt
	v.say(rec, "reserved: all guards passed, recorded before anything starts")
	v.e.hook("reserved")
	return step, nil
}

// repeats says whether this evaluation has done, or in a dry run would have done, exactly the same before. A loop in a runbook must
// not restart a service as often as it goes round.
func (v *evaluation) repeats(rec *trace.Action) bool {
	return slices.ContainsFunc(v.record.Events, func(x trace.Event) bool {
		a := x.Action
		return a != nil && a != rec && a.Action == rec.Action && (a.State.Began() || a.Planned) && reflect.DeepEqual(a.Args, rec.Args)
	})
}

// openAttempt is the attempt that a step belongs to: a new one at the first step, the recorded one later.
func (v *evaluation) openAttempt(tx store.Tx, c *call, now action.Clock) (*action.Attempt, error) {
	if v.attempt != nil {
		a, err := ledger.LoadAttempt(tx, v.attempt.ID)
		if err != nil {
			return nil, err
		}
		if a.State != action.Open || a.Owner != v.e.Self {
			return nil, problem.New(problem.Internal, "attempt %s is %s and no longer ours", a.ID, a.State)
		}
		v.expectation(a, c)
		return a, nil
	}
	eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(v.rb.Name))
	if err != nil {
		return nil, err
	}
	ep, ok := eps[v.target.Key]
	if !ok || ep.ID != v.record.Episode {
		return nil, problem.New(problem.Internal, "episode %s of %s was closed while it was being acted on", v.record.Episode, v.target.Key)
	}
	a := &action.Attempt{
		V: 1, Namespace: v.e.State.Namespace, Runbook: v.rb.Name, Path: v.rb.Path, Target: v.target,
		Fleet: v.fleet.ID, Episode: ep.ID, Number: ep.Number + 1, Run: v.e.run.ID, Owner: v.e.Self, Notify: v.rb.Owner,
		Verify: v.rb.Verification(v.target, v.e.Settings.Sampling),
	}
	a.Verify.MaxAge = v.e.Settings.MaxAge
	a.ID = action.Identity{Namespace: a.Namespace, Runbook: a.Runbook, Target: a.Target.Key, Episode: a.Episode, Attempt: a.Number}.AttemptID()
	v.expectation(a, c)
	return a, a.Apply(action.AttemptEvent{To: action.Open, By: action.ByEngine, Why: "run " + v.e.run.ID}, now)
}

// expectation is what the attempt will be judged by: that of its last step.
func (v *evaluation) expectation(a *action.Attempt, c *call) {
	a.Verify.Within, a.Verify.Settle, a.Verify.Expect = c.within, c.fn.Settle, ""
	if c.expect != "" {
		e, err := v.rb.Parse(c.expect)
		if err == nil { // prepare has parsed it already
			a.Verify.Expect = e.String()
		}
	}
}

func (v *evaluation) newStep(a *action.Attempt, c *call, now action.Clock) (*action.Step, error) {
	id := action.Identity{Namespace: a.Namespace, Runbook: a.Runbook, Target: a.Target.Key, Episode: a.Episode, Attempt: a.Number, Step: len(a.Steps) + 1}
	key := id.Key()
	s := &action.Step{
		V: 1, ID: action.ShortID(key), Identity: id, Key: key, Nonce: v.e.newNonce(), Run: v.e.run.ID,
		Action: c.name, Args: c.shown, Reason: c.reason, Connection: c.conn.Name,
		Cooldown: max(c.cooldown, v.rb.Policy.Cooldown), Timeout: c.timeout, Settle: c.fn.Settle, Pos: c.pos,
		Source: v.rb.Digest, Policy: v.e.Settings.Digest, Owner: v.e.Self,
		Deadline: now.Wall.Add(c.timeout),
	}
	return s, s.Apply(action.Event{To: action.Reserved, By: action.ByEngine, Why: c.reason}, now)
}

// carryOut runs the protocol of a step that is reserved: start the plugin, record BEGUN, pass the gate, wait for the end.
func (v *evaluation) carryOut(ctx context.Context, c *call, step *action.Step, rec *trace.Action) (value.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
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
		_ = x.Decline(context.WithoutCancel(ctx), "the record could not be written")
		x.Kill()
		return nil, v.end(trace.Interrupted, err)
	}
	v.e.hook("begun")
	if err := v.pass(ctx, c, step, rec, x); err != nil {
		return nil, err
	}
	v.e.hook("acting")
	// It acts: an interrupt lets it end, and what it did is recorded. Its own timeout still holds.
	wait, done := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer done()
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

// pass takes the step through the gate: the halt sources are read again and the plugin is told to proceed while halt waits.
func (v *evaluation) pass(ctx context.Context, c *call, step *action.Step, rec *trace.Action, x pluginhost.Execution) error {
	told := false
	err := v.e.State.Pass(ctx, v.e.Env, func() error {
		told = true
		return x.Proceed(ctx)
	})
	switch {
	case err == nil:
		v.say(rec, "not halted; told to proceed; the plugin acts")
		return nil
	case told:
		x.Kill()
		return v.doubt(c, step, rec, err)
	}
	v.say(rec, "stopped at the gate: "+err.Error())
	if e := x.Decline(context.WithoutCancel(ctx), err.Error()); e != nil {
		x.Kill()
		return v.doubt(c, step, rec, e)
	}
	if e := v.move(step, rec, action.Event{To: action.NotStarted, By: action.ByPlugin, Why: "stopped at the gate: " + err.Error()}); e != nil {
		return v.end(trace.Interrupted, e)
	}
	return v.end(trace.Refused, err)
}

// doubt records that nobody knows whether the effect happened, and tells the owner.
func (v *evaluation) doubt(c *call, step *action.Step, rec *trace.Action, cause error) error {
	v.say(rec, "outcome unknown: "+cause.Error())
	if err := v.move(step, rec, action.Event{To: action.InDoubt, By: action.ByEngine, Why: cause.Error()}); err != nil {
		return v.end(trace.Interrupted, err)
	}
	// Whatever the cause is called: a plugin that was killed has failed, but nobody knows whether the action has.
	p := problem.Wrap(problem.InDoubt, cause, "%s on %s began and its outcome is unknown", c.name, v.target.Name).At(c.pos).
		WithHint("look at %s, then type: runbook resolve %s --nonce %s --as done|not-done|abandoned --reason \"...\"", v.target.Name, step.ID, step.Nonce)
	rec.Problem = p
	return v.end(trace.DoubtRemains, p)
}

// move takes a step along one arrow, durably. It outlives the run's own cancellation: an interrupted run must still record
// what it knows.
func (v *evaluation) move(step *action.Step, rec *trace.Action, ev action.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	var next *action.Step
	var attempt *action.Attempt
	keys := append([]string{ledger.KeyClock, ledger.KeyStep(step.Key), ledger.KeyAttempt(v.attempt.ID)}, ledger.PutKeys()...)
	keys = append(keys, ledger.RefundKeys(v.attempt, step)...)
	err := v.e.Store.Update(ctx, keys, func(tx store.Tx) error {
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
		if ev.To == action.Begun {
			if m, ok := tx.(store.Marker); ok {
				m.Mark()
			}
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

// refuse ends an action that did not start.
func (v *evaluation) refuse(c *call, rec *trace.Action, as trace.Outcome, err error) (value.Value, error) {
	p := v.e.asProblem(problem.Internal, err, "%s", rec.Action)
	if p.Pos.Line == 0 {
		p.Pos = rec.Pos
	}
	rec.Problem = p
	status := action.NotStarted
	if as == trace.Refused {
		rec.Refused = true
	}
	return v.notOK(c, rec, status, as, p)
}

// notOK ends the evaluation, or hands the result to a runbook that asked for it.
func (v *evaluation) notOK(c *call, rec *trace.Action, state action.StepState, as trace.Outcome, p *problem.Problem) (value.Value, error) {
	if !c.must && !always(p.Code) {
		return result(state, value.Null{}, p.Message, guard.Refused(rec.Verdicts)), nil
	}
	return nil, v.end(as, p)
}

// always are the problems that end a run whatever the runbook says.
func always(c problem.Code) bool {
	switch c {
	case problem.InDoubt, problem.Halted, problem.HaltUnsure, problem.Deadline, problem.Internal, problem.StoreDamaged, problem.StateUnusable, problem.StateMissing, problem.StoreBusy, problem.Interrupted:
		return true
	}
	return false
}

// end remembers why the engine ended the evaluation and returns the error that stops the worker.
func (v *evaluation) end(as trace.Outcome, err error) error {
	v.ended, v.endedBy = as, v.e.asProblem(problem.Internal, err, "the run could not go on")
	return v.endedBy
}

// longest is how far back the rate guard looks.
func longest(rates []guard.Rate) time.Duration {
	var d time.Duration
	for _, r := range rates {
		d = max(d, r.Per)
	}
	return d
}

func (v *evaluation) say(rec *trace.Action, what string) {
	rec.Messages = append(rec.Messages, trace.Message{At: v.e.wall(), What: what})
}

func refusedProblem(rec *trace.Action, t action.Target) *problem.Problem {
	refused := guard.Refused(rec.Verdicts)
	code := problem.Refused
	var lines []string
	for _, r := range refused {
		if r.Guard == "halt" {
			code = problem.Halted
		}
		if r.Guard == "in doubt" && code != problem.Halted {
			code = problem.InDoubt
		}
		lines = append(lines, r.Guard+": "+r.Measured+"; limit: "+r.Limit)
	}
	p := problem.New(code, "%s on %s was refused by %s", rec.Action, t.Name, guardNames(refused)).At(rec.Pos).WithDetail(lines...)
	for _, r := range refused {
		if r.Lifts != "" {
			return p.WithHint("%s", r.Lifts)
		}
	}
	return p
}

// result is what must=False hands to a runbook.
func result(state action.StepState, val value.Value, err string, refusals []guard.Verdict) value.Value {
	if val == nil {
		val = value.Null{}
	}
	list := value.List{}
	for _, r := range refusals {
		list = append(list, value.String(r.Guard))
	}
	ok := state == action.Succeeded || state == action.NoChange
	return &value.Record{Type: "result", Fields: []value.Field{
		{Name: "ok", Value: value.Bool(ok)},
		{Name: "status", Value: value.String(state)},
		{Name: "error", Value: value.String(err)},
		{Name: "value", Value: val},
		{Name: "refusals", Value: list},
	}}
}

func (e *engine) asProblem(code problem.Code, err error, format string, args ...any) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		q := *p
		return &q
	}
	return problem.Wrap(code, err, format, args...)
}
