package clock

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(wall time.Duration, boot string, uptime time.Duration, synced bool) Sample {
	return Sample{Wall: noon.Add(wall), Boot: boot, Uptime: uptime, Synced: synced}
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	for _, c := range []struct {
		name     string
		from, to Sample
		passed   time.Duration
		notes    string
		refuses  bool
	}{
		{"nothing special", at(0, "a", h, false), at(h, "a", 2*h, false), h, "", false},
		{"the same moment", at(0, "a", h, false), at(0, "a", h, false), 0, "", false},
		{"wall clock set back", at(0, "a", h, false), at(-5*h, "a", 2*h, false), h, "backwards", false},
		{"wall clock set ahead by a day", at(0, "a", h, false), at(25*h, "a", 2*h, false), h, "forwards", false},
		{"by more than a day", at(0, "a", h, false), at(25*h+time.Second, "a", 2*h, false), h, "forwards", true},
		{"by more than a day, synchronised", at(0, "a", h, false), at(99*h, "a", 2*h, true), h, "forwards", false},
		{"suspended for days", at(0, "a", h, false), at(99*h, "a", 100*h, false), 99 * h, "", false},
		{"restored from a snapshot", at(0, "a", 9*h, false), at(h, "a", 2*h, false), 0, "forwards uptime-backwards", false},
		{"reboot", at(0, "a", 9*h, false), at(h, "b", h/2, false), h / 2, "forwards reboot", false},
		{"reboot, synchronised then and now", at(0, "a", 9*h, true), at(h, "b", h/2, true), h, "reboot", false},
		{"reboot, synchronised only now", at(0, "a", 9*h, false), at(h, "b", h/2, true), h / 2, "forwards reboot", false},
		{"reboot, synchronised only then", at(0, "a", 9*h, true), at(h, "b", h/2, false), h / 2, "forwards reboot", false},
		{"reboot, wall clock behind", at(0, "a", 9*h, true), at(-h, "b", h/2, true), h / 2, "backwards reboot", false},
		{"off for a week, not synchronised", at(0, "a", 9*h, true), at(7*24*h, "b", 0, false), 0, "forwards reboot", true},
		{"off for a week, synchronised", at(0, "a", 9*h, true), at(7*24*h, "b", 0, true), 7 * 24 * h, "reboot", false},
		{"no boot clock", at(0, "", 0, false), at(h, "", 0, false), h, "", false},
		{"no boot clock, backwards", at(0, "", 0, false), at(-h, "", 0, false), 0, "backwards", false},
		{"no boot clock, a day ahead", at(0, "", 0, false), at(24*h, "", 0, false), 24 * h, "", false},
		{"no boot clock, two days and more ahead", at(0, "", 0, false), at(49*h, "", 0, false), 24 * h, "forwards", true},
		{"boot clock appears", at(0, "", 0, false), at(h, "b", 9*h, false), 0, "forwards reboot", false},
		{"end of time", at(0, "a", 0, false), Sample{Wall: noon.AddDate(9000, 0, 0), Boot: "a"}, 0, "forwards", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from, _ := Advance(Saved{}, c.from)
			to, notes := Advance(from, c.to)
			if got := to.Trusted - from.Trusted; got != c.passed {
				t.Errorf("trusted time grew by %s, want %s", got, c.passed)
			}
			if diff := cmp.Diff(action.Clock{Wall: c.to.Wall, Trusted: origin + c.passed}, to.Clock()); diff != "" {
				t.Error(diff)
			}
			for n := range strings.FieldsSeq(c.notes) {
				if !hasNote(notes, n) {
					t.Errorf("no note %q in %v", n, notes)
				}
			}
			if len(notes) != len(strings.Fields(c.notes)) {
				t.Errorf("notes %v, want %q", notes, c.notes)
			}
			if got := to.Problem() != nil; got != c.refuses {
				t.Errorf("refuses: %v, want %v (%v)", got, c.refuses, to.Problem())
			}
		})
	}
}

func hasNote(notes []Note, code string) bool {
	for _, n := range notes {
		if n.Code == code {
			return true
		}
	}
	return false
}

// jumped is a clock that is not believed.
func jumped(t *testing.T) Saved {
	t.Helper()
	s, _ := Advance(Saved{}, at(0, "a", 0, false))
	s, _ = Advance(s, at(48*time.Hour, "a", time.Minute, false))
	if s.Problem() == nil {
		t.Fatal("a jump by two days is believed")
	}
	return s
}

