package guard

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
)

// Every guard has a rule in words, and its own name.
func TestList(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, g := range All() {
		if g.Name == "" || seen[g.Name] || g.Doc == "" || g.Set == "" || g.Check == nil || g.Scope != PerAttempt && g.Scope != PerStep {
			t.Errorf("guard %+v", g)
		}
		seen[g.Name] = true
		if named, ok := Named(g.Name); !ok || named.Doc != g.Doc {
			t.Errorf("%s is not found by its name", g.Name)
		}
	}
	if _, ok := Named("no such guard"); ok {
		t.Error("a guard that there is not")
	}
}

// A request of which nothing is known is refused, and a policy of which nothing is set is the defaults.
func TestNothingKnown(t *testing.T) {
	t.Parallel()
	if refused := Refused(Evaluate(Input{})); len(refused) < 4 {
		t.Errorf("only %v refuse", refused)
	}
	if diff := cmp.Diff(Defaults(), Policy{}.WithDefaults()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Defaults(), Policy{Attempts: -1, Cooldown: -1, FleetShare: -5}.WithDefaults()); diff != "" {
		t.Error(diff)
	}
}

func pick[T any](t *rapid.T, name string, from ...T) T { return rapid.SampledFrom(from).Draw(t, name) }

func moment(t *rapid.T, name string) action.Clock {
	// Trusted and wall time need not agree.
	return action.Clock{
		Wall:    epoch.Add(time.Duration(rapid.IntRange(-300, 300).Draw(t, name+" wall")) * time.Minute),
		Trusted: time.Duration(rapid.IntRange(0, 300).Draw(t, name+" trusted")) * time.Minute,
	}
}

func keys(t *rapid.T, name string) []string {
	var all []string
	for range rapid.IntRange(0, 4).Draw(t, name) {
		all = append(all, fmt.Sprintf("instance=w%d", rapid.IntRange(0, 11).Draw(t, "key")))
	}
	return all
}

func drawInput(t *rapid.T) Input {
	in := base()
	in.Now = moment(t, "now")
	in.Policy.Mode = pick(t, "mode", Auto, Auto, Approve, Recommend, Shadow, "", "x")
	in.Severity = pick(t, "severity", Info, Warning, Critical, "", "x")
	in.Attempt = pick(t, "attempt", "", "", "a1")
	in.OldestRead = pick(t, "read", time.Time{}, epoch)
	in.Fleet.Single = rapid.Bool().Draw(t, "single")
	in.Fleet.Sick, in.Fleet.Unknown, in.Fleet.Missing = keys(t, "sick"), keys(t, "unknown"), keys(t, "missing")
	in.Fleet.MaxBad = rapid.IntRange(0, 4).Draw(t, "max_bad")
	in.Cooling = keys(t, "cooling")
	states := []action.AttemptState{
		action.Open, action.Complete, action.Verified, action.Ineffective, action.Inconclusive, action.AttemptFailed, action.Interrupted, action.Closed,
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "open") {
		in.Open = append(in.Open, OpenAttempt{
			ID: fmt.Sprintf("a%d", i), Runbook: pick(t, "runbook", "worker", "disk"), Target: pick(t, "target", "instance=w3", "instance=w4"),
			Fleet: pick(t, "fleet", "f1", "f2"), State: rapid.SampledFrom(states).Draw(t, "state"), Since: moment(t, "since"), OwnerAlive: rapid.Bool().Draw(t, "alive"),
		})
	}
	if rapid.Bool().Draw(t, "doubt") {
		in.InDoubt = []DoubtfulStep{{ID: "s1", Target: pick(t, "target", "instance=w3", "instance=w4"), Since: moment(t, "since")}}
	}
	if rapid.Bool().Draw(t, "cooldown") {
		in.State.Cooldown = Cooldown{StartedAt: moment(t, "started"), For: time.Hour, Attempt: pick(t, "attempt", "a0", "a1")}
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "started") {
		in.Started = append(in.Started, Started{Attempt: fmt.Sprint(i), At: moment(t, "started")})
	}
	in.State.Episode.Attempts = rapid.IntRange(0, 3).Draw(t, "attempts")
	if rapid.Bool().Draw(t, "last") {
		in.Last = &LastAttempt{ID: "a0", State: rapid.SampledFrom(states).Draw(t, "state"), EndedAt: moment(t, "ended"), Verifies: rapid.Bool().Draw(t, "verifies")}
	}
	if rapid.IntRange(0, 4).Draw(t, "halt") == 0 {
		in.Halt = []control.HaltInfo{{Source: control.SourceFile, Reason: "r", Until: pick(t, "until", time.Time{}, epoch)}}
	}
	return in
}

