package action

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Sample is one measurement of the target that is being verified: of the left side of its symptom, or of expect.
type Sample struct {
	At    time.Time // as measured, never when it was asked for
	Value float64
}

// health is what one moment says about the target, the worse the higher.
type health int

const (
	healthy health = iota
	unknown
	sick
)

// Judge decides whether an attempt helped, from what was measured until now.
//
//	Verified      healthy samples, and nothing else, for min(held, (within - settle) / 2) somewhere between endedAt + settle and
//	              endedAt + within; the first such stretch decides, however seldom Judge is asked
//	Ineffective   no such stretch, and sick at endedAt + within
//	Inconclusive  neither, when endedAt + within has passed
//
// Before one of them holds, the state stays Complete and done is false. A sample before endedAt + settle, after the deadline or after now
// does not count. A gap that is longer than a measurement stays good for ends a stretch, as does a NaN; a moment with several samples is as bad as
// the worst of them. detail says it in words, with the figures.
func Judge(v Verification, endedAt, now time.Time, samples []Sample) (state AttemptState, detail string, done bool) {
	from, deadline := endedAt.Add(v.Settle), endedAt.Add(v.Within)
	need := max(0, min(v.Held, (v.Within-v.Settle)/2))

	var last, since moment
	streak := false
	for _, m := range moments(v, from, deadline, now, samples) {
		// The stretch goes on only if this moment follows closely enough on the one before.
		streak = streak && m.health == healthy && m.at.Sub(last.at) <= v.gap()
		if m.health == healthy && !streak {
			streak, since = true, m
		}
		last = m
		if streak && m.at.Sub(since.at) >= need {
			return Verified, fmt.Sprintf("healthy from %s for %s: %s", clock(since.at), span(m.at.Sub(since.at)), v.reading(m)), true
		}
	}

	fresh := !last.at.IsZero() && deadline.Sub(last.at) <= v.gap()
	switch {
	case now.Before(deadline) && streak:
		return Complete, fmt.Sprintf("healthy for %s of %s: %s", span(last.at.Sub(since.at)), span(need), v.reading(last)), false
	case now.Before(deadline) && now.Before(from):
		return Complete, fmt.Sprintf("measurements count from %s", clock(from)), false
	case now.Before(deadline):
		return Complete, fmt.Sprintf("not healthy yet, until %s: %s", clock(deadline), v.reading(last)), false
	case v.Expr == "" && v.Expect == "":
		return Inconclusive, "there is neither a symptom nor an expectation to judge by", true
	case fresh && last.health == sick:
		return Ineffective, fmt.Sprintf("sick at the deadline %s: %s", clock(deadline), v.reading(last)), true
	case fresh && streak:
		return Inconclusive, fmt.Sprintf("healthy for only %s of %s at the deadline: %s", span(last.at.Sub(since.at)), span(need), v.reading(last)), true
	default:
		return Inconclusive, fmt.Sprintf("unknown at the deadline %s: %s", clock(deadline), v.reading(last)), true
	}
}

// gap is how long a measurement stays good for. Samples come with the times at which they were measured, and those are as far apart as the
// source scrapes, which may be more seldom than we ask.
func (v Verification) gap() time.Duration { return max(2*v.Sampling, v.MaxAge) }

// moment is all that was measured at one time.
type moment struct {
	at     time.Time
	health health
	value  float64
}

// moments are those that count, in time order, one for each timestamp.
func moments(v Verification, from, deadline, now time.Time, samples []Sample) []moment {
	var all []moment
	for _, s := range samples {
		if s.At.Before(from) || s.At.After(deadline) || s.At.After(now) {
			continue
		}
		all = append(all, moment{s.At, v.health(s.Value), s.Value})
	}
	slices.SortStableFunc(all, func(a, b moment) int {
		// The worst of one moment first, so that compacting keeps it.
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(b.health, a.health))
	})
	return slices.CompactFunc(all, func(a, b moment) bool { return a.at.Equal(b.at) })
}

func (v Verification) health(x float64) health {
	if math.IsNaN(x) {
		return unknown
	}
	if v.Expect != "" {
		if x != 0 {
			return healthy
		}
		return sick
	}
	var holds bool
	switch v.Op {
	case ">":
		holds = x > v.Threshold
	case ">=":
		holds = x >= v.Threshold
	case "<":
		holds = x < v.Threshold
	case "<=":
		holds = x <= v.Threshold
	case "==":
		holds = x == v.Threshold
	case "!=":
		holds = x != v.Threshold
	default:
		return unknown
	}
	switch {
	case v.Expr == "" || math.IsNaN(v.Threshold):
		return unknown
	case holds:
		return sick
	}
	return healthy
}

// reading says what was measured last, against what.
func (v Verification) reading(m moment) string {
	switch {
	case m.at.IsZero():
		return "nothing was measured"
	case v.Expect != "":
		return fmt.Sprintf("%s was %v at %s", v.Expect, m.value, clock(m.at))
	}
	return fmt.Sprintf("%s was %v at %s, sick is %s %v", v.Expr, m.value, clock(m.at), v.Op, v.Threshold)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

func span(d time.Duration) string { return value.FormatDuration(d.Round(time.Second)) }
