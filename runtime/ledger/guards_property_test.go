package ledger_test

import (
	"flag"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/guard"
)

// story is a fleet and all that happens to it.
type story struct {
	Size, Open, Share, Attempts int
	Cooldown                    int // minutes
	Synced, Approve             bool
	Events                      []event
}

func stories() *rapid.Generator[story] {
	one := rapid.Custom(func(t *rapid.T) event {
		return event{
			Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Who: rapid.IntRange(0, 11).Draw(t, "who"), What: rapid.IntRange(0, 11).Draw(t, "what"),
			Much: rapid.IntRange(0, 99).Draw(t, "much"), Yes: rapid.Bool().Draw(t, "yes"), Other: rapid.Bool().Draw(t, "other"),
		}
	})
	return rapid.Custom(func(t *rapid.T) story {
		return story{
			Synced: rapid.Bool().Draw(t, "synced"), Approve: rapid.IntRange(0, 3).Draw(t, "approve") == 0, Size: rapid.IntRange(3, 12).Draw(t, "size"), Open: rapid.IntRange(1, 3).Draw(t, "open"),
			Share: rapid.SampledFrom([]int{20, 20, 100}).Draw(t, "share"), Attempts: rapid.SampledFrom([]int{2, 2, 50}).Draw(t, "attempts"),
			Cooldown: rapid.SampledFrom([]int{1, 5, 40, 60}).Draw(t, "cooldown"), Events: rapid.SliceOfN(one, 10, 120).Draw(t, "events"),
		}
	})
}

// Whatever happens in whatever order, with clocks that jump, reboots, crashes and runs beside each other: no window ever holds more attempts than its rate
// allows, a problem has no more attempts than it may, and nothing acts while halted, disabled, protected, in doubt, cooling or open, nor beside a
// canary, nor on too sick a fleet.
func TestPropertyGuards(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := stories().Draw(t, "story")
		if wrong := newSim(guard.Evaluate, s).play(s.Events); wrong != "" {
			t.Fatal(wrong)
		}
	})
}

// mutant is one guard with a mistake that somebody has really made.
type mutant struct {
	name, guard string
	change      func(in *guard.Input)
	rare        bool // found in some ten thousand stories: looked for by make property only
}

// mutants must each be noticed by the rules above.
var mutants = []mutant{
	{"a fixed window", "rate", func(in *guard.Input) {
		in.Started = slices.DeleteFunc(slices.Clone(in.Started), func(s guard.Started) bool {
			return s.At.Trusted/(10*time.Minute) != in.Now.Trusted/(10*time.Minute)
		})
	}, false},
	{"a clock that goes backwards and forwards", "cooldown", func(in *guard.Input) {
		in.Now, in.State.Cooldown.StartedAt = wall(in.Now), wall(in.State.Cooldown.StartedAt)
	}, false},
	{"a rate on a clock that goes backwards and forwards", "rate", func(in *guard.Input) {
		in.Now, in.Started = wall(in.Now), slices.Clone(in.Started)
		for i := range in.Started {
			in.Started[i].At = wall(in.Started[i].At)
		}
	}, true},
	{"what is under way counts as healthy", "fleet", func(in *guard.Input) { in.Open = nil }, false},
	{"what is cooling down counts as healthy", "fleet", func(in *guard.Input) { in.Cooling = nil }, false},
	{"unknown counts as healthy", "fleet", func(in *guard.Input) { in.Fleet.Unknown = nil }, false},
	{"missing counts as healthy", "fleet", func(in *guard.Input) { in.Fleet.Missing = nil }, false},
	{"a percentage that is rounded up", "fleet", func(in *guard.Input) {
		n := len(in.Fleet.Members)
		in.Policy.FleetShare = ((n*in.Policy.FleetShare+99)/100*100 + n - 1) / n
	}, false},
	{"a brief recovery ends the problem", "attempts", func(in *guard.Input) {
		if in.Last != nil && in.Last.State == action.Verified {
			in.State.Episode.Attempts = 0
		}
	}, false},
	{"no attempts are counted", "attempts", func(in *guard.Input) { in.State.Episode.Attempts = 0 }, false},
	{"a halt is not asked for", "halt", func(in *guard.Input) { in.Halt = nil }, false},
	{"disables are not asked for", "disabled", func(in *guard.Input) { in.Disables = nil }, false},
	{"nothing is protected", "protected", func(in *guard.Input) { in.Policy.Protected = nil }, false},
	{"a target is not kept", "busy", func(in *guard.Input) { in.Open = nil }, false},
	{"the breaker only warns", "breaker", func(in *guard.Input) { in.Breaker = breaker.New() }, false},
	{"many canaries at a time", "breaker", func(in *guard.Input) { in.Breaker.Canary = in.Attempt }, false},
	{"an approval covers everything after it", "mode", func(in *guard.Input) {
		if in.Approval != nil {
			in.Approval.Answer, in.Approval.Attempt = guard.Approved, ""
		}
	}, false},
	{"an approval never expires", "mode", func(in *guard.Input) {
		if in.Approval != nil {
			a := *in.Approval
			a.AskedAt = in.Now
			in.Approval = &a
		}
	}, true},
	{"a cooldown that is too short", "cooldown", func(in *guard.Input) { in.State.Cooldown.StartedAt.Trusted -= 20 * time.Minute }, false},
}

// judge is every guard, that one with its mistake.
func (m mutant) judge(in guard.Input) []guard.Verdict {
	verdicts := guard.Evaluate(in)
	m.change(&in)
	for i, v := range guard.Evaluate(in) {
		if v.Guard == m.guard {
			verdicts[i] = v
		}
	}
	return verdicts
}

func wall(c action.Clock) action.Clock {
	if !c.IsZero() {
		c.Trusted = c.Wall.Sub(epoch) + 24*time.Hour
	}
	return c
}

// Each of the mistakes is found soon; the stories are the same each time.
func TestPropertyMutants(t *testing.T) {
	t.Parallel()
	const most = 20_000
	many := flag.Lookup("rapid.checks").Value.String() != "100"
	for _, m := range mutants {
		if m.rare && !many {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			gen := stories()
			for seed := range most {
				s := gen.Example(seed)
				s.Approve = s.Approve || m.guard == "mode"
				if wrong := newSim(m.judge, s).play(s.Events); wrong != "" {
					t.Logf("story %d: %s", seed, wrong)
					return
				}
			}
			t.Errorf("not found in %d stories", most)
		})
	}
}
