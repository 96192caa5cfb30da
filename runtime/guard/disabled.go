package guard

import (
	"time"

	"github.com/seed1de3961f/runbook/runtime/control"
)

var disabled = Guard{
	Name: "disabled", Scope: PerStep, Cleanup: true,
	Set: "Set and lifted by persons: `runbook disable`, `runbook enable`.",
	Doc: "Refuses what a person has disabled: a runbook, an action, a target, or the targets with some labels; judged at every step. Several " +
		"disables of one thing stack: all must be lifted. One with an end no longer holds from that moment on.",
	Check: func(in Input) Verdict {
		const limit = "not disabled by anybody"
		var by []control.Disable
		for _, d := range in.Disables {
			if d.Live(in.Now.Wall) && d.Covers(in.subject()) {
				by = append(by, d)
			}
		}
		if len(by) == 0 {
			return pass(limit, "nobody has disabled it")
		}
		d := by[0]
		v := refuse(Passes, limit, "%s was disabled by %s: %s", d.Selector, d.By, d.Reason)
		if len(by) > 1 {
			v.Measured += " (and " + plural(len(by)-1, "more disable") + ")"
		}
		v.Lifts = "runbook enable " + d.Name
		for _, d := range by {
			if d.Until.IsZero() { // one without an end is enough
				v.LiftsAt = time.Time{}
				return v
			}
			if d.Until.After(v.LiftsAt) {
				v.LiftsAt = d.Until
			}
		}
		return v
	},
}

func (in *Input) subject() control.Subject {
	return control.Subject{Runbook: in.Runbook, Action: in.Action, Key: in.Target.Key, Name: in.Target.Name, Labels: in.Target.Labels}
}
