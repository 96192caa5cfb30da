package action

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var stepStates = []StepState{
	"", Reserved, Begun, NotStarted, Succeeded, NoChange, Failed, InDoubt, ResolvedDone, ResolvedNotDone, Abandoned, "no_such_state",
}

var everyone = []string{ByEngine, ByPlugin, ByRecovery, ByProbe, ByPerson, "", "somebody"}

func drawEvent(t *rapid.T) Event {
	e := Event{
		To: rapid.SampledFrom(stepStates).Draw(t, "to"), By: rapid.SampledFrom(everyone).Draw(t, "by"),
		Why:    rapid.SampledFrom([]string{"", "because"}).Draw(t, "why"),
		Nonce:  rapid.SampledFrom([]string{"", "nonce", "other"}).Draw(t, "nonce"),
		Person: rapid.SampledFrom([]string{"", "ann@db1(pts/1)"}).Draw(t, "person"),
	}
	if rapid.Bool().Draw(t, "outcome") {
		e.Outcome = &Outcome{Message: rapid.StringMatching(`[a-z]{0,5}`).Draw(t, "message"), Value: value.Int(7)}
	}
	if rapid.Bool().Draw(t, "receipt") {
		e.Receipt = []byte("receipt")
	}
	return e
}

// drawLikely mostly draws an arrow that is legal, so that long histories are reached.
func drawLikely(t *rapid.T, s *Step) Event {
	e := drawEvent(t)
	if rapid.IntRange(0, 3).Draw(t, "wild") == 0 {
		return e
	}
	var legal []stepArrow
	for _, a := range stepArrows {
		if a.from == s.State {
			legal = append(legal, a)
		}
	}
	if len(legal) == 0 {
		return e
	}
	a := rapid.SampledFrom(legal).Draw(t, "arrow")
	e.To, e.By, e.Why, e.Nonce, e.Person = a.to, rapid.SampledFrom(a.by).Draw(t, "who"), "because", "nonce", "ann"
	if e.By == ByProbe || e.By == ByPlugin {
		e.Outcome = &Outcome{Message: "m"}
	}
	return e
}

func TestStepProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newStep(1)
		begun, n := 0, rapid.IntRange(1, 25).Draw(t, "events")
		for i := range n {
			before := s
			image := must(s.Encode())
			e := drawLikely(t, &s)
			err := s.Apply(e, at(time.Duration(i)*time.Second))

			moved := s.State != before.State
			switch {
			case err != nil && !cmp.Equal(s, before):
				t.Fatalf("an error changed the record: %s", cmp.Diff(before, s))
			case err == nil && !moved && len(s.Late) != len(before.Late)+1:
				t.Fatalf("%+v was accepted, and nothing changed", e)
			case err == nil && moved && len(s.Late) != len(before.Late):
				t.Fatalf("%+v was both applied and late", e)
			case moved && len(s.History) != len(before.History)+1:
				t.Fatalf("the arrow to %s is not in the history", s.State)
			case before.State.Settled() && moved:
				t.Fatalf("settled %s became %s", before.State, s.State)
			case moved && before.State == InDoubt && e.By != ByProbe && e.By != ByPerson:
				t.Fatalf("in doubt was resolved by %s", e.By)
			case moved && s.State == Failed && e.By != ByPlugin:
				t.Fatalf("failed by %s", e.By)
			case moved && e.By == ByPerson && (e.Nonce != "nonce" || e.Why == ""):
				t.Fatalf("a person decided without nonce or reason")
			}
			if moved && s.State == Begun {
				begun++
			}
			if s.State.Settled() && s.EndedAt.IsZero() {
				t.Fatalf("%s has no end", s.State)
			}
			// A record that was read before must not be changed through a shared slice.
			if image != nil && !bytes.Equal(image, must(before.Encode())) {
				t.Fatalf("the record from before has changed")
			}
			if s.State != "" {
				back, err := DecodeStep(must(s.Encode()))
				if err != nil {
					t.Fatalf("read back: %v", err)
				}
				want := s
				want.V = Version
				if diff := cmp.Diff(&want, back); diff != "" {
					t.Fatalf("changed by being stored: %s", diff)
				}
			}
		}
		if begun > 1 {
			t.Fatalf("begun %d times", begun)
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		return nil
	}
	return data
}