func TestJumpStaysUntilSettled(t *testing.T) {
	t.Parallel()
	next := func(wall time.Duration, synced bool) Sample { return at(wall, "a", 2*time.Minute, synced) }
	s := jumped(t)

	still, _ := Advance(s, next(48*time.Hour+time.Minute, false))
	if still.Problem() == nil {
		t.Error("it is believed at the next sample, though nobody has looked")
	}
	var p *problem.Problem
	if !errors.As(still.Problem(), &p) || p.Code != problem.Refused || !strings.Contains(p.Hint, "runbook clock accept") {
		t.Errorf("got %v, want a refusal that says how to accept", still.Problem())
	}
	if back, notes := Advance(s, next(2*time.Minute, false)); back.Problem() != nil || !hasNote(notes, "confirmed") {
		t.Errorf("not believed after it went back: %v %v", back.Problem(), notes)
	}
	if synced, notes := Advance(s, next(48*time.Hour, true)); synced.Problem() != nil || !hasNote(notes, "confirmed") {
		t.Errorf("not believed though synchronised: %v %v", synced.Problem(), notes)
	}
	accepted := Accept(s, next(48*time.Hour+time.Minute, false))
	if accepted.Problem() != nil {
		t.Errorf("not believed though accepted: %v", accepted.Problem())
	}
	if got := accepted.Trusted - s.Trusted; got != time.Minute {
		t.Errorf("accepting credited %s, want the minute that passed", got)
	}
	if after, _ := Advance(accepted, at(48*time.Hour+2*time.Minute, "a", 3*time.Minute, false)); after.Problem() != nil {
		t.Errorf("not believed after it was accepted: %v", after.Problem())
	}
	if again, _ := Advance(accepted, at(96*time.Hour, "a", 3*time.Minute, false)); again.Problem() == nil {
		t.Error("another jump is believed because the first one was accepted")
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	s := jumped(t)
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const golden = `{"v":1,"trusted":3660000000000,"wall":"2026-03-03T12:00:00Z","boot":"a","uptime":60000000000,"ahead":172740000000000}`
	if diff := cmp.Diff(golden, string(b)); diff != "" {
		t.Errorf("stored clocks of version 1 must stay readable (-want +got):\n%s", diff)
	}
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Error(diff)
	}
	if fresh, err := Decode(nil); err != nil || fresh != (Saved{}) {
		t.Errorf("got %v, %v for a clock that was never saved", fresh, err)
	}
	for text, code := range map[string]problem.Code{
		``: problem.StoreDamaged, `{`: problem.StoreDamaged, `{}`: problem.StoreDamaged, `null`: problem.StoreDamaged,
		`{"v":1}`: problem.StoreDamaged, `{"v":1,"trusted":-1,"wall":"2026-03-03T12:00:00Z"}`: problem.StoreDamaged,
		`{"v":2}`: problem.StateUnusable,
	} {
		_, err := Decode([]byte(text))
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != code {
			t.Errorf("%q: got %v, want %s", text, err, code)
		}
	}
}

// world is what really happens. Its clocks may lie, but a synchronised wall clock does not.
type world struct {
	real   time.Duration // since the beginning: the truth
	off    time.Duration // wall clock minus truth
	boot   int
	booted time.Duration
	synced bool
}

func (w world) sample() Sample {
	return Sample{
		Wall: noon.Add(w.real + w.off), Boot: "boot" + string(rune('a'+w.boot%26)) + string(rune('a'+w.boot/26)),
		Uptime: w.real - w.booted, Synced: w.synced,
	}
}

func TestNeverCreditsMoreThanHasPassed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := world{real: time.Hour}
		saved, _ := Advance(Saved{}, w.sample())
		dur := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(t, "d")) >> rapid.IntRange(0, 40).Draw(t, "shift")
		})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := w
			w.real += dur.Draw(t, "passes")
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0:
				w.off, w.synced = w.off+dur.Draw(t, "set ahead"), false
			case 1:
				w.off, w.synced = w.off-dur.Draw(t, "set back"), false
			case 2:
				w.off, w.synced = 0, true
			case 3:
				w.synced = false
			case 4:
				w.boot, w.booted = w.boot+1, w.real
				w.real += dur.Draw(t, "since boot")
			}
			b, err := saved.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if saved, err = Decode(b); err != nil {
				t.Fatal(err)
			}
			next, _ := Advance(saved, w.sample())
			grew, truth := next.Trusted-saved.Trusted, w.real-before.real
			switch {
			case grew < 0:
				t.Fatalf("trusted time went back by %s", -grew)
			case grew > truth:
				t.Fatalf("%s passed and %s were credited: a cooldown ends too early", truth, grew)
			case w.boot == before.boot && grew != truth:
				t.Fatalf("%s passed within one boot and %s were credited", truth, grew)
			case w.synced && next.Problem() != nil:
				t.Fatalf("synchronised and not believed: %v", next.Problem())
			case next.Ahead != 0 && next.Ahead <= MaxJump:
				t.Fatalf("not believed for being ahead by %s", next.Ahead)
			}
			saved = next
		}
	})
}

// TestWallClockAlone: whatever the only clock does, time does not go back and no sample ends more than a day's cooldown.
func TestWallClockAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		saved := Saved{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now := Sample{Wall: time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "wall"), 0)}
			next, _ := Advance(saved, now)
			if saved.V != 0 {
				if grew := next.Trusted - saved.Trusted; grew < 0 || grew > MaxJump {
					t.Fatalf("grew by %s", grew)
				}
			}
			saved = next
		}
	})
}

func TestRead(t *testing.T) {
	t.Parallel()
	a, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if a.Boot != b.Boot || b.Uptime < a.Uptime {
		t.Errorf("%v then %v", a, b)
	}
	saved, _ := Advance(Saved{}, a)
	if next, _ := Advance(saved, b); next.Problem() != nil || next.Trusted-saved.Trusted != b.Uptime-a.Uptime && a.Boot != "" {
		t.Errorf("%v then %v", saved, next)
	}
}
