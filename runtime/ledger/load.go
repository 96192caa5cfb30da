package ledger

import (
	"context"
	"slices"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// LoadAttempt reads an attempt that an index or a run names; one that is not there means that records are lost.
func LoadAttempt(tx store.ReadTx, id string) (*action.Attempt, error) {
	b, err := load(tx, KeyAttempt(id))
	if err != nil {
		return nil, err
	}
	return action.DecodeAttempt(b)
}

// LoadStep reads a step that its attempt names.
func LoadStep(tx store.ReadTx, key string) (*action.Step, error) {
	b, err := load(tx, KeyStep(key))
	if err != nil {
		return nil, err
	}
	return action.DecodeStep(b)
}

func load(tx store.ReadTx, key string) ([]byte, error) {
	b, err := tx.Get(key)
	if err == nil && b == nil {
		return nil, problem.New(problem.StoreDamaged, "record %s is named by another record and is not there", key).
			WithHint(`stop everything with: runbook halt --reason "records are missing", then look at the state directory`)
	}
	return b, err
}

// LoadSteps reads the steps of an attempt, in order. Their keys, StepKeys, are read.
func LoadSteps(tx store.ReadTx, a *action.Attempt) ([]action.Step, error) {
	out := make([]action.Step, 0, len(a.Steps))
	for _, key := range a.Steps {
		s, err := LoadStep(tx, key)
		if err != nil {
			return nil, err
		}
		out = append(out, *s)
	}
	return out, nil
}

// StepKeys are the store's keys of an attempt's steps.
func StepKeys(a *action.Attempt) []string {
	out := make([]string, len(a.Steps))
	for i, k := range a.Steps {
		out[i] = KeyStep(k)
	}
	return out
}

// Attempt reads an attempt and its steps outside a decision.
func Attempt(ctx context.Context, st store.Store, id string) (*action.Attempt, []action.Step, error) {
	var a *action.Attempt
	err := st.View(ctx, []string{KeyAttempt(id)}, func(tx store.ReadTx) (err error) {
		a, err = LoadAttempt(tx, id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var steps []action.Step
	err = st.View(ctx, StepKeys(a), func(tx store.ReadTx) (err error) {
		steps, err = LoadSteps(tx, a)
		return err
	})
	return a, steps, err
}

// nothingBegan is why an attempt is closed of which no step was let begin.
const nothingBegan = "nothing began"

// EndAttempt takes the attempt's arrow for the end of its evaluation, if to is not empty, and closes one that failed or was interrupted
// if every step has a definite end and no cleanup is to be done. An attempt of which nothing began has nothing to verify: it is closed too, and gives back its
// rate and its try. It writes the attempt; EndKeys are read.
func EndAttempt(tx store.Tx, a *action.Attempt, to action.AttemptState, by, why string, now action.Clock) error {
	steps, err := LoadSteps(tx, a)
	if err != nil {
		return err
	}
	idle := len(steps) > 0 && !slices.ContainsFunc(steps, func(s action.Step) bool { return s.State != action.NotStarted })
	if to == action.Complete && idle {
		to = action.Interrupted
	}
	if to != "" {
		if err := a.Apply(action.AttemptEvent{To: to, By: by, Why: why, Steps: steps}, now); err != nil {
			return err
		}
	}
	if !idle && (to == action.AttemptFailed || to == action.Interrupted) {
		if err := tell(tx, a, nil); err != nil { // it may be closed at once
			return err
		}
	}
	definite := !slices.ContainsFunc(steps, func(s action.Step) bool { return !s.State.Definite() })
	if definite && (idle || !a.CleansUp()) && (a.State == action.AttemptFailed || a.State == action.Interrupted) {
		why := "every step has a definite end"
		if idle {
			why = nothingBegan
			if err := refundAttempt(tx, a); err != nil {
				return err
			}
		}
		if err := a.Apply(action.AttemptEvent{To: action.Closed, By: by, Why: why, Steps: steps}, now); err != nil {
			return err
		}
	}
	if err := Put(tx, a, nil); err != nil || !idle {
		return err
	}
	return Write(tx, KeyLast(a.Target.Key), Last{ID: a.ID, State: a.State, EndedAt: a.EndedAt, Idle: true})
}

// EndKeys are the keys that EndAttempt reads, and the attempt's own.
func EndKeys(a *action.Attempt) []string {
	keys := append([]string{KeyAttempt(a.ID), KeyStarted, KeyEpisodes(a.Runbook)}, PutKeys()...)
	return append(keys, StepKeys(a)...)
}
