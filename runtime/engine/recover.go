package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// recover brings the records of dead processes to an end: what was reserved never started, what had begun is in doubt. It is
// the first thing of every run, whatever runbooks the run is about.
func (e *engine) recover(ctx context.Context) error {
	open, err := e.openAttempts(ctx)
	if err != nil {
		return err
	}
	for _, o := range open {
		if (o.State == action.Open || o.State == action.Interrupted || o.State == action.AttemptFailed) && e.gone(o.Owner, o.Since) {
			left, err := e.recoverAttempt(ctx, o.ID)
			if err != nil {
				return fmt.Errorf("recover attempt %s: %w", o.ID, err)
			}
			if left != nil {
				e.problem(left)
			}
		}
	}
	return nil
}

// mayLive says whether an owner may still be at work.
func (e *engine) mayLive(o action.Owner) bool { return e.Look(o) != process.Dead }

// gone says whether the owner of an attempt is certainly not at work on it any more. One that cannot be seen from here,
// in another container under this kernel, is so once its run must have ended, with a margin.
func (e *engine) gone(o action.Owner, since action.Clock) bool {
	switch e.Look(o) {
	case process.Dead:
		return true
	case process.Unseen:
		return e.wall().Sub(since.Wall) > e.Settings.Deadline+unseenMargin
	}
	return false
}

// unseenMargin is for a run that ends late.
const unseenMargin = 10 * time.Minute

func (e *engine) openAttempts(ctx context.Context) ([]ledger.Open, error) {
	var open []ledger.Open
	err := e.Store.View(ctx, []string{ledger.KeyOpen}, func(tx store.ReadTx) (err error) {
		open, err = ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
		return err
	})
	return open, err
}

// recoverAttempt ends the child processes that a dead owner left, then settles its steps and the attempt. left is why an attempt stays as
// it is: what it left running does not end. Its target is kept until it does, and other targets are not.
func (e *engine) recoverAttempt(ctx context.Context, id string) (left *problem.Problem, err error) {
	a, steps, err := ledger.Attempt(ctx, e.Store, id)
	if err != nil {
		return nil, err
	}
	cleaning := a.Cleanup != nil && a.Cleanup.State == action.CleanupRuns
	if a.State != action.Open && !cleaning && !slices.ContainsFunc(steps, func(s action.Step) bool { return s.State == action.Reserved || s.State == action.Begun }) {
		return nil, nil // it waits for a person
	}
	for _, s := range steps {
		// Of an owner that cannot be seen from here the pids mean nothing here.
		if s.State == action.Begun && s.Child.PID != 0 && s.Owner.Boot == e.Self.Boot && e.Look(s.Owner) == process.Dead {
			if err := e.KillGroup(s.Child); err != nil {
				p := e.asProblem(problem.Internal, err, "end it")
				p.Message = fmt.Sprintf("what %s (%s on %s) left running: %s", s.ID, s.Action, a.Target.Name, p.Message)
				return p, nil
			}
		}
	}
	var done []trace.Recovered
	keys := append([]string{ledger.KeyClock}, ledger.EndKeys(a)...)
	for i := range steps {
		keys = append(keys, ledger.RefundKeys(a, &steps[i])...)
	}
	n := notify.Notice{
		Runbook: a.Runbook, Target: a.Target.Key, Episode: a.Episode, Owner: a.Notify, Run: e.run.ID, At: e.wall(),
		Kind: notify.Escalation, Reason: "interrupted",
	}
	for _, s := range steps {
		if s.State == action.Begun {
			n.Reason = doubtReason(s.ID)
		}
	}
	keys = append(keys, notify.Keys(n)...)
	err = e.Store.Update(ctx, keys, func(tx store.Tx) error {
		done = nil
		now, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		a, err := ledger.LoadAttempt(tx, id)
		if err != nil {
			return err
		}
		if !e.gone(a.Owner, a.OpenedAt) {
			return nil
		}
		was := a.State
		var after []action.Step
		for _, key := range a.Steps {
			s, err := ledger.LoadStep(tx, key)
			if err != nil {
				return err
			}
			ev := action.Event{}
			switch s.State {
			case action.Reserved:
				ev = action.Event{To: action.NotStarted, By: action.ByRecovery, Why: "its run ended before the action began"}
			case action.Begun:
				ev = action.Event{To: action.InDoubt, By: action.ByRecovery, Why: "its run ended after the action had begun, before its outcome was known"}
			}
			if ev.To != "" {
				if err := s.Apply(ev, now); err != nil {
					return err
				}
				if err := ledger.SettleStep(tx, a, s); err != nil {
					return err
				}
				done = append(done, trace.Recovered{Attempt: a.ID, Step: s.ID, Action: s.Action, Target: s.Identity.Target, Runbook: s.Identity.Runbook, To: s.State, Why: ev.Why})
			}
			after = append(after, *s)
		}
		recoverCleanup(a, after)
		to := action.AttemptState("")
		if was == action.Open {
			to = action.Interrupted
		}
		if err := ledger.EndAttempt(tx, a, to, action.ByRecovery, fmt.Sprintf("its run (pid %d) ended before the evaluation did", a.Owner.PID), now); err != nil {
			return err
		}
		if was == action.Open {
			n.Text = fmt.Sprintf("the run that was acting on %s ended in the middle (killed, or the machine went down); what it did: %s", a.Target.Name, doneLines(after))
			return notify.Put(tx, n, now.Wall)
		}
		if cleaning && a.Cleanup.State == action.CleanupFailed {
			n.Text = fmt.Sprintf("the run that was cleaning up %s ended in the middle (killed, or the machine went down); what was done: %s\nput it right, then type: runbook resolve %s --as closed --reason \"...\"",
				a.Target.Name, doneLines(after), a.ID)
			return notify.Put(tx, n, now.Wall)
		}
		return nil
	})
	if err == nil {
		e.run.Recovered = append(e.run.Recovered, done...)
	}
	return nil, err
}

// doubtReason is what makes the notice about an action in doubt one of its own: each is told, however many there are of an episode.
func doubtReason(id string) string { return "in doubt: " + id }

// doubts fills in what is in doubt when the run ends, whoever began it, and where the breaker stands.
func (e *engine) doubts(ctx context.Context) error {
	return e.Store.View(ctx, []string{ledger.KeyClock, ledger.KeyDoubt, ledger.KeyBreaker}, func(tx store.ReadTx) (err error) {
		if e.broken, err = ledger.ReadBreaker(tx); err != nil {
			return err
		}
		e.run.Breaker = ""
		if e.broken.State != breaker.Closed {
			e.run.Breaker = e.broken.String()
		}
		docs, err := ledger.Read[[]ledger.Doubt](tx, ledger.KeyDoubt)
		e.doubtful, e.run.InDoubt = docs, nil
		for _, d := range docs {
			e.run.InDoubt = append(e.run.InDoubt, trace.Doubt{Step: d.ID, Action: d.Action, Target: d.Target, Runbook: d.Runbook, Since: d.Since.Wall, Nonce: d.Nonce})
		}
		return err
	})
}
