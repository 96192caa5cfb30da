package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// book drives the ledger as the engine does, each operation one transaction with the keys that it declares.
type book struct {
	st     *storetest.Memory
	up     time.Duration // since boot
	window time.Duration
}

func newBook() *book { return &book{st: storetest.NewMemory(), window: time.Hour} }

func (b *book) sample() (clock.Sample, error) {
	return clock.Sample{Wall: epoch.Add(b.up), Boot: "b", Uptime: b.up, Synced: true}, nil
}

func (b *book) update(keys []string, fn func(tx store.Tx, now action.Clock) error) error {
	return b.st.Update(context.Background(), append([]string{ledger.KeyClock}, keys...), func(tx store.Tx) error {
		now, err := ledger.Tick(tx, b.sample)
		if err != nil {
			return err
		}
		return fn(tx, now)
	})
}

// episode opens one if the target has none.
func (b *book) episode(runbook, target string) error {
	key := ledger.KeyEpisodes(runbook)
	return b.update([]string{key}, func(tx store.Tx, now action.Clock) error {
		eps, err := ledger.Read[map[string]ledger.Episode](tx, key)
		if err != nil {
			return err
		}
		if eps == nil {
			eps = map[string]ledger.Episode{}
		}
		if _, ok := eps[target]; !ok {
			eps[target] = ledger.Episode{ID: "e" + strconv.Itoa(int(now.Trusted)), OpenedAt: now}
		}
		return ledger.Write(tx, key, eps)
	})
}

// reserve books a step: of a new attempt, or of a.
func (b *book) reserve(a *action.Attempt, runbook, act, target string, cooldown time.Duration) (*action.Attempt, error) {
	keys := append(ledger.DecisionKeys(runbook, act, target), ledger.PutKeys()...)
	first := a == nil
	if !first {
		keys = append(keys, ledger.KeyAttempt(a.ID))
	}
	var out *action.Attempt
	err := b.update(keys, func(tx store.Tx, now action.Clock) (err error) {
		if first {
			eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(runbook))
			if err != nil {
				return err
			}
			ep := eps[target]
			out = &action.Attempt{
				Runbook: runbook, Target: action.Target{Key: target, Name: target}, Episode: ep.ID, Number: ep.Number + 1, Fleet: "f",
				Verify: action.Verification{Within: 10 * time.Minute},
			}
			out.ID = action.Identity{Runbook: runbook, Target: target, Episode: ep.ID, Attempt: out.Number}.AttemptID()
			if err := out.Apply(action.AttemptEvent{To: action.Open, By: action.ByEngine}, now); err != nil {
				return err
			}
		} else if out, err = ledger.LoadAttempt(tx, a.ID); err != nil {
			return err
		}
		id := action.Identity{Runbook: runbook, Target: target, Episode: out.Episode, Attempt: out.Number, Step: len(out.Steps) + 1}
		s := &action.Step{Identity: id, Key: id.Key(), ID: action.ShortID(id.Key()), Nonce: "nonce", Action: act, Cooldown: cooldown}
		if err := s.Apply(action.Event{To: action.Reserved, By: action.ByEngine}, now); err != nil {
			return err
		}
		out.Steps = append(out.Steps, s.Key)
		if err := ledger.Charge(tx, out, s, first, now, b.window); err != nil {
			return err
		}
		return ledger.Put(tx, out, s)
	})
	return out, err
}

func (b *book) move(a *action.Attempt, s *action.Step, ev action.Event) error {
	keys := append([]string{ledger.KeyStep(s.Key), ledger.KeyAttempt(a.ID)}, ledger.PutKeys()...)
	return b.update(append(keys, ledger.RefundKeys(a, s)...), func(tx store.Tx, now action.Clock) error {
		a, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil {
			return err
		}
		s, err := ledger.LoadStep(tx, s.Key)
		if err != nil {
			return err
		}
		if err := s.Apply(ev, now); err != nil {
			return err
		}
		return ledger.SettleStep(tx, a, s)
	})
}

func (b *book) end(a *action.Attempt, to action.AttemptState) error {
	return b.update(ledger.EndKeys(a), func(tx store.Tx, now action.Clock) error {
		a, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil {
			return err
		}
		return ledger.EndAttempt(tx, a, to, action.ByEngine, "ended", now)
	})
}

