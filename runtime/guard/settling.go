package guard

import (
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
)

var settling = Guard{
	Name: "settling", Scope: PerAttempt,
	Set: "Default 2m without a verdict. `policy(settle = \"2m\")`.",
	Doc: "Refuses until the target's last attempt has its verdict, verified, ineffective or inconclusive; one without verification or that was not completed " +
		"holds for 2m after its last step: refused while less than 2m have passed, passed at 2m. Refuses too if a value that was read is " +
		"older than the end of the target's last action.",
	Check: func(in Input) Verdict {
		limit := span(in.Policy.Settle) + " after the last step, or a verdict"
		last := in.Last
		if last == nil {
			return pass(limit, "no earlier attempt on the target")
		}
		v := verdictOn(in, limit, last)
		if v.Passed && !in.OldestRead.IsZero() && in.OldestRead.Before(last.EndedAt.Wall) {
			stale := refuse(Passes, "values newer than the last action", "a value read was measured at %s, the last action ended at %s",
				clock(in.OldestRead), clock(last.EndedAt.Wall))
			stale.Lifts = "when it has been measured again"
			return stale
		}
		return v
	},
}

func verdictOn(in Input, limit string, last *LastAttempt) Verdict {
	switch last.State {
	case action.Verified, action.Ineffective, action.Inconclusive:
		return pass(limit, "attempt %s is %s", last.ID, last.State)
	case action.Complete:
		if last.Verifies {
			v := refuse(Passes, limit, "attempt %s has no verdict yet", last.ID)
			v.LiftsAt = last.Due
			return v
		}
	case action.AttemptFailed, action.Interrupted, action.Closed:
	default:
		return refuse(Passes, limit, "attempt %s is %s", last.ID, last.State)
	}
	if last.EndedAt.IsZero() {
		return lacks(limit, "it is not known when attempt %s ended", last.ID)
	}
	ago := in.since(last.EndedAt)
	if ago >= in.Policy.Settle {
		return pass(limit, "the last step ended %s ago", span(ago))
	}
	v := refuse(Passes, limit, "the last step ended %s ago", span(ago))
	v.LiftsAt = in.Now.Wall.Add(in.Policy.Settle - ago)
	return v
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }
