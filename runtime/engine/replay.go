package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Replay is what deciding a recorded run again needs: no store, no plugin and no clock.
type Replay struct {
	Spawn    func(ctx context.Context) (sandbox.Worker, error)
	Families []kit.Family
	// Source hands out the files by which a runbook is evaluated again, for its path and the digest of what it was evaluated by.
	Source func(ctx context.Context, path, digest string) (sandbox.Source, error)
	// Changed says that those are other files: then what was decided is compared, and not every step on the way.
	Changed bool
}

// Decided is one evaluation of a recorded run, decided again.
type Decided struct {
	Runbook string `json:"runbook"`
	Target  string `json:"target"`
	Cleanup bool   `json:"cleanup,omitempty"`
	Same    bool   `json:"same"`
	// Difference names what is not the same. Was and Is are that as it was and as it is now, or the outcome if nothing differs.
	Difference string `json:"difference,omitempty"`
	Was        string `json:"was,omitempty"`
	Is         string `json:"is,omitempty"`
	// Unknown says why it could not be decided again.
	Unknown string            `json:"unknown,omitempty"`
	Before  *trace.Evaluation `json:"-"`
	Now     *trace.Evaluation `json:"now,omitempty"`
}

// Run decides every evaluation of a recorded run again. Queries and actions are answered from the record, and so is what the guards said.
func (p Replay) Run(ctx context.Context, r *trace.Run) ([]Decided, error) {
	out := []Decided{}
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Evaluation == nil || t.Evaluation.Outcome == trace.Skipped || t.Evaluation.Outcome == "" {
				continue // nothing was evaluated
			}
			target := value.Dict{
				{Key: value.String("name"), Value: value.String(t.Name)},
				{Key: value.String("key"), Value: value.String(t.Key)},
				{Key: value.String("labels"), Value: value.Strings(t.Labels)},
			}
			d, err := p.decide(ctx, rb.Path, rb.Digest, "run", t.Evaluation, sandbox.Context{
				Now: r.Started, Target: target, Params: rb.Params, Attempt: t.Evaluation.Number,
			})
			if err != nil {
				return nil, err
			}
			d.Runbook, d.Target = rb.Name, t.Key
			out = append(out, d)
		}
	}
	for _, c := range r.Cleanups {
		target := value.Dict{
			{Key: value.String("name"), Value: value.String(c.Name)},
			{Key: value.String("key"), Value: value.String(c.Target)},
			{Key: value.String("labels"), Value: value.Strings(c.Labels)},
		}
		d, err := p.decide(ctx, c.Path, c.Digest, "cleanup", c.Evaluation, sandbox.Context{
			Now: r.Started, Target: target, Params: c.Params, Attempt: c.Evaluation.Number, Steps: c.Steps,
		})
		if err != nil {
			return nil, err
		}
		d.Runbook, d.Target, d.Cleanup = c.Runbook, c.Target, true
		out = append(out, d)
	}
	return out, nil
}

// decide evaluates once and compares. An error is one of asking, such as a worker that cannot be had.
func (p Replay) decide(ctx context.Context, path, digest, fn string, was *trace.Evaluation, c sandbox.Context) (Decided, error) {
	d := Decided{Before: was}
	src, err := p.Source(ctx, path, digest)
	if err != nil {
		d.Unknown = err.Error()
		return d, nil //nolint:nilerr // it is told
	}
	w, err := p.Spawn(ctx)
	if err != nil {
		return d, err
	}
	defer w.Close()
	f := &fromRecord{families: p.Families, was: was, changed: p.Changed}
	for _, e := range was.Events {
		if e.Branch == nil {
			f.left = append(f.left, e)
		}
	}
	res, err := w.Evaluate(ctx, path, fn, project.RunbookVocabulary(p.Families), src, c, f)
	if err := ctx.Err(); err != nil {
		return d, err
	}
	if f.unknown != "" {
		d.Unknown = f.unknown
		return d, nil
	}
	d.Now = &trace.Evaluation{Number: was.Number, Episode: was.Episode, Attempt: was.Attempt, State: was.State, Events: weave(f.events, res.Events), Dropped: res.Dropped, Steps: res.Steps}
	f.conclude(d.Now, res, err)
	if p.Changed {
		d.compareDecisions()
	} else {
		d.compareWays()
	}
	return d, nil
}

