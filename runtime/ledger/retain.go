package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Kept counts what is on record.
type Kept struct {
	Attempts int `json:"attempts"`
}

// A run forgets at most so much, so that none is held up by what many have left.
const (
	forgetRuns = 20
	lookAtRuns = 200
)

// Forget removes the oldest traces, of runs that began before the horizon, with the attempts and steps that they made: at most 20 of them at a
// time, and none of which an attempt still holds its target or an action is not settled. What decisions read besides the open ones (cooldowns,
// rates, episodes) is kept in documents of its own and is not touched, so that no decision changes. It returns how many attempts were forgotten.
//
// No identity is used twice by that: an episode's name is never given again, and its numbers are in the episode.
func Forget(ctx context.Context, st interface {
	store.Store
	store.Scanner
}, now Clock, horizon time.Time,
) (int, error) {
	var old []*trace.Run
	seen := 0
	var bad error
	end := KeyRun(horizon.UTC().Format("20060102-150405"))
	err := st.Scan(ctx, KeyRun(""), false, func(key string, val []byte) bool {
		if seen++; key >= end || seen > lookAtRuns || len(old) == lookAtRuns {
			return false
		}
		var r *trace.Run
		if r, bad = trace.Decode(val); bad != nil {
			return false
		}
		old = append(old, r)
		return true
	})
	if err != nil || bad != nil {
		return 0, err
	}
	attempts, runs := 0, 0
	for _, r := range old {
		n, gone, err := forgetRun(ctx, st, now, r, horizon)
		if err != nil {
			return attempts, err
		}
		attempts += n
		if gone {
			if runs++; runs == forgetRuns {
				break
			}
		}
	}
	return attempts, nil
}

// forgetRun removes one trace and what it made, if all of that has come to an end.
func forgetRun(ctx context.Context, st store.Store, now Clock, r *trace.Run, horizon time.Time) (attempts int, gone bool, err error) {
	var made []*action.Attempt
	keys := []string{KeyClock, KeyKept, KeyRun(r.ID)}
	for _, id := range attemptsOf(r) {
		var a *action.Attempt
		err := st.View(ctx, []string{KeyAttempt(id)}, func(tx store.ReadTx) error {
			b, err := tx.Get(KeyAttempt(id))
			if err != nil || b == nil {
				return err // it was forgotten with another run
			}
			a, err = action.DecodeAttempt(b)
			return err
		})
		if err != nil {
			return 0, false, err
		}
		if a == nil {
			continue
		}
		made = append(made, a)
		keys = append(append(keys, KeyAttempt(id)), StepKeys(a)...)
	}
	err = st.Update(ctx, keys, func(tx store.Tx) error {
		attempts, gone = 0, false
		if err := Believed(tx, now); err != nil {
			return err // by a clock that may be wrong nothing is old
		}
		if _, err := Tick(tx, now); err != nil {
			return err
		}
		for _, was := range made {
			a, err := LoadAttempt(tx, was.ID)
			if err != nil {
				return err
			}
			steps, err := LoadSteps(tx, a)
			if err != nil {
				return err
			}
			if a.State.Holds() || len(a.Steps) != len(was.Steps) || a.EndedAt.Wall.After(horizon) ||
				slices.ContainsFunc(steps, func(s action.Step) bool { return !s.State.Settled() || s.EndedAt.Wall.After(horizon) }) {
				return nil
			}
		}
		kept, err := Read[Kept](tx, KeyKept)
		if err != nil {
			return err
		}
		for _, a := range made {
			tx.Delete(KeyAttempt(a.ID))
			for _, key := range StepKeys(a) {
				tx.Delete(key)
			}
			attempts++
		}
		kept.Attempts = max(0, kept.Attempts-attempts)
		if attempts > 0 {
			if err := Write(tx, KeyKept, kept); err != nil {
				return err
			}
		}
		tx.Delete(KeyRun(r.ID))
		gone = true
		return nil
	})
	return attempts, gone, err
}

// attemptsOf are the attempts that a run began.
func attemptsOf(r *trace.Run) []string {
	var out []string
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if t.Evaluation != nil && t.Evaluation.Attempt != "" {
				out = append(out, t.Evaluation.Attempt)
			}
		}
	}
	return out
}