func TestAttemptProperties(t *testing.T) {
	t.Parallel()
	states := []AttemptState{"", Open, Complete, Verified, Ineffective, Inconclusive, AttemptFailed, Interrupted, Closed, "other"}
	rapid.Check(t, func(t *rapid.T) {
		a := Attempt{ID: "a1", Number: 1}
		var steps []Step
		for i := range rapid.IntRange(0, 3).Draw(t, "steps") {
			steps, a.Steps = append(steps, newStep(i+1)), append(a.Steps, newStep(i+1).Key)
		}
		for i := range rapid.IntRange(1, 15).Draw(t, "events") {
			for j := range steps {
				if rapid.Bool().Draw(t, "advance") {
					_ = steps[j].Apply(drawLikely(t, &steps[j]), at(time.Duration(i)*time.Second))
				}
			}
			before := a
			e := AttemptEvent{
				To: rapid.SampledFrom(states).Draw(t, "to"), By: rapid.SampledFrom(everyone).Draw(t, "by"),
				Why: rapid.SampledFrom([]string{"", "because"}).Draw(t, "why"), Person: "ann", Steps: steps,
			}
			err := a.Apply(e, at(time.Duration(i)*time.Second))
			switch {
			case err != nil && !cmp.Equal(a, before):
				t.Fatalf("an error changed the record: %s", cmp.Diff(before, a))
			case err == nil && len(a.History) != len(before.History)+1:
				t.Fatalf("the arrow to %s is not in the history", a.State)
			case !before.State.Holds() && before.State != "" && a.State != before.State:
				t.Fatalf("%s became %s", before.State, a.State)
			case err == nil && before.State == AttemptFailed && a.State != Closed, err == nil && before.State == Interrupted && a.State != Closed:
				t.Fatalf("%s became %s", before.State, a.State)
			}
			if err == nil && (a.State == Complete || a.State == Closed) {
				for _, s := range steps {
					if !s.State.Settled() || !s.State.Definite() && e.By != ByPerson {
						t.Fatalf("%s by %s with a step %s", a.State, e.By, s.State)
					}
				}
			}
			if a.State != "" {
				back, err := DecodeAttempt(must(a.Encode()))
				if err != nil {
					t.Fatalf("read back: %v", err)
				}
				want := a
				want.V = Version
				if diff := cmp.Diff(&want, back); diff != "" {
					t.Fatalf("changed by being stored: %s", diff)
				}
			}
		}
	})
}

// Judge never says VERIFIED if a sick or unknown moment, or a gap, lies within every stretch that is long enough, and its word does
// not depend on when it is asked once a stretch is there.
func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		minute := func(name string, low, high int) time.Duration {
			return time.Duration(rapid.IntRange(low, high).Draw(t, name)) * time.Minute
		}
		v := Verification{Expr: "x", Op: ">", Threshold: 10, Held: minute("held", 0, 8), Within: minute("within", 2, 20), Sampling: time.Minute, MaxAge: minute("max age", 0, 5)}
		v.Settle = minute("settle", 0, int(v.Within/time.Minute)-1)
		var samples []Sample
		for range rapid.IntRange(0, 30).Draw(t, "samples") {
			samples = append(samples, Sample{
				At:    epoch.Add(time.Duration(rapid.IntRange(0, 25*60).Draw(t, "at")) * time.Second),
				Value: rapid.SampledFrom([]float64{1, 1, 1, 1, 50}).Draw(t, "value"),
			})
		}
		now := epoch.Add(minute("now", 0, 40))
		state, _, done := Judge(v, epoch, now, samples)
		if done == (state == Complete) {
			t.Fatalf("%s, done=%v", state, done)
		}
		if !done && !now.Before(epoch.Add(v.Within)) {
			t.Fatalf("no verdict after the deadline")
		}
		if state == Verified {
			if later, _, _ := Judge(v, epoch, now.Add(time.Hour), samples); later != Verified {
				t.Fatalf("verified, and an hour later %s", later)
			}
		}
		if state == Verified && !slowVerified(v, now, samples) {
			t.Fatalf("verified without a stretch")
		}
	})
}

