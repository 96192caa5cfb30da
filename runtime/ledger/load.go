package ledger

import (
	"context"

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

// EndAttempt takes the attempt's arrow for the end of its evaluation and, if every step has a definite end, closes one that
// failed or was interrupted. It writes the attempt; PutKeys and StepKeys are read.
func EndAttempt(tx store.Tx, a *action.Attempt, to action.AttemptState, by, why string, now action.Clock) error {
	steps, err := LoadSteps(tx, a)
	if err != nil {
		return err
	}
	if to != "" {
		if err := a.Apply(action.AttemptEvent{To: to, By: by, Why: why, Steps: steps}, now); err != nil {
			return err
		}
	}
	if a.State == action.AttemptFailed || a.State == action.Interrupted {
		definite := true
		for _, s := range steps {
			definite = definite && s.State.Definite()
		}
		if definite {
			if err := a.Apply(action.AttemptEvent{To: action.Closed, By: by, Why: "every step has a definite end", Steps: steps}, now); err != nil {
				return err
			}
		}
	}
	return Put(tx, a, nil)
}