// fromRecord answers what a runbook asks for with what it was answered before.
type fromRecord struct {
	families []kit.Family
	was      *trace.Evaluation
	changed  bool
	left     []trace.Event // of the record: calls that were not asked for yet
	events   []trace.Event
	ended    bool // where the recorded evaluation was ended by the engine
	planned  bool // what follows was only planned
	acted    bool
	unknown  string
	problem  *problem.Problem
}

var errReplay = errors.New("the replay ends here")

// Call implements kit.Caller.
func (f *fromRecord) Call(_ context.Context, req kit.Request) (value.Value, error) {
	if f.ended || f.unknown != "" {
		return nil, errReplay
	}
	_, fn, err := kit.Find(f.families, req.Family, req.Function)
	var args kit.Args
	if err == nil {
		args, err = kit.Check(fn, req.Args)
		err = at(err, req.Pos)
	}
	if err != nil {
		f.ended = true
		f.problem, _ = errors.AsType[*problem.Problem](err)
		return nil, err
	}
	name := req.Family + "." + req.Function
	action := fn.Kind == kit.Action || fn.Kind == ""
	shown := hideSecrets(value.Map(args), fn.Params)
	if action {
		shown = hideSecrets(ownArgs(fn.Params, args), fn.Params)
	}
	e, ok := f.next(name, action, shown)
	switch {
	case !ok && action && f.changed:
		// Nobody knows what the guards would have said: it is shown as planned, and goes on as if it had worked.
		f.planned = true
		f.events = append(f.events, trace.Event{Action: &trace.Action{Action: name, Args: shown, Reason: text(args["reason"]), Pos: req.Pos, Planned: true}})
		return result("succeeded", value.Null{}, "", nil), nil
	case !ok && f.changed:
		f.unknown = fmt.Sprintf("%s asks for %s, which the recorded run did not ask for: there is no answer to it", req.Pos, name)
		return nil, errReplay
	case !ok:
		f.ended = true
		f.events = append(f.events, trace.Event{Query: &trace.Query{Function: name, Args: shown, Pos: req.Pos, Error: "not in the record"}})
		return nil, errReplay
	case e.Query != nil:
		q := *e.Query
		q.Pos = req.Pos
		f.events = append(f.events, trace.Event{Query: &q})
		return f.answer(name, q.Value, q.Error != "")
	default:
		a := *e.Action
		a.Pos, a.Reason = req.Pos, text(args["reason"])
		f.events = append(f.events, trace.Event{Action: &a})
		f.planned = f.planned || a.Planned || a.Refused && workedOut(a.Value)
		f.acted = f.acted || a.State.Done()
		return f.answer(name, a.Value, f.endedBy(e))
	}
}

// answer is what was answered; ended says that it ended the evaluation instead.
func (f *fromRecord) answer(name string, raw json.RawMessage, ended bool) (value.Value, error) {
	switch {
	case raw != nil:
		return value.Unmarshal(raw)
	case ended:
		f.ended = true
		return nil, errReplay
	}
	f.unknown = "what " + name + " answered is not in the record; what is longer than 16 KiB is not kept"
	return nil, errReplay
}

// workedOut says whether a runbook was told that an action worked. It is told so of one that was only planned.
func workedOut(raw json.RawMessage) bool {
	v, err := value.Unmarshal(raw)
	r, ok := v.(*value.Record)
	if err != nil || !ok {
		return false
	}
	return slices.ContainsFunc(r.Fields, func(f value.Field) bool { return f.Name == "ok" && f.Value == value.Bool(true) })
}

// endedBy says whether the recorded evaluation was ended by the engine's word at e.
func (f *fromRecord) endedBy(e trace.Event) bool {
	return f.was.Problem != nil && f.was.Events[len(f.was.Events)-1] == e
}

