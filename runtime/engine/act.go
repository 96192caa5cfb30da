package engine

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
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
		return v.refuse(c, rec, outcomeOf(err), err)
	}
	if v.e.dry || v.foreseen != nil {
		rec.Planned = true
		if v.foreseen != nil && guard.Foresees(rec.Verdicts) {
			rec.Refused = false // the first step has said so
		}
		v.foresee(c, rec)
		return result(action.Succeeded, value.Null{}, "", nil), nil // a plan shows every step, as if each one worked
	}
	if step == nil {
		if guard.Foresees(rec.Verdicts) && v.attempt == nil {
			// All else would let it act: the rest is evaluated dry, so that whoever is asked, or told, sees all of it.
			v.planned = refusedProblem(rec, v.target)
			v.foresee(c, rec)
			return result(action.Succeeded, value.Null{}, "", nil), nil
		}
		return v.refuse(c, rec, trace.Refused, refusedProblem(rec, v.target))
	}
	return v.carryOut(ctx, c, step, rec)
}

// prepare takes the call apart and finds out where it would act.
func (v *evaluation) prepare(ctx context.Context, req kit.Request, params []kit.Param, args kit.Args, rec *trace.Action) (*call, error) {
	c := &call{name: rec.Action, plugin: req.Family, pos: req.Pos, must: true}
	c.args = ownArgs(params, args)
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
	if c.expect == "" && v.rb.Targets.Sick.Left == nil {
		return c, problem.New(problem.Argument, "%s needs expect: nothing else says afterwards whether it helped", c.name).At(req.Pos).
			WithHint("add expect = \"PromQL that holds when the action helped\", or say in targets what is sick")
	}
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
	return c, v.fits(c)
}

// ownArgs are the arguments that are the plugin's, without those of every action.
func ownArgs(params []kit.Param, args kit.Args) value.Dict {
	own := map[string]value.Value{}
	for _, p := range params {
		if a, ok := args[p.Name]; ok {
			own[p.Name] = a
		}
	}
	for _, p := range kit.ReservedActionParams() {
		delete(own, p.Name)
	}
	return value.Map(own)
}

// fits refuses an action that could take longer than what is left of the run.
func (v *evaluation) fits(c *call) error {
	if left := v.e.deadline.Sub(v.e.wall()); left < c.timeout {
		return problem.New(problem.Deadline, "%s may take %s, but the run ends in %s", c.name, value.FormatDuration(c.timeout), left.Round(time.Second)).At(c.pos).
			WithHint("give the run more time with project(deadline=), or the action a shorter timeout")
	}
	return nil
}

// outcomeOf says how an evaluation ended because of an error before anything was decided.
func outcomeOf(err error) trace.Outcome {
	if p, ok := errors.AsType[*problem.Problem](err); ok && (p.Code == problem.Refused || p.Code == problem.Deadline) {
		return trace.Refused
	}
	return trace.Failed
}

