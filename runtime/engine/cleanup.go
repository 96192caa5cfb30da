package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// keepSource stores the files of a runbook that has a cleanup and is about to act: its cleanup goes by them, whatever becomes of the project.
// KeySource is read.
func (v *evaluation) keepSource(tx store.Tx) error {
	if !v.rb.HasCleanup {
		return nil
	}
	src, err := closure(v.files, v.rb)
	if err != nil {
		return err
	}
	return ledger.KeepSource(tx, v.rb.Digest, src, v.e.run.Started)
}

// keepSource has the files of a runbook that is evaluated stored with the trace of the run, so that it can be decided again.
func (e *engine) keepSource(rb *project.Runbook) error {
	src, err := closure(e.files, rb)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sources[rb.Digest] = src
	return nil
}

// closure is a runbook with all that it loads.
func closure(files sandbox.Source, rb *project.Runbook) (*ledger.Source, error) {
	src := &ledger.Source{Path: rb.Path, Files: map[string]string{}}
	for _, f := range rb.Closure {
		text, err := files.Read(f.Path)
		if err != nil {
			return nil, err
		}
		src.Files[f.Path] = string(text)
	}
	return src, nil
}

// cleanups evaluates cleanup(ctx) of every attempt that waits for it and whose owner is no longer at work. What cannot be cleaned up keeps its target,
// and other targets are not kept.
func (e *engine) cleanups(ctx context.Context) error {
	open, err := e.openAttempts(ctx)
	if err != nil {
		return err
	}
	for _, o := range open {
		if o.State != action.AttemptFailed && o.State != action.Interrupted || o.Owner != e.Self && !e.gone(o.Owner, o.Since) {
			continue
		}
		err := e.cleanup(ctx, o.ID)
		if errors.Is(err, store.ErrUnknown) {
			return fmt.Errorf("clean up attempt %s: %w", o.ID, err) // where nobody knows what the store holds, nothing may act
		}
		if err != nil {
			e.problem(e.asProblem(problem.Internal, err, "clean up attempt %s", o.ID))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// ready says whether an attempt's cleanup is to be evaluated now.
func ready(a *action.Attempt, steps []action.Step) bool {
	return a.Cleanup != nil && a.Cleanup.State == action.CleanupWaits && (a.State == action.AttemptFailed || a.State == action.Interrupted) &&
		action.Began(steps) && !slices.ContainsFunc(steps, func(s action.Step) bool { return !s.State.Definite() })
}

// cleanup evaluates cleanup(ctx) of one attempt, if it is ready for that. It is evaluated by the files that the attempt was made by, and
// under the controls and the policy that there are now.
func (e *engine) cleanup(ctx context.Context, id string) error {
	a, steps, err := ledger.Attempt(ctx, e.Store, id)
	if err != nil || !ready(a, steps) || len(e.State.Check(e.Env)) > 0 {
		return err // halted, it is looked at again by the next run
	}
	if a, steps, err = e.claimCleanup(ctx, a); err != nil || a == nil {
		return err
	}
	v := &evaluation{
		e: e, target: a.Target, attempt: a, cleaning: true,
		// How wide the problem is was judged when the attempt began; what matters now is the one target.
		fleet:  guard.FleetView{ID: a.Fleet, Members: []string{a.Target.Key}, Sick: []string{a.Target.Key}},
		record: &trace.Evaluation{Episode: a.Episode, Number: a.Number, Attempt: a.ID},
		cleaned: &trace.Cleanup{
			Attempt: a.ID, Runbook: a.Runbook, Path: a.Path, Target: a.Target.Key, State: action.CleanupRuns, Why: lastWhy(a),
			Name: a.Target.Name, Labels: a.Target.Labels, Digest: a.Source, Steps: doneSteps(steps),
		},
	}
	v.cleaned.Evaluation = v.record
	e.mu.Lock()
	e.run.Cleanups = append(e.run.Cleanups, v.cleaned)
	e.mu.Unlock()
	var res sandbox.Result
	w, err := v.loadKept(ctx, a)
	if err == nil {
		defer w.Close()
		v.cleaned.Params = v.rb.Params
		e.prestartFor(v.rb, v.target)
		res, err = w.Evaluate(ctx, a.Path, "cleanup", v.rb.Vocabulary, v.files, sandbox.Context{
			Now: e.run.Started, Target: contextTarget(a.Target), Params: v.rb.Params, Attempt: a.Number, Steps: v.cleaned.Steps,
		}, v)
	}
	v.record.Events = weave(v.record.Events, res.Events)
	v.record.Dropped, v.record.Steps = res.Dropped, res.Steps
	v.conclude(ctx, res, err)
	return v.settleCleanup()
}

// lastWhy is why an attempt ended early.
func lastWhy(a *action.Attempt) string {
	for _, h := range slices.Backward(a.History) {
		if h.To == string(action.AttemptFailed) || h.To == string(action.Interrupted) {
			return h.Why
		}
	}
	return string(a.State)
}

// claimCleanup makes the attempt ours; nil if it is no longer to be had.
func (e *engine) claimCleanup(ctx context.Context, a *action.Attempt) (mine *action.Attempt, steps []action.Step, err error) {
	keys := append([]string{ledger.KeyAttempt(a.ID)}, ledger.PutKeys()...)
	keys = append(keys, ledger.StepKeys(a)...)
	err = e.Store.Update(ctx, keys, func(tx store.Tx) error {
		mine = nil
		if _, err := ledger.Tick(tx, e.Sample); err != nil {
			return err
		}
		cur, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil {
			return err
		}
		if len(cur.Steps) != len(a.Steps) || cur.Owner != a.Owner {
			return nil // somebody else has just taken it
		}
		if steps, err = ledger.LoadSteps(tx, cur); err != nil || !ready(cur, steps) {
			return err
		}
		cur.Cleanup.State, cur.Cleanup.From, cur.Cleanup.Run, cur.Owner = action.CleanupRuns, len(cur.Steps), e.run.ID, e.Self
		mine = cur
		return ledger.Put(tx, cur, nil)
	})
	return mine, steps, err
}

// loadKept loads the runbook from the files that were kept with the attempt.
func (v *evaluation) loadKept(ctx context.Context, a *action.Attempt) (sandbox.Worker, error) {
	src, err := ledger.LoadSource(ctx, v.e.Store, a.Source)
	if err != nil {
		return nil, err
	}
	if src == nil {
		return nil, problem.New(problem.StoreDamaged, "the files of attempt %s are not there", a.ID).WithHint("runbook doctor")
	}
	v.files = src
	w, err := v.e.Spawn(ctx)
	if err != nil {
		return nil, err
	}
	if v.rb, err = project.LoadRunbook(ctx, w, src, v.e.Settings, a.Path, project.RunbookVocabulary(v.e.Families)); err != nil {
		w.Close()
		return nil, err
	}
	if v.e.Adjust != nil {
		v.e.Adjust(v.rb)
	}
	v.trb = &trace.Runbook{Name: v.rb.Name, Path: v.rb.Path}
	return w, nil
}

// doneSteps are ctx.steps: what the attempt did, in order.
func doneSteps(steps []action.Step) value.List {
	out := make(value.List, 0, len(steps))
	for _, s := range steps {
		message := ""
		if s.Outcome != nil {
			message = s.Outcome.Message
		}
		out = append(out, &value.Record{Type: "step", Fields: []value.Field{
			{Name: "action", Value: value.String(s.Action)},
			{Name: "args", Value: s.Args},
			{Name: "ok", Value: value.Bool(s.State.Done())},
			{Name: "began", Value: value.Bool(s.State.Began())},
			{Name: "status", Value: value.String(s.State)},
			{Name: "message", Value: value.String(message)},
		}})
	}
	return out
}

// settleCleanup records how a cleanup ended and tells the owner what a person has to do.
func (v *evaluation) settleCleanup() error {
	to, n := v.cleanupEnd()
	keys := append([]string{ledger.KeyClock}, ledger.EndKeys(v.attempt)...)
	if n != nil {
		keys = append(keys, notify.Keys(*n)...)
	}
	err := v.e.insist(keys, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, v.e.Sample)
		if err != nil {
			return err
		}
		a, err := ledger.LoadAttempt(tx, v.attempt.ID)
		if err != nil {
			return err
		}
		if a.Cleanup == nil || a.Cleanup.State != action.CleanupRuns || a.Owner != v.e.Self {
			return nil // recovery has taken it over
		}
		a.Cleanup.State, a.Cleanup.Why = to, string(v.record.Outcome)
		if v.record.Reason != "" {
			a.Cleanup.Why += ": " + v.record.Reason
		}
		if err := ledger.EndAttempt(tx, a, "", action.ByEngine, "cleaned up", now); err != nil {
			return err
		}
		v.record.State = a.State
		if n != nil {
			return notify.Put(tx, *n, now.Wall)
		}
		return nil
	})
	v.cleaned.State = to
	return err
}

// cleanupEnd says what became of a cleanup, and what the owner must be told.
func (v *evaluation) cleanupEnd() (action.CleanupState, *notify.Notice) {
	r := v.record
	n := &notify.Notice{
		Runbook: v.attempt.Runbook, Target: v.target.Key, Episode: r.Episode, Owner: v.attempt.Notify, Run: v.e.run.ID, At: v.e.wall(), Kind: notify.Escalation,
	}
	what := fmt.Sprintf("attempt %s on %s ended early (%s); its cleanup", v.attempt.ID, v.target.Name, v.cleaned.Why)
	switch {
	case r.Outcome == trace.Acted || r.Outcome == trace.Nothing:
		return action.CleanupDone, nil
	case r.Outcome == trace.Escalated:
		n.Reason, n.Text = "cleanup escalates "+v.attempt.ID, what+" calls for a person: "+r.Reason+v.done()
		return action.CleanupDone, n
	case !began(r) && (r.Outcome == trace.Refused || r.Outcome == trace.Interrupted):
		if r.Outcome == trace.Interrupted {
			return action.CleanupWaits, nil // whoever ended the run knows; the next one tries again
		}
		n.Reason, n.Text = "cleanup refused "+v.attempt.ID, what+" was refused, and is tried again by every run: "+r.Reason
		return action.CleanupWaits, v.hinted(n)
	}
	n.Reason = "cleanup failed " + v.attempt.ID
	n.Text = fmt.Sprintf("%s did not end well: %s%s\nput %s right, then type: runbook resolve %s --as closed --reason \"...\"", what, r.Reason, v.done(), v.target.Name, v.attempt.ID)
	if v.doubtful != "" {
		n.Reason = doubtReason(v.doubtful)
	}
	return action.CleanupFailed, v.hinted(n)
}

// recoverCleanup says what becomes of a cleanup whose process has ended: one that began to act is left to a person, any other is tried again.
func recoverCleanup(a *action.Attempt, steps []action.Step) {
	if a.Cleanup == nil || a.Cleanup.State != action.CleanupRuns {
		return
	}
	a.Cleanup.State, a.Cleanup.Why = action.CleanupWaits, "its run ended before it began to act"
	if from := min(a.Cleanup.From, len(steps)); action.Began(steps[from:]) {
		a.Cleanup.State, a.Cleanup.Why = action.CleanupFailed, "its run ended in the middle of it"
	}
}

// doneLines is what an attempt did, one line for each step.
func doneLines(steps []action.Step) string {
	lines := make([]string, len(steps))
	for i, s := range steps {
		lines[i] = fmt.Sprintf("%s %s: %s", s.ID, s.Action, s.State)
	}
	return strings.Join(lines, "; ")
}
