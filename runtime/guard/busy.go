package guard

import (
	"fmt"

	"github.com/seed1de3961f/runbook/runtime/action"
)

var busy = Guard{
	Name: "busy", Scope: PerStep, Cleanup: true,
	Set: "Default 1 in all and 1 in a fleet. `policy(open = 1, open_per_fleet = 1)`.",
	Doc: "Refuses while another attempt keeps the target, that is until it has its verdict or is closed, and at a first step while as many attempts as are " +
		"allowed, in all or in the fleet, are under way. 1 is allowed by default: the 2nd is refused. An attempt whose process has ended keeps its " +
		"target, but not its slot.",
	Check: func(in Input) Verdict {
		limit := fmt.Sprintf("one attempt a target, %d in all, %d in a fleet", in.Policy.OpenTotal, in.Policy.OpenPerFleet)
		own := in.Attempt == ""
		var total, inFleet int
		var on *OpenAttempt
		for i, a := range in.Open {
			switch {
			case !a.State.Holds():
				continue
			case in.Attempt != "" && a.ID == in.Attempt:
				own = a.Target == in.Target.Key && a.Runbook == in.Runbook && (a.State == action.Open || in.Cleanup)
				continue
			case a.Target == in.Target.Key && on == nil:
				on = &in.Open[i]
			}
			if a.OwnerAlive {
				total++
				if a.Fleet == in.Fleet.ID && a.Fleet != "" {
					inFleet++
				}
			}
		}
		switch {
		case on != nil:
			return keeps(in, limit, on)
		case !own:
			return lacks(limit, "attempt %s is not open on this target", in.Attempt)
		case in.Attempt != "":
			return pass(limit, "attempt %s is open on the target", in.Attempt)
		case total >= in.Policy.OpenTotal:
			return refuse(Passes, limit, "%s under way", plural(total, "attempt"))
		case inFleet >= in.Policy.OpenPerFleet:
			return refuse(Passes, limit, "%s under way in the fleet", plural(inFleet, "attempt"))
		}
		return pass(limit, "no other attempt keeps the target, %d under way", total)
	},
}

// keeps refuses because of another attempt on the same target.
func keeps(in Input, limit string, a *OpenAttempt) Verdict {
	v := refuse(Passes, limit, "attempt %s of %s keeps the target (%s), for %s now", a.ID, a.Runbook, a.State, span(in.since(a.Since)))
	switch a.State {
	case action.Open:
		v.Lifts = "when it has ended"
	case action.Complete:
		v.Lifts = "when it has its verdict"
	default:
		// Recovery has closed all that it could before this was asked.
		v.Class = Person
		v.Lifts = "when all its actions are settled: runbook actions"
	}
	return v
}
