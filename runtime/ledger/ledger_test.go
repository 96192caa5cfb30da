package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// attempt opens an episode and reserves the first step of an attempt.
func (b *book) attempt(t *testing.T, act, target string) (*action.Attempt, *action.Step) {
	t.Helper()
	b.up += time.Second
	if err := b.episode("a", target); err != nil {
		t.Fatal(err)
	}
	return b.step(t, nil, act, target)
}

func (b *book) step(t *testing.T, of *action.Attempt, act, target string) (*action.Attempt, *action.Step) {
	t.Helper()
	b.up += time.Second
	a := must[*action.Attempt](t)(b.reserve(of, "a", act, target, time.Hour))
	_, steps, err := ledger.Attempt(t.Context(), b.st, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	return a, &steps[len(steps)-1]
}

func (b *book) does(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.check([]string{"a"}, []string{"x.restart", "x.drain"}, []string{"t"}); err != nil {
		t.Fatal(err)
	}
}

// booked is what the guards would count: attempts of the episode, starts, and whether the action cools.
func (b *book) booked(t *testing.T, act string) string {
	t.Helper()
	var out string
	err := b.st.View(t.Context(), ledger.DecisionKeys("a", act, "t"), func(tx store.ReadTx) error {
		now, err := ledger.Moment(tx, b.sample)
		if err != nil {
			return err
		}
		s, err := ledger.GuardState(tx, now, func(action.Owner) bool { return true }, "a", act, "t")
		out = fmt.Sprintf("attempts=%d started=%d cool=%v cooling=%d open=%d doubt=%d", s.Episode.Attempts, len(s.Started), !s.Cooldown.StartedAt.IsZero(), len(s.Cooling), len(s.Open), len(s.InDoubt))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	begin   = action.Event{To: action.Begun, By: action.ByEngine}
	decline = action.Event{To: action.NotStarted, By: action.ByEngine}
	succeed = action.Event{To: action.Succeeded, By: action.ByPlugin, Outcome: &action.Outcome{}}
	doubt   = action.Event{To: action.InDoubt, By: action.ByEngine, Why: "silence"}
)

func TestWhatIsBooked(t *testing.T) {
	t.Parallel()
	const nothing = "attempts=0 started=0 cool=false cooling=0 open=0 doubt=0"
	for _, c := range []struct {
		name string
		do   func(t *testing.T, b *book)
		want string
	}{
		{"a reserved step has booked everything", func(t *testing.T, b *book) { b.attempt(t, "x.restart", "t") }, "attempts=1 started=1 cool=true cooling=1 open=1 doubt=0"},
		{"a step that did not start gives back its cooldown, the attempt as long as it is open nothing", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, decline))
		}, "attempts=1 started=1 cool=false cooling=0 open=1 doubt=0"},
		{"an attempt that ends without a beginning gives back all", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, decline))
			b.does(t, b.end(a, action.Interrupted))
		}, nothing},
		{"also if the runbook thought that it was complete", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, decline))
			b.does(t, b.end(a, action.Complete))
		}, nothing},
		{"a second step after one that did not start counts as the attempt", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.drain", "t")
			b.does(t, b.move(a, s, decline))
			a, s = b.step(t, a, "x.restart", "t")
			b.does(t, b.move(a, s, begin))
			b.does(t, b.move(a, s, succeed))
			b.does(t, b.end(a, action.Complete))
		}, "attempts=1 started=1 cool=true cooling=1 open=1 doubt=0"},
		{"in doubt everything stays booked", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, begin))
			b.does(t, b.move(a, s, doubt))
			b.does(t, b.end(a, action.Interrupted))
		}, "attempts=1 started=1 cool=true cooling=1 open=1 doubt=1"},
		{"resolved as not done it still began", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, begin))
			b.does(t, b.move(a, s, doubt))
			b.does(t, b.end(a, action.Interrupted))
			_, _, err := ledger.Resolve(t.Context(), b.st, b.sample, s, action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: "nonce", Why: "seen", Person: "ann"})
			b.does(t, err)
		}, "attempts=1 started=1 cool=true cooling=1 open=0 doubt=0"},
		{"abandoned keeps the target until the attempt is closed by a person", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, begin))
			b.does(t, b.move(a, s, doubt))
			b.does(t, b.end(a, action.Interrupted))
			_, _, err := ledger.Resolve(t.Context(), b.st, b.sample, s, action.Event{To: action.Abandoned, By: action.ByPerson, Nonce: "nonce", Why: "gone", Person: "ann"})
			b.does(t, err)
		}, "attempts=1 started=1 cool=true cooling=1 open=1 doubt=0"},
		{"the cooldown before is restored", func(t *testing.T, b *book) {
			a, s := b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, begin))
			b.does(t, b.move(a, s, succeed))
			b.does(t, b.end(a, action.Complete))
			b.does(t, b.verdict(a, action.Ineffective))
			a, s = b.attempt(t, "x.restart", "t")
			b.does(t, b.move(a, s, decline))
			b.does(t, b.end(a, action.AttemptFailed))
		}, "attempts=1 started=1 cool=true cooling=1 open=0 doubt=0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBook()
			c.do(t, b)
			b.does(t, nil)
			if got := b.booked(t, "x.restart"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// What a plugin says after the attempt is over, and another has followed, changes the step and nothing else.
func TestLateOutcome(t *testing.T) {
	t.Parallel()
	b := newBook()
	a, s := b.attempt(t, "x.restart", "t")
	b.does(t, b.move(a, s, begin))
	b.does(t, b.move(a, s, doubt))
	b.does(t, b.end(a, action.Interrupted))
	_, _, err := ledger.Resolve(t.Context(), b.st, b.sample, s, action.Event{To: action.ResolvedNotDone, By: action.ByPerson, Nonce: "nonce", Why: "seen", Person: "ann"})
	b.does(t, err)
	b.attempt(t, "x.restart", "t")
	b.does(t, b.update([]string{ledger.KeyStep(s.Key), ledger.KeyBreaker}, func(tx store.Tx, now action.Clock) error {
		old, err := ledger.LoadStep(tx, s.Key)
		if err != nil {
			return err
		}
		if err := old.Apply(succeed, now); err != nil {
			return err
		}
		if len(old.Late) != 1 || !old.LateContradicts() {
			t.Errorf("late: %+v", old)
		}
		return ledger.PutLate(tx, old)
	}))
	if d, _, err := ledger.Breaker(t.Context(), b.st, b.sample); err != nil || d.State != breaker.Open {
		t.Errorf("%v, the breaker is %s", err, d)
	}
}

func TestChargeRefusesAnotherEpisode(t *testing.T) {
	t.Parallel()
	b := newBook()
	if _, err := b.reserve(nil, "a", "x.restart", "t", time.Hour); err == nil {
		t.Error("an attempt was booked without an episode")
	}
	if all, _, err := b.records(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v: something was written", all, err)
	}
}

func TestAnIndexThatNamesNothing(t *testing.T) {
	t.Parallel()
	st := storetest.NewMemory()
	_, _, err := ledger.Attempt(t.Context(), st, "nothing")
	wantCode(t, err, problem.StoreDamaged)
	put(t, st, ledger.KeyOpen, "[{")
	err = st.View(t.Context(), []string{ledger.KeyOpen}, func(tx store.ReadTx) error {
		_, err := ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
		return err
	})
	wantCode(t, err, problem.StoreDamaged)
}

func TestFindingRuns(t *testing.T) {
	t.Parallel()
	st := storetest.NewMemory()
	for _, id := range []string{"20260301-100000-aaaaaa", "20260301-100000-bbbbbb", "20260301-100100-cccccc"} {
		b, err := trace.Encode(&trace.Run{V: trace.Version, ID: id, Runbooks: []*trace.Runbook{}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, st, ledger.KeyRun(id), string(b))
	}
	for given, want := range map[string]string{
		"last": "20260301-100100-cccccc", "20260301-1001": "20260301-100100-cccccc", "20260301-100000-b": "20260301-100000-bbbbbb",
		"20260301-100000-aaaaaa": "20260301-100000-aaaaaa",
	} {
		r, err := ledger.Run(t.Context(), st, given)
		if err != nil || r.ID != want {
			t.Errorf("%s: %v, %v", given, r, err)
		}
	}
	for _, given := range []string{"20260301-100000", "2027", "x"} {
		_, err := ledger.Run(t.Context(), st, given)
		wantCode(t, err, problem.NotFound)
	}
	runs := must[[]*trace.Run](t)(ledger.Runs(t.Context(), st, 2, time.Time{}, nil))
	if len(runs) != 2 || runs[0].ID != "20260301-100100-cccccc" {
		t.Errorf("%+v", runs)
	}
	put(t, st, ledger.KeyRun("20260301-100200-dddddd"), "{")
	if _, err := ledger.Runs(t.Context(), st, 9, time.Time{}, nil); err == nil {
		t.Error("a damaged trace was passed over")
	}
}

func TestFindingSteps(t *testing.T) {
	t.Parallel()
	b := newBook()
	a, s := b.attempt(t, "x.restart", "t")
	b.does(t, b.move(a, s, begin))
	b.does(t, b.move(a, s, succeed))
	_, last := b.step(t, a, "x.drain", "t")
	all := must[[]*action.Step](t)(ledger.Steps(t.Context(), b.st, 9, nil))
	if len(all) != 2 || all[0].ID != last.ID {
		t.Errorf("the newest is not first: %+v", all)
	}
	one := must[[]*action.Step](t)(ledger.Steps(t.Context(), b.st, 9, func(s *action.Step) bool { return s.State == action.Succeeded }))
	if len(one) != 1 || one[0].ID != s.ID {
		t.Errorf("%+v", one)
	}
	found, err := ledger.Step(t.Context(), b.st, strings.ToUpper(s.ID))
	if err != nil || found.Key != s.Key {
		t.Errorf("%v, %v", found, err)
	}
	for _, given := range []string{"", "zzzzzz"} {
		_, err := ledger.Step(t.Context(), b.st, given)
		wantCode(t, err, problem.NotFound)
	}
	status := must[ledger.Status](t)(ledger.ReadStatus(t.Context(), b.st, b.sample))
	if len(status.Open) != 1 || len(status.Cooling) != 2 || len(status.InDoubt) != 0 || len(status.Started) != 1 {
		t.Errorf("%+v", status)
	}
	b.up += 2 * time.Hour
	if s := must[ledger.Status](t)(ledger.ReadStatus(t.Context(), b.st, b.sample)); len(s.Cooling) != 0 {
		t.Errorf("still cooling: %+v", s.Cooling)
	}
}

// A policy whose windows became longer finds the starts of before.
func TestStartsAreKeptForADay(t *testing.T) {
	t.Parallel()
	b := newBook()
	b.window = 10 * time.Minute
	for range 30 {
		a, s := b.attempt(t, "x.restart", "t")
		b.does(t, b.move(a, s, begin))
		b.does(t, b.move(a, s, succeed))
		b.does(t, b.end(a, action.Complete))
		b.does(t, b.verdict(a, action.Verified))
		b.up += time.Hour
	}
	s := must[ledger.Status](t)(ledger.ReadStatus(t.Context(), b.st, b.sample))
	if n := len(s.Started); n < 23 || n > 25 {
		t.Errorf("%d starts are kept", n)
	}
}

func put(t *testing.T, st store.Store, key, val string) {
	t.Helper()
	if err := st.Update(context.Background(), nil, func(tx store.Tx) error { tx.Put(key, []byte(val)); return nil }); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code problem.Code) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Errorf("got %v, want a problem %s", err, code)
	}
	if p != nil && p.Hint == "" && !slices.Contains([]problem.Code{problem.Internal}, code) {
		t.Errorf("%v has no hint", err)
	}
}
