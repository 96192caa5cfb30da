package ledger

import (
	"bytes"
	"context"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// ReadBreaker reads the breaker; KeyBreaker and KeyClock are read. Missing beside a clock, which every transaction writes, it was lost: open.
func ReadBreaker(tx store.ReadTx) (breaker.Doc, error) {
	b, err := tx.Get(KeyBreaker)
	if err != nil {
		return breaker.Doc{}, err
	}
	if b != nil {
		return breaker.Decode(b), nil
	}
	clock, err := tx.Get(KeyClock)
	if err != nil {
		return breaker.Doc{}, err
	}
	if clock == nil {
		return breaker.New(), nil
	}
	return breaker.Lost("its record is missing beside others"), nil
}

// TellBreaker applies events to the breaker, in the transaction that records what they are about. KeyBreaker and KeyClock are read.
func TellBreaker(tx store.Tx, now action.Clock, events ...breaker.Event) (breaker.Doc, error) {
	d, err := ReadBreaker(tx)
	if err != nil {
		return d, err
	}
	before, err := tx.Get(KeyBreaker)
	if err != nil {
		return d, err
	}
	state := d.State
	for _, e := range events {
		if d, err = d.Apply(e, now); err != nil {
			return d, err
		}
	}
	after, err := d.Encode()
	if err != nil {
		return d, err
	}
	if !bytes.Equal(before, after) {
		tx.Put(KeyBreaker, after)
	}
	if d.State != state {
		store.Mark(tx)
	}
	return d, nil
}

// moment is the time as this transaction has it already. KeyClock is read.
func moment(tx store.ReadTx) (action.Clock, error) {
	saved, err := readClock(tx)
	return saved.Clock(), err
}

// tell tells the breaker what became of an attempt and, if it is not nil, of a step of it. The caller writes the attempt, which remembers it.
func tell(tx store.Tx, a *action.Attempt, s *action.Step) error {
	var events []breaker.Event
	badly := func(what string) {
		if a.Control || a.Counted {
			return
		}
		a.Counted = true
		events = append(events, breaker.WentBadly{Attempt: a.ID, Runbook: a.Runbook, Target: a.Target.Key, What: what})
	}
	if s != nil && s.State == action.InDoubt {
		badly("in doubt")
	}
	switch a.State {
	case action.Ineffective:
		badly("ineffective")
	case action.AttemptFailed:
		badly("failed")
	case action.Interrupted:
		badly("interrupted")
	}
	if !a.State.Holds() {
		events = append(events, breaker.Ended{Attempt: a.ID, Held: a.State == action.Verified})
	}
	if events == nil {
		return nil
	}
	now, err := moment(tx)
	if err != nil {
		return err
	}
	_, err = TellBreaker(tx, now, events...)
	return err
}

// Breaker reads the breaker and the time outside a decision.
func Breaker(ctx context.Context, st store.Store, now Clock) (d breaker.Doc, at action.Clock, err error) {
	err = st.View(ctx, []string{KeyBreaker, KeyClock}, func(tx store.ReadTx) error {
		if at, err = Moment(tx, now); err != nil {
			return err
		}
		d, err = ReadBreaker(tx)
		return err
	})
	return d, at, err
}

// ChangeBreaker is a person's word about the breaker.
func ChangeBreaker(ctx context.Context, st store.Store, now Clock, e breaker.Event) (d breaker.Doc, err error) {
	err = st.Update(ctx, []string{KeyBreaker, KeyClock}, func(tx store.Tx) error {
		at, err := Tick(tx, now)
		if err != nil {
			return err
		}
		d, err = TellBreaker(tx, at, e)
		return err
	})
	return d, err
}
