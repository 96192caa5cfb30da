package engine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
)

const day = 24 * time.Hour

// later lets days go by without measuring anything but the last two minutes of them.
func (w *world) later(d time.Duration) {
	w.t.Helper()
	w.now, w.up = w.now.Add(d), w.up+d
	w.pass(2 * time.Minute)
}

// decisions are what every guard would see, of every target.
func (w *world) decisions() map[string]guard.State {
	out := map[string]guard.State{}
	for i := 1; i <= 5; i++ {
		key := fmt.Sprintf("instance=w%d", i)
		for _, act := range []string{"svc.restart", "svc.drain"} {
			err := w.store.View(context.Background(), ledger.DecisionKeys("a", act, key), func(tx store.ReadTx) error {
				now, err := ledger.Moment(tx, w.sample)
				if err != nil {
					return err
				}
				st, err := ledger.GuardState(tx, now, func(action.Owner) bool { return false }, "a", act, key)
				st.Kept = 0
				out[key+" "+act] = st
				return err
			})
			if err != nil {
				w.t.Fatalf("%v", err)
			}
		}
	}
	return out
}

func (w *world) kept() (attempts, steps, runs int) {
	w.t.Helper()
	for prefix, n := range map[string]*int{"attempt/": &attempts, "step/": &steps, "run/": &runs} {
		if err := w.store.Scan(context.Background(), prefix, false, func(string, []byte) bool { *n++; return true }); err != nil {
			w.t.Fatalf("%v", err)
		}
	}
	return attempts, steps, runs
}

// What has come to an end is forgotten after its time, what is open never is, and no guard sees a difference.
func TestRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": drained})
	w.settings.Retention = 90 * day
	w.sick("w1")
	w.tick() // settled
	w.depth["w1"] = 5
	w.pass(15 * time.Minute)
	w.tick() // verified
	w.sick("w2")
	w.killAt("acting", 2) // in doubt for ever
	w.depth["w2"] = 5
	w.pass(15 * time.Minute)
	w.tick()
	if a, s, _ := w.kept(); a != 2 || s != 5 {
		t.Fatalf("%d attempts, %d steps", a, s)
	}
	w.later(89 * day)
	w.tick()
	if a, s, r := w.kept(); a != 2 || s != 5 || r < 5 {
		t.Fatalf("after 89 days %d attempts, %d steps, %d runs", a, s, r)
	}
	before := w.decisions()
	w.later(2 * day)
	w.tick()
	a, s, r := w.kept()
	if a != 1 || s != 2 || r != 3 {
		t.Errorf("after 91 days %d attempts, %d steps, %d runs", a, s, r)
	}
	if got := w.states(); !slices.Equal(got, []action.StepState{ok, action.InDoubt}) {
		t.Errorf("what is left is %s", got)
	}
	after := w.decisions()
	for key := range before {
		b, a := before[key], after[key]
		b.Episode, a.Episode = guard.EpisodeState{}, guard.EpisodeState{} // has ended meanwhile, by observation
		b.Started, a.Started, b.Cooling, a.Cooling = nil, nil, nil, nil   // by age
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: a guard sees\n%+v, and saw\n%+v", key, a, b)
		}
	}
	if st := w.count(t); st != 1 {
		t.Errorf("%d attempts are counted", st)
	}
}

func (w *world) count(t *testing.T) int {
	t.Helper()
	var k ledger.Kept
	err := w.store.View(t.Context(), []string{ledger.KeyKept}, func(tx store.ReadTx) (err error) {
		k, err = ledger.Read[ledger.Kept](tx, ledger.KeyKept)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return k.Attempts
}

// Many are forgotten a few at a time, so that no run is held up.
func TestForgetsAFewAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Retention = 90 * day
	for range 50 {
		w.pass(15 * time.Second)
		w.tick()
	}
	w.later(91 * day)
	for want := 31; ; want -= 19 { // 20 go, and this run's own comes
		w.pass(15 * time.Second)
		w.tick()
		_, _, runs := w.kept()
		if runs != max(want, 3) {
			t.Fatalf("%d runs, want %d", runs, want)
		}
		if want < 3 {
			break
		}
	}
}

// At the limit nothing new begins, and nothing is dropped.
func TestTooManyRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Policy.Records = 1
	w.sick("w3")
	w.tick()
	w.depth["w3"] = 5
	w.pass(15 * time.Minute)
	w.tick()
	w.sick("w4")
	r := w.tick()
	ev := evaluationOf(t, r, "w4")
	refused := guard.Refused(lastVerdicts(ev))
	if len(refused) != 1 || refused[0].Guard != "records" || len(w.steps()) != 1 {
		t.Errorf("%+v", refused)
	}
}

// The files of a runbook are kept with the runs that evaluated it, and forgotten when nothing has been evaluated by them for as long; never those by
// which an attempt that is open is cleaned up.
func TestRetentionOfSources(t *testing.T) {
	t.Parallel()
	sources := func(w *world) (n int) {
		if err := w.store.Scan(context.Background(), ledger.KeySource(""), false, func(string, []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	w := newWorld(t, map[string]string{"a.star": restart})
	w.settings.Retention = 90 * day
	w.sick("w1")
	w.tick()
	if n := sources(w); n != 1 {
		t.Fatalf("%d closures after a run", n)
	}
	w.depth["w1"] = 5
	w.pass(15 * time.Minute)
	w.tick() // verified
	w.later(89 * day)
	w.tick()
	if n := sources(w); n != 1 {
		t.Errorf("%d closures before their time", n)
	}
	w.later(3 * day)
	w.tick()
	if n := sources(w); n != 0 {
		t.Errorf("%d closures after their time", n)
	}

	// One that waits for a person keeps its files.
	w = newWorld(t, map[string]string{"a.star": drained})
	w.settings.Retention = 90 * day
	w.sick("w1")
	p := w.process()
	p.hook = func(point string) {
		if point == "acting" {
			p.kill()
		}
	}
	_, _ = p.run()
	w.tick()
	if open := w.status().Open; len(open) != 1 {
		t.Fatalf("open are %v", open)
	}
	w.later(200 * day)
	w.depth["w1"] = 5
	w.tick()
	if n := sources(w); n != 1 {
		t.Errorf("%d closures while an attempt that was made by one is open", n)
	}
}
