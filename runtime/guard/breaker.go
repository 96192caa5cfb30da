package guard

import (
	"fmt"
	"strings"

	"github.com/seed1de3961f/runbook/runtime/breaker"
)

var globalBreaker = Guard{
	Name: "breaker", Scope: PerStep,
	Set: "Default 3 in 1h, and 3 canaries. `policy(breaker = 3, breaker_window = \"1h\", canaries = 3)`. Persons: `runbook breaker status|open|reset`.",
	Doc: "Refuses everything while the global breaker is open. The 3rd attempt of any runbook within 1 hour that failed, was interrupted, is in doubt or was ineffective opens " +
		"it, two do not; so does an outcome that contradicts the record, and a person. After a person's reset one canary at a time passes: 3 whose " +
		"expectation held close it, anything that goes badly opens it. Refuses too while two or more fleets have more sick and unknown " +
		"targets than their share. Missing or unreadable is open. Refusals, and what a person's control interrupted, do not count.",
	Check: func(in Input) Verdict {
		d, p := in.Breaker, in.Policy.Breaker
		limit := fmt.Sprintf("fewer than %d bad attempts in %s, and not held", p.Count, span(p.Window))
		if d.V == 0 {
			d = breaker.Lost("it is not known")
		}
		if wide := d.HeldBy(in.Now); wide != nil {
			names := make([]string, len(wide))
			for i, w := range wide {
				names[i] = fmt.Sprintf("%d of %d of %s", w.Bad, w.Members, w.Runbook)
			}
			v := refuse(Passes, limit, "widespread: several fleets are over their share: %s", strings.Join(names, ", "))
			v.Lifts = "when fewer are sick or unknown; look for what they have in common"
			return v
		}
		badly := d.Badly(p, in.Now)
		switch {
		case d.State == breaker.Closed && len(badly) < p.Count:
			return pass(limit, "closed, %s went badly", plural(len(badly), "attempt"))
		case d.State == breaker.HalfOpen && in.Attempt != "" && in.Attempt == d.Canary:
			return pass(limit, "half-open, and this is the canary")
		case d.State == breaker.HalfOpen && in.Attempt == "" && d.Canary == "":
			return pass(limit, "half-open, and this would be canary %d of %d", d.Held+1, p.Canaries)
		case d.State == breaker.HalfOpen:
			v := refuse(Passes, limit, "half-open, and attempt %s is the canary", d.Canary)
			if d.Canary == "" {
				v.Measured = "half-open, and this attempt is not the canary"
			}
			v.Lifts = "when the canary has its verdict"
			return v
		}
		reason := d.Reason
		if d.State == breaker.Closed {
			reason = plural(len(badly), "attempt") + " went badly"
		}
		v := refuse(Person, limit, "the breaker is open: %s", reason)
		v.Lifts = `find out what is wrong, then: runbook breaker reset --reason "why it is safe"`
		return v
	},
}
