// Package clock keeps time that can be trusted with a cooldown.
//
// Trusted time is a number that is saved and never goes back. It grows by what has certainly passed, so an error of a clock
// can make a cooldown longer and never shorter:
//
//   - Within one boot it grows by the kernel's boot time clock, which counts suspend and which nobody can set.
//   - Over a reboot it grows by the time since the boot; by the wall clock only if that was synchronised both when the time
//     was saved and now.
//   - Where there is no boot time clock it grows by the wall clock, when that goes forward, by at most a day at once.
//
// The wall clock decides calendars. A clock that is not synchronised and has jumped ahead by more than a day is therefore
// not believed: Problem says so until it is synchronised, goes back, or a person accepts it.
//
// Advance and Accept are pure. Only Read touches the machine.
package clock

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// MaxJump is how far an unsynchronised wall clock may get ahead of the time that has passed, and the most that it may
// credit at once where it is the only clock. A jump of exactly this much is still believed.
const MaxJump = 24 * time.Hour

// tolerance is below what is worth a note: clocks are slewed and read one after the other.
const tolerance = 2 * time.Second

// origin is the trusted time of the first sample. Not zero, so that zero can mean never.
const origin = time.Hour

// Sample is one reading of the machine's clocks.
type Sample struct {
	Wall   time.Time
	Boot   string        // names the boot; "" if this system has no boot time clock
	Uptime time.Duration // since the boot, suspend included
	Synced bool          // the kernel says that the wall clock follows a time server
}

// Saved is what has to be kept, in the same transaction as what was decided by it. The zero value is a clock that was never
// read.
type Saved struct {
	V       int           `json:"v"` // 1
	Trusted time.Duration `json:"trusted"`
	Wall    time.Time     `json:"wall"` // of the last sample
	Boot    string        `json:"boot,omitempty"`
	Uptime  time.Duration `json:"uptime,omitempty"`
	Synced  bool          `json:"synced,omitempty"`
	// Ahead is by how much the wall clock is ahead of what has passed, while that is not believed.
	Ahead time.Duration `json:"ahead,omitempty"`
}

// Note is something about the clocks that a person may want to know.
type Note struct {
	Code string `json:"code"` // "backwards", "forwards", "reboot", "confirmed", "uptime-backwards"
	Text string `json:"text"`
}

// Advance moves the clock to a new sample.
func Advance(saved Saved, now Sample) (Saved, []Note) {
	next := Saved{V: 1, Wall: now.Wall.Round(0).UTC(), Boot: now.Boot, Uptime: now.Uptime, Synced: now.Synced}
	if saved.V == 0 {
		next.Trusted = origin
		return next, nil
	}
	var notes []Note
	note := func(code, format string, args ...any) {
		notes = append(notes, Note{code, fmt.Sprintf(format, args...)})
	}

	moved := next.Wall.Sub(saved.Wall)
	passed := credit(saved, now, moved, note)
	next.Trusted = add(saved.Trusted, passed)

	// The boundary: what the wall clock moved beyond what has passed.
	ahead := add(moved, -passed)
	switch {
	case ahead < -tolerance:
		note("backwards", "the wall clock was set back by about %s", round(-ahead))
	case ahead > tolerance:
		note("forwards", "the wall clock is ahead by %s of the time that has certainly passed", round(ahead))
	}
	if saved.Ahead > 0 {
		ahead = add(saved.Ahead, ahead)
	}
	switch {
	case ahead > MaxJump && !now.Synced:
		next.Ahead = ahead
	case saved.Ahead > 0:
		note("confirmed", "the wall clock is believed again: it is %s", next.Wall.Format(time.RFC3339))
	}
	return next, notes
}

// credit is the time that has certainly passed since the sample that was saved.
func credit(saved Saved, now Sample, moved time.Duration, note func(code, format string, args ...any)) time.Duration {
	switch {
	case now.Boot == "":
		return min(max(moved, 0), MaxJump)
	case now.Boot != saved.Boot:
		note("reboot", "the machine was started %s ago", round(now.Uptime))
		if saved.Synced && now.Synced {
			return max(moved, now.Uptime, 0)
		}
		// At least since the boot, which came after the sample. What it was off for, nobody knows.
		if saved.Boot == "" {
			return 0 // the boot may be older than the sample
		}
		return max(now.Uptime, 0)
	case now.Uptime < saved.Uptime:
		note("uptime-backwards", "the machine's uptime went back from %s to %s: was it restored from a snapshot?",
			round(saved.Uptime), round(now.Uptime))
		return 0
	default:
		return now.Uptime - saved.Uptime
	}
}

// Accept moves the clock to a new sample and believes its wall clock: a person has looked. Trusted time gets nothing for the
// jump, since nobody knows whether the clock was wrong before or is now.
func Accept(saved Saved, now Sample) Saved {
	next, _ := Advance(saved, now)
	next.Ahead = 0
	return next
}

// Clock returns the moment for records and guards.
func (s Saved) Clock() action.Clock { return action.Clock{Wall: s.Wall, Trusted: s.Trusted} }

// Problem returns nil while the wall clock is believed. While it is not, nothing may act.
func (s Saved) Problem() error {
	if s.Ahead <= 0 {
		return nil
	}
	return problem.New(problem.Refused, "the clock says %s, which is %s ahead of the time that has certainly passed, and it is not synchronised",
		s.Wall.Format(time.RFC3339), round(s.Ahead)).
		WithHint("start time synchronisation (timedatectl set-ntp true), or if the time is right: runbook clock accept")
}

// Encode returns the saved form.
func (s Saved) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, problem.Wrap(problem.Internal, err, "encode clock")
	}
	return b, nil
}

// Decode reads the saved form; nil is a clock that was never read. Anything that cannot be read is an error and never a new
// clock.
func Decode(b []byte) (Saved, error) {
	if b == nil {
		return Saved{}, nil
	}
	var s Saved
	if err := json.Unmarshal(b, &s); err != nil {
		return Saved{}, damaged("it cannot be read: %v", err)
	}
	switch {
	case s.V > 1:
		return Saved{}, problem.New(problem.StateUnusable, "the saved clock was written by a newer version (format %d, this one knows 1)", s.V).
			WithHint("install the newer runbook; it was used here before")
	case s.V != 1 || s.Trusted < origin || s.Wall.IsZero() || s.Ahead < 0:
		return Saved{}, damaged("it says something impossible")
	}
	return s, nil
}

func damaged(format string, args ...any) error {
	return problem.New(problem.StoreDamaged, "the saved clock is damaged: %s", fmt.Sprintf(format, args...)).
		WithHint("nothing acts until it is repaired: see runbook doctor, then restore the state directory from a backup")
}

// add saturates: a wall clock at the end of time must not wrap round.
func add(a, b time.Duration) time.Duration {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
