package ledger

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Records is a store whose records can be listed.
type Records interface {
	store.Store
	store.Scanner
}

// Runs lists the traces of runs that started at a time or later and that keep says yes to, the newest first, at most limit. A nil keep says yes.
func Runs(ctx context.Context, st store.Scanner, limit int, since time.Time, keep func(*trace.Run) bool) ([]*trace.Run, error) {
	var out []*trace.Run
	var bad error
	err := st.Scan(ctx, "run/", true, func(_ string, val []byte) bool {
		var r *trace.Run
		if r, bad = trace.Decode(val); bad != nil || r.Started.Before(since) {
			return false
		}
		if keep == nil || keep(r) {
			out = append(out, r)
		}
		return len(out) < limit
	})
	return out, errors.Join(err, bad)
}

// Run finds one trace by its id, by the start of it, or "last".
func Run(ctx context.Context, st store.Scanner, id string) (*trace.Run, error) {
	prefix := "run/" + id
	if id == "last" {
		prefix = "run/"
	}
	var found []*trace.Run
	var bad error
	err := st.Scan(ctx, prefix, true, func(_ string, val []byte) bool {
		var r *trace.Run
		if r, bad = trace.Decode(val); bad != nil {
			return false
		}
		found = append(found, r)
		return r.ID != id && id != "last" && len(found) < 2
	})
	switch {
	case err != nil || bad != nil:
		return nil, errors.Join(err, bad)
	case len(found) == 0:
		return nil, problem.New(problem.NotFound, "there is no run %q", id).WithHint("list them with: runbook runs")
	case len(found) > 1 && found[len(found)-1].ID != id:
		return nil, problem.New(problem.NotFound, "several runs begin with %q", id).WithHint("give more of the id; list them with: runbook runs")
	}
	return found[len(found)-1], nil
}

// Steps lists the records of actions that keep says yes to, the newest first, at most limit.
func Steps(ctx context.Context, st store.Scanner, limit int, keep func(*action.Step) bool) ([]*action.Step, error) {
	var out []*action.Step
	var bad error
	err := st.Scan(ctx, "step/", false, func(_ string, val []byte) bool {
		var s *action.Step
		if s, bad = action.DecodeStep(val); bad != nil {
			return false
		}
		if keep == nil || keep(s) {
			out = append(out, s)
		}
		return true
	})
	sortNewest(out)
	if len(out) > limit {
		out = out[:limit]
	}
	return out, errors.Join(err, bad)
}

// Step finds one action by its id or the start of it.
func Step(ctx context.Context, st store.Scanner, id string) (*action.Step, error) {
	id = strings.ToLower(id)
	var found []*action.Step
	var bad error
	err := st.Scan(ctx, "step/"+id, false, func(_ string, val []byte) bool {
		var s *action.Step
		if s, bad = action.DecodeStep(val); bad != nil {
			return false
		}
		found = append(found, s)
		return len(found) < 2
	})
	switch {
	case err != nil || bad != nil:
		return nil, errors.Join(err, bad)
	case id == "" || len(found) == 0:
		return nil, problem.New(problem.NotFound, "there is no action %q", id).WithHint("list them with: runbook actions")
	case len(found) > 1:
		return nil, problem.New(problem.NotFound, "several actions begin with %q", id).WithHint("give more of the id; list them with: runbook actions")
	}
	return found[0], nil
}

// Status is what a person needs to know first.
type Status struct {
	Open    []Open       `json:"open"`
	InDoubt []Doubt      `json:"in_doubt"`
	Cooling []Cooling    `json:"cooling"`
	Started []Started    `json:"started"`
	Now     action.Clock `json:"now"`
}

// ReadStatus reads it in one snapshot.
func ReadStatus(ctx context.Context, st store.Store, now Clock) (Status, error) {
	var s Status
	err := st.View(ctx, []string{KeyClock, KeyOpen, KeyDoubt, KeyCooling, KeyStarted}, func(tx store.ReadTx) (err error) {
		if s.Now, err = Moment(tx, now); err != nil {
			return err
		}
		if s.Open, err = Read[[]Open](tx, KeyOpen); err != nil {
			return err
		}
		if s.InDoubt, err = Read[[]Doubt](tx, KeyDoubt); err != nil {
			return err
		}
		if s.Started, err = ReadStarted(tx); err != nil {
			return err
		}
		cooling, err := Read[[]Cooling](tx, KeyCooling)
		for _, c := range cooling {
			if s.Now.Trusted < c.At.Trusted+c.For {
				s.Cooling = append(s.Cooling, c)
			}
		}
		return err
	})
	return s, err
}

// Resolve records what a person or a probe found out about an action in doubt, and closes its attempt if nothing else of it is open.
// The nonce is that of the record, so that nobody resolves something else than what they looked at.
func Resolve(ctx context.Context, st store.Store, now Clock, s *action.Step, ev action.Event) (*action.Step, *action.Attempt, error) {
	id := s.Identity.AttemptID()
	a, _, err := Attempt(ctx, st, id)
	if err != nil {
		return nil, nil, err
	}
	keys := append([]string{KeyClock, KeyStep(s.Key)}, EndKeys(a)...)
	keys = append(keys, RefundKeys(a, s)...)
	var step *action.Step
	err = st.Update(ctx, keys, func(tx store.Tx) error {
		at, err := Tick(tx, now)
		if err != nil {
			return err
		}
		if step, err = LoadStep(tx, s.Key); err != nil {
			return err
		}
		if a, err = LoadAttempt(tx, id); err != nil {
			return err
		}
		if err := step.Apply(ev, at); err != nil {
			return err
		}
		store.Mark(tx)
		if step.State != ev.To {
			return PutLate(tx, step)
		}
		if err := SettleStep(tx, a, step); err != nil {
			return err
		}
		// The person has decided about the action; that its attempt is over by that, the engine concludes.
		return EndAttempt(tx, a, "", action.ByEngine, "", at)
	})
	return step, a, err
}

// CloseAttempt records that a person has put right what an attempt with an abandoned action left behind.
func CloseAttempt(ctx context.Context, st store.Store, now Clock, id, person, why string) (*action.Attempt, error) {
	a, _, err := Attempt(ctx, st, id)
	if err != nil {
		return nil, err
	}
	keys := append([]string{KeyClock, KeyAttempt(id)}, PutKeys()...)
	err = st.Update(ctx, append(keys, StepKeys(a)...), func(tx store.Tx) error {
		at, err := Tick(tx, now)
		if err != nil {
			return err
		}
		if a, err = LoadAttempt(tx, id); err != nil {
			return err
		}
		steps, err := LoadSteps(tx, a)
		if err != nil {
			return err
		}
		if err := a.Apply(action.AttemptEvent{To: action.Closed, By: action.ByPerson, Why: why, Person: person, Steps: steps}, at); err != nil {
			return err
		}
		store.Mark(tx)
		return Put(tx, a, nil)
	})
	return a, err
}

func sortNewest(steps []*action.Step) {
	slices.SortFunc(steps, func(a, b *action.Step) int { return b.ReservedAt.Wall.Compare(a.ReservedAt.Wall) })
}