// Evaluation depends on the input alone, answers for every guard in the order of the list, says something in each verdict, and what it says
// survives being stored.
func TestEvaluateProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		verdicts := Evaluate(in)
		if diff := cmp.Diff(verdicts, Evaluate(in)); diff != "" {
			t.Fatalf("a second time: %s", diff)
		}
		if len(verdicts) != len(All()) {
			t.Fatalf("%d verdicts of %d guards", len(verdicts), len(All()))
		}
		for i, v := range verdicts {
			g := All()[i]
			switch {
			case v.Guard != g.Name || v.Measured == "":
				t.Fatalf("verdict %+v of %s", v, g.Name)
			case v.Skipped != (g.Scope == PerAttempt && in.Attempt != ""):
				t.Fatalf("%s skipped=%v", v.Guard, v.Skipped)
			case !v.Passed && v.Class != Passes && v.Class != Person, !v.Passed && v.Limit == "":
				t.Fatalf("a refusal without class or limit: %+v", v)
			case !v.Passed && v.Class == Person && v.Lifts == "":
				t.Fatalf("a person is not told what to do: %+v", v)
			case v.Passed && (v.Class != "" || !v.LiftsAt.IsZero()):
				t.Fatalf("a pass that lifts: %+v", v)
			}
		}
		data, err := json.Marshal(verdicts)
		if err != nil {
			t.Fatal(err)
		}
		var back []Verdict
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(verdicts, back); diff != "" {
			t.Fatalf("changed by being stored: %s", diff)
		}
	})
}

// One more reason to refuse never lets anything pass that was refused.
func TestMoreBadNeverHelps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.Attempt = ""
		before := map[string]bool{}
		for _, v := range Evaluate(in) {
			before[v.Guard] = v.Passed
		}
		in.Fleet.Sick = append(slices.Clip(in.Fleet.Sick), keys(t, "more")...)
		in.Cooling = append(slices.Clip(in.Cooling), keys(t, "more")...)
		in.Started = append(slices.Clip(in.Started), Started{Attempt: "new", At: in.Now})
		in.State.Episode.Attempts++
		in.InDoubt = append(slices.Clip(in.InDoubt), DoubtfulStep{ID: "s2", Target: in.Target.Key})
		for _, v := range Evaluate(in) {
			if v.Passed && !before[v.Guard] {
				t.Fatalf("%s passes now: %+v", v.Guard, v)
			}
		}
	})
}

// Whatever the order of events and however the wall clock jumps, no window ever holds more starts than its rate allows, an action is not started
// twice within its cooldown, and a refusal that says when it lifts is right.
func TestSlidingWindows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := base()
		in.Policy.Attempts, in.Policy.OpenTotal = 1000, 1000
		in.Policy.Cooldown = 7 * time.Minute
		in.Policy.Rates = []Rate{{3, 10 * time.Minute}, {10, time.Hour}}
		in.Now = action.Clock{Wall: epoch}
		var starts []time.Duration
		for i := range rapid.IntRange(10, 80).Draw(t, "events") {
			step := time.Duration(rapid.IntRange(0, 400).Draw(t, "step")) * time.Second
			jump := time.Duration(rapid.SampledFrom([]int{0, 0, 0, -90, 90, 100000}).Draw(t, "jump")) * time.Minute
			in.Now.Trusted += step
			in.Now.Wall = in.Now.Wall.Add(step + jump)

			verdicts := Refused(Evaluate(in))
			if len(verdicts) == 0 {
				starts = append(starts, in.Now.Trusted)
				in.Started = append(in.Started, Started{Attempt: fmt.Sprint(i), At: in.Now})
				in.State.Cooldown = Cooldown{StartedAt: in.Now, For: time.Minute, Attempt: fmt.Sprint(i)}
				continue
			}
			for _, v := range verdicts {
				if v.Guard != "rate" && v.Guard != "cooldown" || v.LiftsAt.IsZero() {
					t.Fatalf("refused by %+v", v)
				}
				g, _ := Named(v.Guard)
				then := in
				wait := v.LiftsAt.Sub(in.Now.Wall)
				then.Now = action.Clock{Wall: v.LiftsAt, Trusted: in.Now.Trusted + wait}
				if wait <= 0 || !g.judge(then).Passed {
					t.Fatalf("%s does not lift at %s", v.Guard, v.LiftsAt)
				}
				then.Now.Trusted--
				if g.judge(then).Passed {
					t.Fatalf("%s lifts before %s", v.Guard, v.LiftsAt)
				}
			}
		}
		for i, from := range starts {
			for _, r := range in.Policy.Rates {
				n := 0
				for _, s := range starts[i:] {
					if s-from < r.Per {
						n++
					}
				}
				if n > r.Count {
					t.Fatalf("%d starts within %s of %s", n, r.Per, from)
				}
			}
			if i > 0 && from-starts[i-1] < in.Policy.Cooldown {
				t.Fatalf("started again after %s", from-starts[i-1])
			}
		}
	})
}
