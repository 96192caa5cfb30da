package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/tested"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// evaluation is one call of run(ctx) for one sick target, and the attempt that it opens with its first action.
// It implements kit.Caller: everything that the worker asks for goes through it.
type evaluation struct {
	e      *engine
	rb     *project.Runbook
	trb    *trace.Runbook
	target action.Target
	fleet  guard.FleetView
	record *trace.Evaluation
	// severity is that of the problem: what the runbook says, or its alert.
	severity guard.Severity

	files sandbox.Source // what the runbook was loaded from
	// cleaning says that this is cleanup(ctx) of the attempt, and cleaned is its trace.
	cleaning bool
	cleaned  *trace.Cleanup

	kept     int             // bytes of answers
	branches []sandbox.Event // seen until now
	lost     bool            // and there were more

	attempt *action.Attempt
	oldest  time.Time // of the samples that the runbook has read
	acted   bool
	failed  bool

	// foreseen are the steps of a dry evaluation, from the first that only the mode refused on; planned is that refusal.
	foreseen []guard.Foreseen
	bound    string
	planned  *problem.Problem
	request  *guard.Approval // that was asked, or is the same as one that was

	refusing map[string]time.Duration // how long each guard that refused the first step has done so

	doubtful string // the step that is in doubt
	killed   bool   // and a halt is set: a person may have ended it

	ended   trace.Outcome // why the engine ended the evaluation, if it did
	endedBy *problem.Problem
}

var _ sandbox.Watcher = (*evaluation)(nil)

// Saw implements sandbox.Watcher.
func (v *evaluation) Saw(events []sandbox.Event, lost bool) {
	v.branches, v.lost = append(v.branches, events...), v.lost || lost
}

// way is how the evaluation came to the action that is asked for now.
func (v *evaluation) way(c *call) tested.Way {
	w := tested.Way{Branches: v.branches, Lost: v.lost, Pos: c.pos, Action: c.name, First: v.attempt == nil}
	for _, x := range v.record.Events[:max(0, len(v.record.Events)-1)] {
		if a := x.Action; a != nil {
			w.Done = append(w.Done, tested.Done{Pos: a.Pos, Action: a.Action, OK: a.State.Done() || a.Planned || v.foreseen != nil})
		}
	}
	return w
}

// Call implements kit.Caller. The worker is hostile: the function is looked up and the arguments are checked again.
func (v *evaluation) Call(ctx context.Context, req kit.Request) (value.Value, error) {
	if v.ended != "" {
		return nil, v.endedBy
	}
	fam, fn, err := kit.Find(v.e.Families, req.Family, req.Function)
	if err != nil {
		return nil, v.end(trace.Failed, err)
	}
	args, err := kit.Check(fn, req.Args)
	if err != nil {
		return nil, v.end(trace.Failed, at(err, req.Pos))
	}
	if err := ctx.Err(); err != nil {
		return nil, v.end(trace.Interrupted, v.e.interrupted(err))
	}
	if fn.Kind == kit.Action || fn.Kind == "" {
		val, err := v.act(ctx, req, fn.Params, args)
		if err == nil {
			v.record.Events[len(v.record.Events)-1].Action.Value = v.keep(val)
		}
		return val, err
	}
	q := &trace.Query{Function: req.Family + "." + req.Function, At: v.e.run.Started, Pos: req.Pos, Args: hideSecrets(value.Map(args), fn.Params)}
	v.record.Events = append(v.record.Events, trace.Event{Query: q})
	var val value.Value
	if fn.Call != nil && fn.Kind != kit.Analysis {
		val, err = fn.Call(ctx, asker{v, q}, args)
	} else if fn.Kind == kit.Analysis {
		val, err = v.analyse(ctx, fam, fn, args, q)
	} else {
		val, err = v.pluginQuery(ctx, fam, fn, args, q)
	}
	if err != nil {
		q.Error = err.Error()
		return nil, v.end(trace.Failed, at(err, req.Pos))
	}
	if q.Answer == "" {
		q.Answer = renderValue(val)
	}
	q.Value = v.keep(val)
	return val, nil
}

// What is kept of the answers that one evaluation got, in bytes: as much as a decision needs to be made again, and no copy of the data that a
// query has aggregated badly.
const (
	keptAnswer  = 16 << 10
	keptAnswers = 128 << 10
)

// keep is an answer as the trace has it, nil if it is too long.
func (v *evaluation) keep(val value.Value) json.RawMessage {
	b, err := value.Marshal(val)
	if err != nil || len(b) > keptAnswer || v.kept+len(b) > keptAnswers {
		return nil
	}
	v.kept += len(b)
	return b
}

func (v *evaluation) pluginQuery(ctx context.Context, fam kit.Family, fn kit.Function, args kit.Args, q *trace.Query) (value.Value, error) {
	conn, err := v.e.Settings.ConnectionFor(fam.Name, v.target.Labels)
	if err != nil {
		return nil, err
	}
	c, err := v.e.connection(conn)
	if err != nil {
		return nil, err
	}
	return v.query(ctx, c, fn.Name, args, q)
}