// recover does what a later run does for a dead owner.
func (b *book) recover(a *action.Attempt, steps []action.Step) error {
	keys := ledger.EndKeys(a)
	for i := range steps {
		keys = append(keys, ledger.RefundKeys(a, &steps[i])...)
	}
	return b.update(keys, func(tx store.Tx, now action.Clock) error {
		a, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil {
			return err
		}
		for i := range steps {
			s := &steps[i]
			switch s.State {
			case action.Reserved:
				err = s.Apply(action.Event{To: action.NotStarted, By: action.ByRecovery}, now)
			case action.Begun:
				err = s.Apply(action.Event{To: action.InDoubt, By: action.ByRecovery, Why: "dead"}, now)
			default:
				continue
			}
			if err != nil {
				return err
			}
			if err := ledger.SettleStep(tx, a, s); err != nil {
				return err
			}
		}
		to := action.AttemptState("")
		if a.State == action.Open {
			to = action.Interrupted
		}
		return ledger.EndAttempt(tx, a, to, action.ByRecovery, "dead", now)
	})
}

func (b *book) verdict(a *action.Attempt, to action.AttemptState) error {
	return b.update(append(ledger.PutKeys(), ledger.KeyAttempt(a.ID)), func(tx store.Tx, now action.Clock) error {
		a, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil {
			return err
		}
		if err := a.Apply(action.AttemptEvent{To: to, By: action.ByEngine, Why: "seen"}, now); err != nil {
			return err
		}
		return ledger.Put(tx, a, nil)
	})
}

// records are all records, attempts in the order in which they were opened, each with its steps.
func (b *book) records() (attempts []*action.Attempt, steps map[string][]action.Step, err error) {
	var bad error
	err = b.st.Scan(context.Background(), "attempt/", false, func(_ string, val []byte) bool {
		a, err := action.DecodeAttempt(val)
		attempts, bad = append(attempts, a), err
		return err == nil
	})
	if err != nil || bad != nil {
		return nil, nil, errors.Join(err, bad)
	}
	slices.SortFunc(attempts, func(a, b *action.Attempt) int { return int(a.OpenedAt.Trusted - b.OpenedAt.Trusted) })
	steps = map[string][]action.Step{}
	for _, a := range attempts {
		_, of, err := ledger.Attempt(context.Background(), b.st, a.ID)
		if err != nil {
			return nil, nil, err
		}
		steps[a.ID] = of
	}
	return attempts, steps, nil
}

// idle says that an attempt is over and none of its steps began.
func idle(a *action.Attempt, steps []action.Step) bool {
	return a.State == action.Closed && !action.Began(steps)
}

