package testrun

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Change is what two versions of runbooks decide differently about one target, for as long as both decide the same.
type Change struct {
	Runbook string    `json:"runbook"`
	Target  string    `json:"target"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"` // the last tick
	Was     string    `json:"was"`
	Is      string    `json:"is"`
}

// Compare lists what is decided differently, in order of time. Both must be of the same window and step. That an action is done is compared at each tick; anything else
// counts as the same for as long as it says the same.
func Compare(was, is *Backtest) []Change {
	type key struct{ runbook, target string }
	spans := map[key][2][]Span{}
	for i, b := range []*Backtest{was, is} {
		for _, s := range b.Spans {
			k := key{s.Runbook, s.Target}
			both := spans[k]
			both[i] = append(both[i], s)
			spans[k] = both
		}
	}
	var out []Change
	for k, both := range spans {
		var at []time.Time // where something begins or has ended
		for _, list := range both {
			for _, s := range list {
				at = append(at, s.From, s.To.Add(is.Step))
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		at = slices.CompactFunc(at, time.Time.Equal)
		for i := 0; i+1 < len(at); i++ {
			c := Change{Runbook: k.runbook, Target: k.target, From: at[i], To: at[i+1].Add(-is.Step), Was: decided(both[0], at[i]), Is: decided(both[1], at[i])}
			if c.Was == c.Is {
				continue
			}
			if n := len(out); n > 0 && out[n-1].Runbook == c.Runbook && out[n-1].Target == c.Target && out[n-1].Was == c.Was && out[n-1].Is == c.Is && out[n-1].To.Add(is.Step).Equal(c.From) {
				out[n-1].To = c.To
				continue
			}
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Runbook, b.Runbook), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// decided is what is decided at a time, in words: "healthy" where nothing is.
func decided(spans []Span, at time.Time) string {
	for _, s := range spans {
		if !at.Before(s.From) && !at.After(s.To) {
			return s.Decision()
		}
	}
	return string(trace.Healthy)
}

// Decision is what was decided, in words.
func (s Span) Decision() string {
	switch {
	case s.Outcome == "":
		return string(s.Condition)
	case s.Outcome == trace.Acted:
		return spoken(string(s.Outcome)) + ": " + strings.Join(s.Actions, ", ")
	case len(s.Refused) > 0:
		return spoken(string(s.Outcome)) + " by " + strings.Join(s.Refused, ", ")
	case s.Outcome == trace.Escalated, s.Outcome == trace.Nothing:
		return spoken(string(s.Outcome)) + ": " + s.Reason
	}
	return spoken(string(s.Outcome))
}