// slowVerified tries every pair of samples as the ends of a stretch.
func slowVerified(v Verification, now time.Time, samples []Sample) bool {
	need := min(v.Held, (v.Within-v.Settle)/2)
	counts := func(s Sample) bool {
		return !s.At.Before(epoch.Add(v.Settle)) && !s.At.After(epoch.Add(v.Within)) && !s.At.After(now)
	}
	for _, a := range samples {
		for _, b := range samples {
			if !counts(a) || !counts(b) || b.At.Sub(a.At) < need {
				continue
			}
			ok := true
			for x := a.At; ok && x.Before(b.At); {
				// The next sample after x must come within two intervals.
				next := time.Time{}
				for _, s := range samples {
					if counts(s) && s.At.After(x) && (next.IsZero() || s.At.Before(next)) {
						next = s.At
					}
				}
				ok = !next.IsZero() && next.Sub(x) <= v.gap()
				x = next
			}
			for _, s := range samples {
				ok = ok && (s.At.Before(a.At) || s.At.After(b.At) || s.Value <= v.Threshold)
			}
			if ok {
				return true
			}
		}
	}
	return false
}

func golden(t *testing.T) (*Step, *Attempt) {
	t.Helper()
	s := newStep(1)
	s.Connection, s.Cooldown, s.Timeout, s.Settle = "w3", time.Hour, 30*time.Second, time.Minute
	s.Pos, s.Source, s.Policy = value.Pos{File: "worker.star", Line: 26, Col: 5}, "sha256:1", "sha256:2"
	s.Owner, s.Deadline = Owner{Host: "h1", Boot: "b1", PID: 12, Start: 345}, epoch.Add(time.Minute)
	for i, e := range []Event{
		{To: Reserved, By: ByEngine},
		{To: Begun, By: ByEngine, Receipt: []byte("inv-1"), Child: Child{PID: 13, Start: 346, Group: 13}},
		{To: InDoubt, By: ByRecovery, Why: "owner dead"},
		{To: Succeeded, By: ByPlugin, Outcome: &Outcome{Message: "restarted", Value: value.Dict{{Key: value.String("took"), Value: value.Duration(3 * time.Second)}}}},
		{To: ResolvedDone, By: ByPerson, Why: "saw it", Nonce: "nonce", Person: "ann@h1(pts/1)"},
	} {
		if err := s.Apply(e, at(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	a := &Attempt{
		ID: s.Identity.AttemptID(), Namespace: "ns", Runbook: "worker", Path: "queues/worker.star", Fleet: "f1", Episode: "e1", Number: 1, Run: "r1",
		Target: Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3"}}, Steps: []string{s.Key}, Owner: s.Owner,
		Verify: Verification{
			Expr: "queue_depth", Op: ">", Threshold: 1000, Match: map[string]string{"instance": "w3"},
			Held: 5 * time.Minute, Settle: time.Minute, Within: 10 * time.Minute, Sampling: 15 * time.Second, MaxAge: 3 * time.Minute,
		},
	}
	for i, e := range []AttemptEvent{
		{To: Open, By: ByEngine}, {To: Interrupted, By: ByRecovery, Why: "owner dead", Steps: []Step{s}}, {To: Closed, By: ByRecovery, Steps: []Step{s}},
	} {
		if err := a.Apply(e, at(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return &s, a
}

// The bytes of version 1 never change: a store that was written with them must be read for ever. If this test fails, make a version 2.
func TestGolden(t *testing.T) {
	t.Parallel()
	s, a := golden(t)
	for name, data := range map[string][]byte{"step.v1.json": must(s.Encode()), "attempt.v1.json": must(a.Encode())} {
		want, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(string(want)), string(data)); diff != "" {
			t.Errorf("%s: %s\ngot %s", name, diff, data)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	s, a := golden(t)
	step, attempt := string(must(s.Encode())), string(must(a.Encode()))
	for name, c := range map[string]struct{ data, want string }{
		"newer":         {strings.Replace(step, `"v":1`, `"v":2,"shape":"other"`, 1), "error[state-unusable]: the record of the action has version 2, this runbook reads up to 1"},
		"no version":    {strings.Replace(step, `"v":1,`, ``, 1), "no version"},
		"unknown field": {strings.Replace(step, `"v":1`, `"v":1,"extra":1`, 1), "unknown field"},
		"unknown state": {strings.Replace(step, `"state":"resolved_done"`, `"state":"done"`, 1), "unknown state"},
		"other key":     {strings.Replace(step, `"attempt":1`, `"attempt":2`, 1), "not that of its identity"},
		"history":       {strings.Replace(step, `"state":"resolved_done"`, `"state":"in_doubt"`, 1), "history does not end"},
		"trailing":      {step + "{}", "invalid character"},
		"truncated":     {step[:len(step)-3], "unexpected end"},
		"empty":         {"", "unexpected end"},
	} {
		_, err := DecodeStep([]byte(c.data))
		if err == nil || !strings.Contains(wording(err), c.want) {
			t.Errorf("step, %s: got %v, want %q", name, err, c.want)
		}
	}
	for name, c := range map[string]struct{ data, want string }{
		"newer":         {strings.Replace(attempt, `"v":1`, `"v":9`, 1), "version 9"},
		"unknown state": {strings.Replace(attempt, `"state":"closed"`, `"state":"x"`, 1), "unknown state"},
		"unknown field": {strings.Replace(attempt, `"verify":{`, `"verify":{"x":1,`, 1), "unknown field"},
	} {
		_, err := DecodeAttempt([]byte(c.data))
		if err == nil || !strings.Contains(wording(err), c.want) {
			t.Errorf("attempt, %s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := (&Step{State: Begun}).Encode(); err == nil {
		t.Error("a record that could not be read back was encoded")
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"step.v1.json", "attempt.v1.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		// What is accepted is written back as the same record.
		if s, err := DecodeStep(data); err == nil {
			again, err := s.Encode()
			if err != nil {
				t.Fatalf("decoded, but not encoded: %v", err)
			}
			back, err := DecodeStep(again)
			if err != nil || !bytes.Equal(must(back.Encode()), again) {
				t.Fatalf("not stable (%v): %s", err, again)
			}
		}
		if a, err := DecodeAttempt(data); err == nil {
			again, err := a.Encode()
			if err != nil {
				t.Fatalf("decoded, but not encoded: %v", err)
			}
			if back, err := DecodeAttempt(again); err != nil || !bytes.Equal(must(back.Encode()), again) {
				t.Fatalf("not stable (%v): %s", err, again)
			}
		}
	})
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	base := newStep(1).Identity
	seen := map[string]string{base.Key(): "base"}
	for name, change := range map[string]func(*Identity){
		"namespace": func(i *Identity) { i.Namespace += "x" }, "runbook": func(i *Identity) { i.Runbook += "x" },
		"target": func(i *Identity) { i.Target += "x" }, "episode": func(i *Identity) { i.Episode += "x" },
		"attempt": func(i *Identity) { i.Attempt++ }, "step": func(i *Identity) { i.Step++ },
		"moved": func(i *Identity) { i.Namespace, i.Runbook = i.Namespace+i.Runbook, "" },
	} {
		i := base
		change(&i)
		if other, dup := seen[i.Key()]; dup {
			t.Errorf("%s and %s share a key", name, other)
		}
		seen[i.Key()] = name
	}
	// The key is part of what back ends remember: it never changes.
	const want = "id4jedj2bw"
	if got := ShortID(base.Key()); got != want || len(base.Key()) != 52 {
		t.Errorf("key %s, want it to begin with %s", base.Key(), want)
	}
	two := base
	two.Step = 2
	if base.AttemptID() != two.AttemptID() || base.AttemptID() == ShortID(base.Key()) {
		t.Errorf("the steps of an attempt must share its id, and not have it")
	}
	src := rand.NewChaCha8([32]byte{1})
	a, err := NewNonce(src)
	if b, err2 := NewNonce(src); err != nil || err2 != nil || a == b || len(a) != 26 {
		t.Errorf("nonces %q %q (%v, %v)", a, b, err, err2)
	}
	if _, err := NewNonce(strings.NewReader("short")); err == nil {
		t.Error("a nonce from 5 bytes")
	}
}

func TestLateContradicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state, late StepState
		want        bool
	}{
		{ResolvedNotDone, Succeeded, true},
		{ResolvedDone, Succeeded, false},
		{Succeeded, Failed, true},
		{InDoubt, Succeeded, false},
		{Abandoned, Succeeded, false},
		{NotStarted, Succeeded, true},
	} {
		s := Step{State: c.state, Late: []Outcome{{State: c.late}}}
		if got := s.LateContradicts(); got != c.want {
			t.Errorf("%s and late %s: %v", c.state, c.late, got)
		}
	}
}