// check compares every index with what the records say.
func (b *book) check(runbooks, acts, targets []string) error {
	attempts, steps, err := b.records()
	if err != nil {
		return err
	}
	now := action.Clock{}
	keys := []string{ledger.KeyClock, ledger.KeyOpen, ledger.KeyDoubt, ledger.KeyStarted, ledger.KeyCooling}
	for _, x := range targets {
		keys = append(keys, ledger.KeyLast(x))
		for _, act := range acts {
			keys = append(keys, ledger.KeyCool(act, x))
		}
	}
	for _, rb := range runbooks {
		keys = append(keys, ledger.KeyEpisodes(rb))
	}
	return b.st.View(context.Background(), keys, func(tx store.ReadTx) error {
		if now, err = ledger.Moment(tx, b.sample); err != nil {
			return err
		}
		if err := b.checkLists(tx, now, attempts, steps); err != nil {
			return err
		}
		for _, x := range targets {
			if err := checkTarget(tx, x, acts, attempts, steps); err != nil {
				return err
			}
		}
		for _, rb := range runbooks {
			if err := checkEpisodes(tx, rb, attempts, steps); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *book) checkLists(tx store.ReadTx, now action.Clock, attempts []*action.Attempt, steps map[string][]action.Step) error {
	var open, doubt, started, cooling []string
	for _, a := range attempts {
		if a.State.Holds() {
			open = append(open, a.ID+" "+string(a.State))
		}
		if !idle(a, steps[a.ID]) && now.Trusted-a.OpenedAt.Trusted <= b.window {
			started = append(started, a.ID)
		}
		for _, s := range steps[a.ID] {
			if s.State == action.InDoubt {
				doubt = append(doubt, s.Key)
			}
			if s.State != action.NotStarted && now.Trusted < s.ReservedAt.Trusted+s.Cooldown {
				cooling = append(cooling, s.Key)
			}
		}
	}
	var gotOpen, gotDoubt, gotStarted, gotCooling []string
	st, err := ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
	if err != nil {
		return err
	}
	for _, o := range st {
		gotOpen = append(gotOpen, o.ID+" "+string(o.State))
	}
	ds, err := ledger.Read[[]ledger.Doubt](tx, ledger.KeyDoubt)
	if err != nil {
		return err
	}
	for _, d := range ds {
		gotDoubt = append(gotDoubt, d.Key)
	}
	ss, err := ledger.ReadStarted(tx)
	if err != nil {
		return err
	}
	for _, s := range ss {
		if now.Trusted-s.At.Trusted <= b.window {
			gotStarted = append(gotStarted, s.Attempt)
		}
	}
	cs, err := ledger.Read[[]ledger.Cooling](tx, ledger.KeyCooling)
	if err != nil {
		return err
	}
	for _, c := range cs {
		if now.Trusted < c.At.Trusted+c.For {
			gotCooling = append(gotCooling, c.Step)
		}
	}
	for _, x := range []struct {
		what      string
		want, got []string
	}{{"open", open, gotOpen}, {"doubt", doubt, gotDoubt}, {"started", started, gotStarted}, {"cooling", cooling, gotCooling}} {
		slices.Sort(x.want)
		slices.Sort(x.got)
		if diff := cmp.Diff(x.want, x.got, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("idx/%s is not what the records say (-records +index):\n%s", x.what, diff)
		}
	}
	return nil
}

func checkTarget(tx store.ReadTx, target string, acts []string, attempts []*action.Attempt, steps map[string][]action.Step) error {
	var want *ledger.Last
	for _, a := range attempts {
		if a.Target.Key != target {
			continue
		}
		want = &ledger.Last{ID: a.ID, State: a.State, EndedAt: a.EndedAt, Verifies: a.State == action.Complete}
		all := steps[a.ID]
		want.Idle = len(all) > 0 && a.State == action.Closed && !action.Began(all)
		if want.Verifies {
			want.Due = a.EndedAt.Wall.Add(a.Verify.Within)
		}
	}
	last, err := ledger.Read[*ledger.Last](tx, ledger.KeyLast(target))
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, last); diff != "" {
		return fmt.Errorf("last/%s is not the newest attempt (-records +index):\n%s", target, diff)
	}
	for _, act := range acts {
		var started action.Clock
		var of string
		var cooldown time.Duration
		for _, a := range attempts {
			for _, s := range steps[a.ID] {
				if s.Action == act && s.Identity.Target == target && s.State != action.NotStarted && s.ReservedAt.Trusted >= started.Trusted {
					started, of, cooldown = s.ReservedAt, s.Key, s.Cooldown
				}
			}
		}
		cool, err := ledger.Read[*ledger.Cool](tx, ledger.KeyCool(act, target))
		if err != nil {
			return err
		}
		got := ledger.Cool{}
		if cool != nil {
			got = *cool
		}
		if got.Step != of || got.For != cooldown || !cmp.Equal(got.StartedAt, started) {
			return fmt.Errorf("cool/%s/%s is %s at %s, the newest start on record is %s at %s", act, target, got.Step, got.StartedAt.Trusted, of, started.Trusted)
		}
	}
	return nil
}

func checkEpisodes(tx store.ReadTx, runbook string, attempts []*action.Attempt, steps map[string][]action.Step) error {
	eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(runbook))
	if err != nil {
		return err
	}
	for target, ep := range eps {
		begun, number := 0, 0
		for _, a := range attempts {
			if a.Runbook == runbook && a.Target.Key == target && a.Episode == ep.ID {
				number = max(number, a.Number)
				if !idle(a, steps[a.ID]) {
					begun++
				}
			}
		}
		if ep.Begun != begun || ep.Number != number {
			return fmt.Errorf("episode %s of %s counts %d attempts to number %d, the records %d to %d", ep.ID, target, ep.Begun, ep.Number, begun, number)
		}
	}
	return nil
}

// Whatever happens in whatever order, the small documents that decisions read are what the records say.
func TestIndexesAreWhatTheRecordsSay(t *testing.T) {
	t.Parallel()
	runbooks, acts, targets := []string{"a", "b"}, []string{"x.restart", "x.drain"}, []string{"instance=1", "instance=2"}
	rapid.Check(t, func(t *rapid.T) {
		b := newBook()
		for range rapid.IntRange(1, 40).Draw(t, "operations") {
			b.up += time.Duration(rapid.IntRange(1, 1500).Draw(t, "seconds")) * time.Second
			if err := b.operate(t, runbooks, acts, targets); err != nil {
				t.Fatal(err)
			}
			if err := b.check(runbooks, acts, targets); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// operate does one thing that an engine, a recovery or a person may do in the state that the records are in.
func (b *book) operate(t *rapid.T, runbooks, acts, targets []string) error {
	attempts, steps, err := b.records()
	if err != nil {
		return err
	}
	target, act := rapid.SampledFrom(targets).Draw(t, "target"), rapid.SampledFrom(acts).Draw(t, "action")
	cooldown := time.Duration(rapid.IntRange(0, 90).Draw(t, "cooldown")) * time.Minute
	var held *action.Attempt
	for _, a := range attempts {
		if a.Target.Key == target && a.State.Holds() {
			held = a
		}
	}
	if held == nil {
		runbook := rapid.SampledFrom(runbooks).Draw(t, "runbook")
		if err := b.episode(runbook, target); err != nil {
			return err
		}
		_, err := b.reserve(nil, runbook, act, target, cooldown)
		return err
	}
	of := steps[held.ID]
	last := &of[len(of)-1]
	plugin := action.Event{By: action.ByPlugin, Outcome: &action.Outcome{Message: "m"}}
	switch op := rapid.SampledFrom([]string{"step", "go", "no", "doubt", "end", "die", "resolve", "close", "verdict"}).Draw(t, "operation"); {
	case op == "die" && held.State != action.Complete:
		return b.recover(held, of)
	case held.State == action.Complete:
		return b.verdict(held, rapid.SampledFrom([]action.AttemptState{action.Verified, action.Ineffective, action.Inconclusive}).Draw(t, "verdict"))
	case last.State == action.InDoubt && op == "resolve":
		to := rapid.SampledFrom([]action.StepState{action.ResolvedDone, action.ResolvedNotDone, action.Abandoned}).Draw(t, "as")
		_, _, err := ledger.Resolve(context.Background(), b.st, b.sample, last, action.Event{To: to, By: action.ByPerson, Nonce: "nonce", Why: "seen", Person: "ann"})
		return err
	case last.State == action.Abandoned && held.State == action.Interrupted && op == "close":
		_, err := ledger.CloseAttempt(context.Background(), b.st, b.sample, held.ID, "ann", "put right")
		return err
	case held.State != action.Open:
		return nil
	case last.State == action.Reserved && op == "go":
		return b.move(held, last, action.Event{To: action.Begun, By: action.ByEngine})
	case last.State == action.Reserved && op == "no":
		return b.move(held, last, action.Event{To: action.NotStarted, By: action.ByEngine})
	case last.State == action.Begun && op == "go":
		plugin.To = rapid.SampledFrom([]action.StepState{action.Succeeded, action.NoChange, action.Failed}).Draw(t, "outcome")
		return b.move(held, last, plugin)
	case last.State == action.Begun && op == "no":
		return b.move(held, last, action.Event{To: action.NotStarted, By: action.ByPlugin})
	case last.State == action.Begun && op == "doubt":
		return b.move(held, last, action.Event{To: action.InDoubt, By: action.ByEngine, Why: "silence"})
	case last.State.Definite() && op == "step":
		_, err := b.reserve(held, held.Runbook, act, target, cooldown)
		return err
	case op == "end" && last.State.Definite():
		return b.end(held, rapid.SampledFrom([]action.AttemptState{action.Complete, action.AttemptFailed, action.Interrupted}).Draw(t, "end"))
	case op == "end":
		return b.end(held, action.Interrupted)
	}
	return nil
}