func (v *evaluation) sawSample(at time.Time) {
	if v.oldest.IsZero() || at.Before(v.oldest) {
		v.oldest = at
	}
}

// evaluate runs the runbook for one target in w and settles what came of it. It calls leave as soon as nothing else is going to be evaluated there.
func (e *engine) evaluate(ctx context.Context, w sandbox.Worker, leave func(), rb *project.Runbook, trb *trace.Runbook, s seen, fleet guard.FleetView) error {
	v := &evaluation{e: e, rb: rb, trb: trb, files: e.files, target: s.target, fleet: fleet, severity: severityOf(rb, s.trace), record: &trace.Evaluation{}}
	v.target.Labels = s.target.Labels
	v.sawSample(s.trace.MeasuredAt)
	s.trace.Evaluation = v.record
	skip, err := v.open(ctx)
	if err != nil || skip {
		return err
	}
	e.prestartFor(rb, v.target)
	if err := e.keepSource(rb); err != nil {
		return err
	}
	res, err := w.Evaluate(ctx, rb.Path, "run", rb.Vocabulary, e.files, sandbox.Context{
		Now: e.run.Started, Target: contextTarget(v.target), Params: rb.Params, Attempt: v.record.Number,
	}, v)
	v.record.Events = weave(v.record.Events, res.Events)
	v.record.Dropped, v.record.Steps = res.Dropped, res.Steps
	v.conclude(ctx, res, err)
	if began(v.record) {
		leave()
	}
	if err := v.settle(); err != nil {
		return err
	}
	if v.attempt != nil && ctx.Err() == nil {
		if err := e.cleanup(ctx, v.attempt.ID); err != nil {
			return err
		}
	}
	return v.tellRefusing(ctx)
}

// refusedFor is how long a guard may refuse a sick target without a break before somebody is told that it does: a disable that was forgotten, a
// lock that nobody holds any more.
const refusedFor = 24 * time.Hour

