package guard

import (
	"slices"
	"time"
)

var maintenance = Guard{
	Name: "maintenance", Scope: PerAttempt,
	Set: "No windows by default; 10m after a deploy. `policy(maintenance = [weekly(...), once(...)], change_settle = \"10m\")`; persons add windows with `runbook maintenance add`.",
	Doc: "Refuses while a maintenance window, of project.star or of a person, covers the target; a window that covers everything is a change freeze. A window from 02:00 " +
		"to 04:00 refuses at 02:00 and at 03:59, and passes at 04:00. Refuses too while a deploy of the target's component is going on and for 10m after " +
		"it ended: refused at 9m59s, passed at 10m.",
	Check: func(in Input) Verdict {
		limit := "no window, no deploy in the last " + span(in.Policy.ChangeSettle)
		var found Verdict
		for _, w := range slices.Concat(in.Policy.Maintenance, in.Windows) {
			until, open := w.Covering(in.Now.Wall)
			if !open || !w.Covers(in.subject()) || found.Measured != "" && !until.After(found.LiftsAt) {
				continue
			}
			found = refuse(Passes, limit, "maintenance %s of %s: %s", w.Name, w.Selector, w.Reason)
			if w.By != "" {
				found.Measured += " (" + w.By + ")"
			}
			found.LiftsAt = until
		}
		if found.Measured != "" {
			return found
		}
		return afterDeploy(in, limit)
	},
}

// afterDeploy refuses while what runs on the target may still be settling into a change of its own.
func afterDeploy(in Input, limit string) Verdict {
	d := in.Deploy
	switch {
	case d == nil:
		return pass(limit, "no window is open, no deploy of its component is known")
	case d.Going:
		return refuse(Passes, limit, "a deploy of %s is going on", d.Component)
	}
	ago := in.Now.Wall.Sub(d.EndedAt)
	if ago >= in.Policy.ChangeSettle {
		return pass(limit, "no window is open, the last deploy of %s ended %s ago", d.Component, span(ago))
	}
	v := refuse(Passes, limit, "a deploy of %s ended %s ago", d.Component, span(ago))
	if ago < 0 {
		v.Measured = "a deploy of " + d.Component + " is to end at " + clock(d.EndedAt)
	}
	v.LiftsAt = d.EndedAt.Add(in.Policy.ChangeSettle)
	return v
}

// Deploy is the last change of the target's component.
type Deploy struct {
	Component string
	Going     bool // it has not ended
	EndedAt   time.Time
}
