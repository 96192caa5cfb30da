package ledger

import (
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Put writes a step and its attempt and keeps the indexes in line with their states.
func Put(tx store.Tx, a *action.Attempt, s *action.Step) error {
	if s != nil {
		b, err := s.Encode()
		if err != nil {
			return err
		}
		tx.Put(KeyStep(s.Key), b)
		doubts, err := Read[[]Doubt](tx, KeyDoubt)
		if err != nil {
			return err
		}
		doubts = slices.DeleteFunc(doubts, func(d Doubt) bool { return d.Key == s.Key })
		if s.State == action.InDoubt {
			doubts = append(doubts, Doubt{
				Key: s.Key, ID: s.ID, Action: s.Action, Target: s.Identity.Target, Runbook: s.Identity.Runbook, Nonce: s.Nonce, Since: s.BegunAt,
				Episode: a.Episode, Notify: a.Notify,
			})
		}
		if err := Write(tx, KeyDoubt, doubts); err != nil {
			return err
		}
	}
	if err := tell(tx, a, s); err != nil {
		return err
	}
	b, err := a.Encode()
	if err != nil {
		return err
	}
	tx.Put(KeyAttempt(a.ID), b)
	open, err := Read[[]Open](tx, KeyOpen)
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(o Open) bool { return o.ID == a.ID })
	if a.State.Holds() {
		open = append(open, Open{ID: a.ID, Runbook: a.Runbook, Target: a.Target.Key, Fleet: a.Fleet, State: a.State, Since: a.OpenedAt, Owner: a.Owner})
	}
	if err := Write(tx, KeyOpen, open); err != nil {
		return err
	}
	last := Last{ID: a.ID, State: a.State, EndedAt: a.EndedAt, Verifies: a.State == action.Complete}
	if last.Verifies {
		last.Due = a.EndedAt.Wall.Add(a.Verify.Within)
	}
	return Write(tx, KeyLast(a.Target.Key), last)
}

// PutKeys are the keys that Put reads.
func PutKeys() []string { return []string{KeyClock, KeyDoubt, KeyOpen, KeyBreaker} }

// startedFor is how long a start is kept at least: a policy whose windows become longer must find what happened before.
const startedFor = 24 * time.Hour

// Reserve books and writes a step that every guard has let pass in this transaction. If it is the first of its attempt it becomes the
// canary of a breaker that tries, and uses up the approval of that binding if it needs one. DecisionKeys and PutKeys are read.
func Reserve(tx store.Tx, a *action.Attempt, s *action.Step, policy guard.Policy, approval string, now action.Clock) error {
	first := len(a.Steps) == 1
	var window time.Duration // that the rates look back
	for _, r := range policy.Rates {
		window = max(window, r.Per)
	}
	if err := Charge(tx, a, s, first, now, window); err != nil {
		return err
	}
	if first {
		kept, err := Read[Kept](tx, KeyKept)
		if err != nil {
			return err
		}
		kept.Attempts++
		if err := Write(tx, KeyKept, kept); err != nil {
			return err
		}
		if _, err := TellBreaker(tx, now, breaker.Began{Attempt: a.ID}); err != nil {
			return err
		}
		if approval != "" {
			if err := Consume(tx, now, approval, a.ID); err != nil {
				return err
			}
		}
	}
	return Put(tx, a, s)
}