// reserve asks all guards and records the step, in one transaction. It returns nil if a guard refused. In a dry run
// it asks and records nothing.
func (v *evaluation) reserve(ctx context.Context, c *call, rec *trace.Action) (*action.Step, error) {
	halt := v.e.State.Check(v.e.Env)
	first := v.attempt == nil
	var step *action.Step
	var attempt *action.Attempt
	policy := v.rb.Policy.WithDefaults()
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
		if st.Deploy, err = ledger.LastDeploy(tx, v.target.Labels[policy.Component], now.Wall); err != nil {
			return err
		}
		if first {
			if st.Approval, err = ledger.Bound(tx, v.binding(c)); err != nil {
				return err
			}
		}
		if v.e.dry { // which has not recorded the episode that it would open
			st.Episode = guard.EpisodeState{ID: v.record.Episode, Attempts: v.record.Number - 1}
		}
		in := guard.Input{Now: now, Policy: v.rb.Policy, State: st, Request: guard.Request{
			Runbook: v.rb.Name, Target: v.target, Fleet: v.fleet, Episode: v.record.Episode, Action: c.name,
			Cooldown: c.cooldown, Severity: v.severity, OldestRead: v.oldest, Repeats: v.repeats(rec), Cleanup: v.cleaning,
		}}
		if !first {
			in.Attempt = v.attempt.ID
		}
		if v.e.Coverage != nil && !policy.Untested {
			in.Coverage = v.e.Coverage(v.rb, v.way(c))
		}
		rec.Verdicts = guard.Evaluate(in)
		if len(guard.Refused(rec.Verdicts)) > 0 {
			rec.Refused = true
		}
		return nil
	}
	if v.e.dry || v.foreseen != nil {
		keys := ledger.DecisionKeys(v.rb.Name, c.name, v.target.Key)
		return nil, v.e.Store.View(ctx, keys, func(tx store.ReadTx) error {
			now, err := ledger.Moment(tx, v.e.Sample)
			if err != nil {
				return err
			}
			return decide(tx, now)
		})
	}
	keys := append(ledger.DecisionKeys(v.rb.Name, c.name, v.target.Key), ledger.KeyRun(v.e.run.ID))
	keys = append(keys, ledger.PutKeys()...)
	if first {
		keys = append(keys, ledger.KeySource(v.rb.Digest))
	} else {
		keys = append(keys, ledger.KeyAttempt(v.attempt.ID))
	}
	err := v.e.Store.Update(ctx, keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		// What has happened is judged under the policy as it is now, also if this is refused.
		if _, err := ledger.TellBreaker(tx, now, breaker.Judged{Policy: policy.Breaker}); err != nil {
			return err
		}
		if err := decide(tx, now); err != nil {
			return err
		}
		if first {
			if v.refusing, err = ledger.Refusing(tx, v.rb.Name, v.target.Key, rec.Verdicts, now); err != nil {
				return err
			}
		}
		if rec.Refused {
			return nil
		}
		if err := v.fits(c); err != nil { // again: the store may have been waited for
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
		approval := ""
		if policy.Mode == guard.Approve {
			approval = v.binding(c)
		}
		if first {
			if err := v.keepSource(tx); err != nil {
				return err
			}
		}
		if err := ledger.Reserve(tx, attempt, step, policy, approval, now); err != nil {
			return err
		}
		rec.State = step.State
		v.record.Attempt = attempt.ID
		return v.saveTrace(tx)
	})
	if err != nil || step == nil {
		rec.ID, rec.State = "", ""
		if first {
			v.record.Attempt = ""
		}
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
		ours := a.State == action.Open
		if v.cleaning {
			ours = a.Cleanup != nil && a.Cleanup.State == action.CleanupRuns
		}
		if !ours || a.Owner != v.e.Self {
			return nil, problem.New(problem.Internal, "attempt %s is %s and no longer ours", a.ID, a.State)
		}
		if !v.cleaning {
			v.expectation(a, c)
		}
		return a, nil
	}
	ep, ok, err := ledger.EpisodeOf(tx, v.rb.Name, v.target.Key)
	if err != nil {
		return nil, err
	}
	if !ok || ep.ID != v.record.Episode {
		return nil, problem.New(problem.Internal, "episode %s of %s was closed while it was being acted on", v.record.Episode, v.target.Key)
	}
	a := &action.Attempt{
		V: 1, Namespace: v.e.State.Namespace, Runbook: v.rb.Name, Path: v.rb.Path, Target: v.target,
		Fleet: v.fleet.ID, Episode: ep.ID, Number: ep.Number + 1, Run: v.e.run.ID, Owner: v.e.Self, Notify: v.rb.Owner, Source: v.rb.Digest,
		Verify: v.rb.Verification(v.target, v.e.Settings.Sampling),
	}
	if v.rb.HasCleanup {
		a.Cleanup = &action.Cleanup{State: action.CleanupWaits}
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
		Cooldown: max(c.cooldown, v.rb.Policy.WithDefaults().Cooldown), Timeout: c.timeout, Settle: c.fn.Settle, Pos: c.pos,
		Source: v.rb.Digest, Policy: v.e.Settings.Digest, Owner: v.e.Self,
		Deadline: now.Wall.Add(c.timeout), Cleanup: v.cleaning,
	}
	return s, s.Apply(action.Event{To: action.Reserved, By: action.ByEngine, Why: c.reason}, now)
}

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
