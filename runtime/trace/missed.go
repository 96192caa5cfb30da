package trace

import (
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/runtime/guard"
)

// Missed is an action that a guard, such as a halt, kept from being done, however often it was asked for.
type Missed struct {
	Runbook string    `json:"runbook"`
	Target  string    `json:"target"`
	Action  string    `json:"action"`
	Reason  string    `json:"reason"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Times   int       `json:"times"`
	Others  []string  `json:"others,omitempty"` // other guards that refused it too, the last time
	Run     string    `json:"run"`              // the last
}

// MissedBy are the actions that the guard of that name refused, of runs given newest first; the oldest miss first.
func MissedBy(name string, runs []*Run) []Missed {
	var out []Missed
	for _, r := range slices.Backward(runs) {
		if r.DryRun {
			continue
		}
		for _, rb := range r.Runbooks {
			for _, t := range rb.Targets {
				if t.Evaluation == nil {
					continue
				}
				for _, e := range t.Evaluation.Events {
					if e.Action != nil {
						out = missed(out, name, r, rb, t, e.Action)
					}
				}
			}
		}
	}
	return out
}

func missed(out []Missed, name string, r *Run, rb *Runbook, t *Target, a *Action) []Missed {
	var others []string
	by := false
	for _, v := range guard.Refused(a.Verdicts) {
		if v.Guard == name {
			by = true
			continue
		}
		others = append(others, v.Guard)
	}
	if !by {
		return out
	}
	i := slices.IndexFunc(out, func(m Missed) bool { return m.Runbook == rb.Name && m.Target == t.Key && m.Action == a.Action })
	if i < 0 {
		i = len(out)
		out = append(out, Missed{Runbook: rb.Name, Target: t.Key, Action: a.Action, First: r.Started})
	}
	m := &out[i]
	m.Times++
	m.Last, m.Reason, m.Others, m.Run = r.Started, a.Reason, others, r.ID
	return out
}
