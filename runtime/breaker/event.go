package breaker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// Event is something that happened. One of the types of this file.
type Event interface {
	apply(d *Doc, now action.Clock) error
}

// Apply is the document after an event. On an error it is the document as it was.
func (d Doc) Apply(e Event, now action.Clock) (Doc, error) {
	next := d
	next.Bad, next.Wide, next.Changes = slices.Clone(d.Bad), slices.Clone(d.Wide), slices.Clone(d.Changes)
	if err := e.apply(&next, now); err != nil {
		return d, err
	}
	return next, nil
}

// Judged is a decision under a policy: the policy applies from now on, also to what has happened, and clears nothing.
type Judged struct{ Policy Policy }

func (e Judged) apply(d *Doc, now action.Clock) error {
	d.Policy = e.Policy.WithDefaults()
	d.trip(now)
	return nil
}

// maxNamed is how many of what went badly a reason names.
const maxNamed = 5

// trip opens a closed breaker if enough went badly.
func (d *Doc) trip(now action.Clock) {
	p := d.Policy.WithDefaults()
	badly := d.Badly(p, now)
	if d.State != Closed || len(badly) < p.Count {
		return
	}
	var parts []string
	for i, b := range badly {
		if i == maxNamed {
			parts = append(parts, fmt.Sprintf("%d more", len(badly)-maxNamed))
			break
		}
		parts = append(parts, fmt.Sprintf("%s on %s %s", b.Runbook, b.Target, b.What))
	}
	d.to(Open, now, fmt.Sprintf("%d attempts went badly within %s: %s", len(badly), value.FormatDuration(p.Window), strings.Join(parts, ", ")), "")
}

// WentBadly is an attempt that failed, was interrupted, is in doubt or was ineffective.
type WentBadly struct{ Attempt, Runbook, Target, What string }

func (e WentBadly) apply(d *Doc, now action.Clock) error {
	if slices.ContainsFunc(d.Bad, func(b Bad) bool { return b.Attempt == e.Attempt }) {
		return nil
	}
	now.Wall = now.Wall.UTC().Round(0)
	d.Bad = d.Badly(d.Policy, now)
	d.Bad = append(d.Bad, Bad{Attempt: e.Attempt, Runbook: e.Runbook, Target: e.Target, What: e.What, At: now})
	if d.State == HalfOpen {
		d.to(Open, now, fmt.Sprintf("half-open, and %s on %s %s", e.Runbook, e.Target, e.What), "")
		return nil
	}
	d.trip(now)
	return nil
}

// Contradicted is an outcome that came late and says something else than the record: nobody knows what is true.
type Contradicted struct{ Attempt, Runbook, Target, What string }

func (e Contradicted) apply(d *Doc, now action.Clock) error {
	if d.State != Open {
		d.to(Open, now, fmt.Sprintf("%s on %s: %s", e.Runbook, e.Target, e.What), "")
	}
	return nil
}

// Began is the first step of an attempt that was let start.
type Began struct{ Attempt string }

func (e Began) apply(d *Doc, _ action.Clock) error {
	switch {
	case d.State == Open:
		return problem.New(problem.Internal, "attempt %s began while the breaker is open", e.Attempt)
	case d.State == HalfOpen && d.Canary != "":
		return problem.New(problem.Internal, "attempt %s began while %s is the canary", e.Attempt, d.Canary)
	case d.State == HalfOpen:
		d.Canary = e.Attempt
	}
	return nil
}

// Ended is an attempt that no longer keeps its target. Held says that its expectation held; without, it makes room for the next canary and
// counts for nothing.
type Ended struct {
	Attempt string
	Held    bool
}

func (e Ended) apply(d *Doc, now action.Clock) error {
	if d.State != HalfOpen || d.Canary != e.Attempt {
		return nil
	}
	d.Canary = ""
	if !e.Held {
		return nil
	}
	if d.Held++; d.Held >= d.Policy.WithDefaults().Canaries {
		d.Bad = nil
		d.to(Closed, now, fmt.Sprintf("%d canaries held", d.Policy.WithDefaults().Canaries), "")
	}
	return nil
}

// Looked is what a runbook saw of its fleet.
type Looked struct {
	Fleet, Runbook string
	Over           bool // more sick or unknown targets than the share
	Bad, Members   int
}

// Relevant says whether the event would change anything, so that a healthy fleet costs no write.
func (e Looked) Relevant(d Doc) bool {
	return e.Over || slices.ContainsFunc(d.Wide, func(w Wide) bool { return w.Fleet == e.Fleet && w.Runbook == e.Runbook })
}

func (e Looked) apply(d *Doc, now action.Clock) error {
	before := len(d.HeldBy(now))
	was := d.Wide
	d.Wide = slices.DeleteFunc(slices.Clone(d.Wide), func(w Wide) bool {
		return w.Fleet == e.Fleet && w.Runbook == e.Runbook || now.Trusted-w.At.Trusted >= forgetWide
	})
	if e.Over && len(d.Wide) < maxWide {
		now.Wall = now.Wall.UTC().Round(0)
		d.Wide = append(d.Wide, Wide{Fleet: e.Fleet, Runbook: e.Runbook, Bad: e.Bad, Members: e.Members, At: now})
	}
	switch after := d.HeldBy(now); {
	case before == 0 && len(after) > 0:
		d.change(now, Widespread, "over their share: "+fleets(after), "")
	case before > 0 && len(after) == 0:
		d.change(now, Cleared, "no longer over their share: "+fleets(was), "")
	}
	return nil
}

func fleets(all []Wide) string {
	parts := make([]string, len(all))
	for i, w := range all {
		parts[i] = fmt.Sprintf("%d of %d of %s", w.Bad, w.Members, w.Runbook)
	}
	return strings.Join(parts, ", ")
}

// OpenedBy is a person who opens it.
type OpenedBy struct{ Person, Reason string }

func (e OpenedBy) apply(d *Doc, now action.Clock) error {
	if d.State == Open {
		return problem.New(problem.Refused, "the breaker is open already: %s", d.Reason).WithHint("runbook breaker status")
	}
	d.to(Open, now, e.Reason, e.Person)
	return nil
}

// ResetBy is a person who has looked, and lets it try.
type ResetBy struct{ Person, Reason string }

func (e ResetBy) apply(d *Doc, now action.Clock) error {
	if d.State != Open {
		return problem.New(problem.Refused, "the breaker is %s: there is nothing to reset", d.State).WithHint("runbook breaker status")
	}
	d.Bad = nil
	d.to(HalfOpen, now, e.Reason, e.Person)
	return nil
}

// ToldOf marks the changes up to a number as told.
type ToldOf struct{ Seq int }

func (e ToldOf) apply(d *Doc, _ action.Clock) error {
	d.Told = max(d.Told, e.Seq)
	return nil
}