// tellRefusing tells the owner of each guard that has refused for a day, whatever else they were told.
func (v *evaluation) tellRefusing(ctx context.Context) error {
	if v.e.dry {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(v.refusing)) {
		if v.refusing[name] < refusedFor {
			continue
		}
		n := notify.Notice{
			Runbook: v.rb.Name, Target: v.target.Key, Episode: v.record.Episode, Owner: v.rb.Owner, Run: v.e.run.ID, At: v.e.wall(),
			Kind: notify.Escalation, Reason: "refused for a day by " + name,
		}
		for _, x := range guard.Refused(firstVerdicts(v.record)) {
			if x.Guard == name {
				n.Text = fmt.Sprintf("%s is sick, and %s has refused to let anything be done for %s: %s", v.target.Name, name, value.FormatDuration(v.refusing[name].Truncate(time.Hour)), x)
			}
		}
		if err := v.e.tell(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// open finds or opens the episode, and says whether the target is left alone this time.
func (v *evaluation) open(ctx context.Context) (skip bool, err error) {
	fn := func(tx store.ReadTx, now action.Clock) (ledger.Episode, error) {
		ep, ok, err := ledger.EpisodeOf(tx, v.rb.Name, v.target.Key)
		if err != nil {
			return ep, err
		}
		if !ok {
			ep = ledger.Episode{ID: now.Wall.UTC().Format("20060102-150405-") + suffix(), OpenedAt: now}
		}
		ep.SickAt, ep.SeenAt, ep.Healthy = now, now, 0
		v.record.Episode, v.record.Number = ep.ID, ep.Begun+1
		st, err := ledger.GuardState(tx, now, v.e.mayLive, v.rb.Name, "", v.target.Key)
		if err != nil {
			return ep, err
		}
		skip = false
		for _, d := range st.InDoubt {
			if d.Target == v.target.Key {
				skip = true
				v.record.Outcome = trace.Skipped
				v.record.Reason = "action " + d.ID + " (" + d.Action + ") on this target is in doubt; a person must resolve it"
			}
		}
		settling, _ := guard.Named("settling")
		if verdict := settling.Check(guard.Input{Now: now, Policy: v.rb.Policy.WithDefaults(), State: st, Request: guard.Request{Target: v.target, OldestRead: v.oldest}}); !skip && !verdict.Passed {
			skip = true
			v.record.Outcome, v.record.Reason = trace.Skipped, "settling: "+verdict.Measured
		}
		return ep, nil
	}
	keys := ledger.DecisionKeys(v.rb.Name, "", v.target.Key)
	if v.e.dry {
		err = v.e.Store.View(ctx, keys, func(tx store.ReadTx) error {
			now, err := ledger.Moment(tx, v.e.Sample)
			if err != nil {
				return err
			}
			_, err = fn(tx, now)
			return err
		})
		return skip, err
	}
	err = v.e.Store.Update(ctx, keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		ep, err := fn(tx, now)
		if err != nil {
			return err
		}
		return ledger.PutEpisode(tx, v.rb.Name, v.target.Key, ep)
	})
	return skip, err
}

// conclude names the outcome of an evaluation from what the worker and the engine say.
func (v *evaluation) conclude(ctx context.Context, res sandbox.Result, err error) {
	r := v.record
	switch {
	case v.planned != nil && v.ended != trace.Interrupted:
		// What came after it was not done either way, and is no failure.
		r.Outcome, r.Problem, r.Reason = trace.Refused, v.planned, v.planned.Message
	case v.ended != "":
		r.Outcome, r.Problem = v.ended, v.endedBy
		if v.ended == trace.Failed && ctx.Err() != nil {
			r.Outcome, r.Problem = trace.Interrupted, v.e.ending(ctx.Err(), v.endedBy, "")
		}
		r.Reason = r.Problem.Message
	case err != nil && ctx.Err() != nil:
		r.Outcome, r.Problem = trace.Interrupted, v.e.interrupted(ctx.Err())
		r.Reason = r.Problem.Message
	case err != nil:
		path := "the runbook"
		if v.rb != nil {
			path = v.rb.Path
		}
		r.Outcome, r.Problem = trace.Failed, v.e.asProblem(problem.Script, err, "%s", path)
		r.Reason = r.Problem.Message
	default:
		concludeScript(r, res, v.acted)
		if r.Outcome == trace.Nothing && r.Reason == "" && v.e.dry {
			r.Reason = "dry run: nothing was done"
		}
	}
}

// concludeScript names the outcome of an evaluation that came to its end, from what it returned.
func concludeScript(r *trace.Evaluation, res sandbox.Result, acted bool) {
	switch {
	case res.Outcome != nil && res.Outcome.Type == "escalate":
		r.Outcome, r.Reason = trace.Escalated, fieldText(res.Outcome, "reason")
	case res.Outcome != nil && res.Outcome.Type == "nothing":
		r.Outcome, r.Reason = trace.Nothing, fieldText(res.Outcome, "reason")
	case res.Outcome != nil:
		r.Outcome = trace.Failed
		r.Problem = problem.New(problem.Script, "run returned %s", res.Outcome.Type).At(res.Outcome.Pos).WithHint("return escalate(reason) or nothing(reason), or let run end")
		r.Reason = r.Problem.Message
	case acted:
		r.Outcome = trace.Acted
	default:
		r.Outcome = trace.Nothing
	}
}

// settle brings the attempt to its next state and tells whoever must know, in one transaction. It is not cancelled with
// the run.
func (v *evaluation) settle() error {
	if v.e.dry {
		return nil
	}
	if err := v.ask(); err != nil {
		return err
	}
	notice := v.explained(v.notice())
	if v.attempt == nil && notice == nil {
		return nil
	}
	keys := []string{ledger.KeyClock}
	if v.attempt != nil {
		keys = append(keys, ledger.EndKeys(v.attempt)...)
	}
	if notice != nil {
		keys = append(keys, notify.Keys(*notice)...)
	}
	return v.e.insist(keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		if v.attempt != nil {
			a, err := ledger.LoadAttempt(tx, v.attempt.ID)
			if err != nil {
				return err
			}
			if err := v.settleAttempt(tx, a, now); err != nil {
				return err
			}
			v.record.State = a.State
		}
		if notice != nil {
			return notify.Put(tx, *notice, now.Wall)
		}
		return nil
	})
}

// settleAttempt takes the attempt's arrow for how the evaluation ended.
func (v *evaluation) settleAttempt(tx store.Tx, a *action.Attempt, now action.Clock) error {
	if a.State != action.Open {
		return nil // recovery has taken it over
	}
	a.Control = a.Control || v.record.Problem != nil && v.byControl()
	to, why := action.Complete, "the evaluation ended: "+string(v.record.Outcome)
	switch v.record.Outcome {
	case trace.Failed, trace.Refused:
		to = action.Interrupted
		if v.failed || v.record.Outcome == trace.Refused && !v.byControl() {
			to = action.AttemptFailed
		}
		why = v.record.Reason
	case trace.DoubtRemains, trace.Interrupted:
		to, why = action.Interrupted, v.record.Reason
	}
	return ledger.EndAttempt(tx, a, to, action.ByEngine, why, now)
}

// byControl says whether a person's halt or disable ended the evaluation.
func (v *evaluation) byControl() bool {
	return v.record.Problem.Code == problem.Halted ||
		slices.ContainsFunc(guard.Refused(lastVerdicts(v.record)), func(x guard.Verdict) bool { return x.Guard == "disabled" })
}

// weave puts the worker's branches and the engine's queries and actions into one order: the worker marks where it called.
func weave(calls []trace.Event, seen []sandbox.Event) []trace.Event {
	out := make([]trace.Event, 0, len(calls)+len(seen))
	for i := range seen {
		if seen[i].Kind != "call" {
			out = append(out, trace.Event{Branch: &seen[i]})
			continue
		}
		if len(calls) > 0 {
			out, calls = append(out, calls[0]), calls[1:]
		}
	}
	return append(out, calls...)
}

func contextTarget(t action.Target) value.Dict {
	return value.Dict{
		{Key: value.String("name"), Value: value.String(t.Name)},
		{Key: value.String("key"), Value: value.String(t.Key)},
		{Key: value.String("labels"), Value: value.Strings(t.Labels)},
	}
}
