package ledger

import (
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// GuardState reads what the guards look at for one request; DecisionKeys are read. Halt is the caller's to fill in.
func GuardState(tx store.ReadTx, now action.Clock, alive func(action.Owner) bool, runbook, act, target string) (guard.State, error) {
	var s guard.State
	open, err := Read[[]Open](tx, KeyOpen)
	if err != nil {
		return s, err
	}
	for _, o := range open {
		s.Open = append(s.Open, guard.OpenAttempt{
			ID: o.ID, Runbook: o.Runbook, Target: o.Target, Fleet: o.Fleet, State: o.State, Since: o.Since,
			OwnerAlive: alive(o.Owner),
		})
	}
	doubts, err := Read[[]Doubt](tx, KeyDoubt)
	if err != nil {
		return s, err
	}
	for _, d := range doubts {
		s.InDoubt = append(s.InDoubt, guard.DoubtfulStep{ID: d.ID, Action: d.Action, Target: d.Target, Runbook: d.Runbook, Since: d.Since})
	}
	cool, err := Read[*Cool](tx, KeyCool(act, target))
	if err != nil {
		return s, err
	}
	if cool != nil {
		s.Cooldown = guard.Cooldown{StartedAt: cool.StartedAt, For: cool.For, Runbook: cool.Runbook, Step: cool.Step, Attempt: cool.Attempt}
	}
	if s.Started, err = ReadStarted(tx); err != nil {
		return s, err
	}
	cooling, err := Read[[]Cooling](tx, KeyCooling)
	if err != nil {
		return s, err
	}
	for _, c := range cooling {
		if now.Trusted < c.At.Trusted+c.For {
			s.Cooling = append(s.Cooling, c.Target)
		}
	}
	last, err := Read[*Last](tx, KeyLast(target))
	if err != nil {
		return s, err
	}
	if last != nil && !last.Idle {
		s.Last = &guard.LastAttempt{ID: last.ID, State: last.State, EndedAt: last.EndedAt, Verifies: last.Verifies, Due: last.Due}
	}
	if ep, ok, err := EpisodeOf(tx, runbook, target); err != nil {
		return s, err
	} else if ok {
		s.Episode = guard.EpisodeState{ID: ep.ID, Attempts: ep.Begun}
	}
	controls, err := ReadControls(tx)
	if err != nil {
		return s, err
	}
	if s.Breaker, err = ReadBreaker(tx); err != nil {
		return s, err
	}
	kept, err := Read[Kept](tx, KeyKept)
	if err != nil {
		return s, err
	}
	s.Kept = kept.Attempts
	s.Disables, s.Windows = controls.Disables, controls.Windows
	return s, nil
}

// DecisionKeys are the keys that GuardState reads.
func DecisionKeys(runbook, act, target string) []string {
	return []string{KeyClock, KeyOpen, KeyDoubt, KeyStarted, KeyCooling, KeyCool(act, target), KeyLast(target), KeyEpisodes(runbook), KeyControls, KeyBreaker, KeyApprovals, KeyKept, KeyDeploys}
}