// Charge books a step: its cooldown and, for the first of an attempt, the attempt's rate and its try in the episode. window is the longest
// that the rates look back. DecisionKeys are read.
func Charge(tx store.Tx, a *action.Attempt, s *action.Step, first bool, now action.Clock, window time.Duration) error {
	cool, err := Read[*Cool](tx, KeyCool(s.Action, a.Target.Key))
	if err != nil {
		return err
	}
	if cool != nil {
		cool.Before = nil // one level is enough: only the last start can turn out not to have happened
	}
	next := &Cool{StartedAt: now, For: s.Cooldown, Runbook: a.Runbook, Step: s.Key, Attempt: a.ID, Before: cool}
	if err := Write(tx, KeyCool(s.Action, a.Target.Key), next); err != nil {
		return err
	}
	cooling, err := Read[[]Cooling](tx, KeyCooling)
	if err != nil {
		return err
	}
	cooling = slices.DeleteFunc(cooling, func(c Cooling) bool { return now.Trusted >= c.At.Trusted+c.For })
	cooling = append(cooling, Cooling{Target: a.Target.Key, Step: s.Key, At: now, For: s.Cooldown})
	if err := Write(tx, KeyCooling, cooling); err != nil {
		return err
	}
	if !first {
		return nil
	}
	started, err := ReadStarted(tx)
	if err != nil {
		return err
	}
	started = slices.DeleteFunc(started, func(d Started) bool { return now.Trusted-d.At.Trusted > max(window, startedFor) })
	if err := writeStarted(tx, append(started, Started{Attempt: a.ID, At: now})); err != nil {
		return err
	}
	ep, ok, err := EpisodeOf(tx, a.Runbook, a.Target.Key)
	if err != nil {
		return err
	}
	if !ok || ep.ID != a.Episode || ep.Number >= a.Number {
		return problem.New(problem.Internal, "attempt %d of episode %s of %s cannot be booked: the episode is not the one that it was", a.Number, a.Episode, a.Target.Key)
	}
	ep.Begun++
	ep.Number = a.Number
	return PutEpisode(tx, a.Runbook, a.Target.Key, ep)
}

// refund gives back the cooldown of a step that certainly never started.
func refund(tx store.Tx, a *action.Attempt, s *action.Step) error {
	key := KeyCool(s.Action, a.Target.Key)
	cool, err := Read[*Cool](tx, key)
	if err != nil {
		return err
	}
	if cool != nil && cool.Step == s.Key {
		if cool.Before == nil {
			tx.Delete(key)
		} else if err := Write(tx, key, cool.Before); err != nil {
			return err
		}
	}
	cooling, err := Read[[]Cooling](tx, KeyCooling)
	if err != nil {
		return err
	}
	return Write(tx, KeyCooling, slices.DeleteFunc(cooling, func(c Cooling) bool { return c.Step == s.Key }))
}

// refundAttempt gives back the rate and the try of an attempt that ends without any of its steps having begun. Not earlier: as long
// as it is open another step of it may begin.
func refundAttempt(tx store.Tx, a *action.Attempt) error {
	started, err := ReadStarted(tx)
	if err != nil {
		return err
	}
	if err := writeStarted(tx, slices.DeleteFunc(started, func(d Started) bool { return d.Attempt == a.ID })); err != nil {
		return err
	}
	ep, ok, err := EpisodeOf(tx, a.Runbook, a.Target.Key)
	if err != nil {
		return err
	}
	if !ok || ep.ID != a.Episode || ep.Begun < 1 {
		return nil // the episode has ended
	}
	ep.Begun--
	return PutEpisode(tx, a.Runbook, a.Target.Key, ep)
}

// RefundKeys are the keys that SettleStep reads besides PutKeys.
func RefundKeys(a *action.Attempt, s *action.Step) []string {
	return []string{KeyCool(s.Action, a.Target.Key), KeyCooling}
}

// SettleStep writes a step that has moved along one arrow with its attempt, giving back the cooldown of one that never started.
func SettleStep(tx store.Tx, a *action.Attempt, s *action.Step) error {
	if s.State == action.NotStarted {
		if err := refund(tx, a, s); err != nil {
			return err
		}
	}
	return Put(tx, a, s)
}

// PutLate writes a step that has kept a late outcome. Its attempt may be over and others have followed: nothing else changes, but that the breaker
// opens if the outcome contradicts the record. KeyBreaker and KeyClock are read.
func PutLate(tx store.Tx, s *action.Step) error {
	b, err := s.Encode()
	if err != nil {
		return err
	}
	tx.Put(KeyStep(s.Key), b)
	if !s.LateContradicts() {
		return nil
	}
	now, err := moment(tx)
	if err != nil {
		return err
	}
	_, err = TellBreaker(tx, now, breaker.Contradicted{
		Attempt: s.Identity.AttemptID(), Runbook: s.Identity.Runbook, Target: s.Identity.Target,
		What: "the record of " + s.ID + " says " + string(s.State) + ", and what came late " + string(s.Late[len(s.Late)-1].State),
	})
	return err
}
