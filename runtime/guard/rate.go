package guard

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

var rate = Guard{
	Name: "rate", Scope: PerAttempt,
	Set: "Default 3 per 10m and 10 per 1h. `policy(rates = [rate(3, per = \"10m\"), rate(10, per = \"1h\")])`.",
	Doc: "Refuses when as many attempts as are allowed, over all runbooks, were started within the window before now. 3 in 10 minutes are allowed, the 4th is refused; " +
		"10 in 1 hour are allowed, the 11th is refused. The window slides: an attempt started exactly 10 minutes ago no longer counts.",
	Check: func(in Input) Verdict {
		var limits, counts, over []string
		var lifts time.Duration
		for _, r := range in.Policy.Rates {
			limit := fmt.Sprintf("at most %d per %s", r.Count, span(r.Per))
			limits = append(limits, limit)
			if r.Count < 1 || r.Per <= 0 {
				v := refuse(Person, limit, "a rate that allows nothing")
				v.Lifts = "change the rates in project.star"
				return v
			}
			within := in.startedWithin(r.Per)
			count := fmt.Sprintf("%s in the last %s", plural(len(within), "attempt"), span(r.Per))
			counts = append(counts, count)
			if len(within) < r.Count {
				continue
			}
			over = append(over, count)
			// The slot that must become free is that of the oldest start but those which are too many anyhow.
			lifts = max(lifts, within[len(within)-r.Count]+r.Per)
		}
		limit := strings.Join(limits, ", ")
		if over == nil {
			return pass(limit, "%s", strings.Join(counts, ", "))
		}
		v := refuse(Passes, limit, "%s", strings.Join(over, ", "))
		v.LiftsAt = in.at(lifts)
		return v
	},
}

// startedWithin are the trusted times at which attempts of the window were started, rising. One from the future is in every window.
func (in *Input) startedWithin(window time.Duration) []time.Duration {
	var within []time.Duration
	seen := map[string]bool{}
	for _, s := range in.Started {
		if in.since(s.At) < window && !seen[s.Attempt] {
			seen[s.Attempt] = true
			within = append(within, s.At.Trusted)
		}
	}
	slices.Sort(within)
	return within
}