// next takes the recorded call that this one is. The same source asks for the same in the same order; a changed one may leave some out, or ask in
// another order.
func (f *fromRecord) next(name string, action bool, args value.Dict) (trace.Event, bool) {
	for i, e := range f.left {
		switch {
		case action && e.Action != nil && e.Action.Action == name && same(e.Action.Args, args),
			!action && e.Query != nil && e.Query.Function == name && same(e.Query.Args, args):
			if f.changed && !action {
				return e, true // it may be asked again
			}
			f.left = append(f.left[:i:i], f.left[i+1:]...)
			return e, true
		}
		if !f.changed {
			break
		}
	}
	return trace.Event{}, false
}

func same(a, b value.Dict) bool {
	x, xerr := value.Marshal(a)
	y, yerr := value.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}

// conclude names the outcome as evaluation.conclude does. What the engine ended, it ended again.
func (f *fromRecord) conclude(r *trace.Evaluation, res sandbox.Result, err error) {
	was := f.was
	switch {
	case f.problem != nil:
		r.Outcome, r.Problem, r.Reason = trace.Failed, f.problem, f.problem.Message
	case f.planned && f.changed && was.Outcome != trace.Refused:
		r.Outcome, r.Reason = trace.Acted, "it would ask for what the recorded run did not"
	case f.ended, f.planned, was.Outcome == trace.Interrupted && err == nil && len(f.left) == 0:
		r.Outcome, r.Problem, r.Reason = was.Outcome, was.Problem, was.Reason
	case err != nil:
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok {
			p = problem.Wrap(problem.Script, err, "the runbook")
		}
		r.Outcome, r.Problem, r.Reason = trace.Failed, p, p.Message
	default:
		concludeScript(r, res, f.acted)
	}
}

// compareWays compares every step on the way, byte for byte, and the outcome.
func (d *Decided) compareWays() {
	was, is := way(d.Before), way(d.Now)
	for i := range max(len(was), len(is)) {
		a, b := "nothing more", "nothing more"
		if i < len(was) {
			a = was[i]
		}
		if i < len(is) {
			b = is[i]
		}
		if a != b {
			d.differs(fmt.Sprintf("step %d of the way", i+1), a, b)
			return
		}
	}
	d.compareOutcome()
}

// compareDecisions compares what was asked to be done, in order, and the outcome.
func (d *Decided) compareDecisions() {
	was, is := actions(d.Before), actions(d.Now)
	if was != is {
		d.differs("what it asks to be done", was, is)
		return
	}
	d.compareOutcome()
}

func (d *Decided) compareOutcome() {
	was, is := outcome(d.Before), outcome(d.Now)
	if was != is {
		d.differs("the outcome", was, is)
		return
	}
	d.Same, d.Was, d.Is = true, was, is
}

func (d *Decided) differs(what, was, is string) { d.Difference, d.Was, d.Is = what, was, is }

// way is each branch and call as a line, without what is of the moment: how long it took, and what became of an action.
func way(ev *trace.Evaluation) []string {
	var out []string
	for _, e := range ev.Events {
		var shown any = e.Branch
		switch {
		case e.Query != nil:
			shown = struct {
				Pos                     value.Pos
				Function, Answer, Error string
				Args                    value.Dict
			}{e.Query.Pos, e.Query.Function, e.Query.Answer, e.Query.Error, e.Query.Args}
		case e.Action != nil:
			shown = struct {
				Pos            value.Pos
				Action, Reason string
				Args           value.Dict
			}{e.Action.Pos, e.Action.Action, e.Action.Reason, e.Action.Args}
		}
		b, err := json.Marshal(shown)
		if err != nil {
			b = []byte(err.Error())
		}
		out = append(out, string(b))
	}
	return out
}

// actions are what an evaluation asked for, in order.
func actions(ev *trace.Evaluation) string {
	var b bytes.Buffer
	for _, e := range ev.Events {
		if a := e.Action; a != nil {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s%s", a.Action, renderValue(a.Args))
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func outcome(ev *trace.Evaluation) string {
	text := strings.ReplaceAll(string(ev.Outcome), "_", " ")
	if ev.Reason != "" {
		text += ": " + ev.Reason
	}
	if ev.Problem != nil {
		text += " (" + strings.TrimSuffix(string(ev.Problem.Code)+" at "+ev.Problem.Pos.String(), " at ") + ")"
	}
	return text
}
