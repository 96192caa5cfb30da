package trace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
)

// Answer says why a runbook did not act, from the records alone.
type Answer struct {
	Runbook string    `json:"runbook"`
	Target  string    `json:"target,omitempty"`
	Run     string    `json:"run,omitempty"` // the run that it is about, "" if none looked
	At      time.Time `json:"at,omitzero"`   // when that was
	Acted   bool      `json:"acted"`
	// Reasons are all that kept it from acting, the one that came first at the front.
	Reasons []Reason `json:"reasons"`
	// Way is what was seen and decided of the target, as explain shows it.
	Way *Node `json:"way,omitempty"`
}

// Reason is one thing that kept a runbook from acting.
type Reason struct {
	Kind string `json:"kind"` // one of the kinds below
	Text string `json:"text"`
}

// The kinds of reasons, in the order in which they come.
const (
	NeverLooked  = "never evaluated"
	WasHalted    = "halted"
	HadError     = "error"
	WasNotDue    = "not due"
	NoSuchTarget = "no such target"
	WasNotSick   = "not sick"
	WasSkipped   = "left alone"
	ByBranch     = "branch"
	ByGuard      = "guard"
)

// WhyNot answers for a runbook, and one of its targets unless that is empty, by the last run that looked at it not later than at; runs are the newest first.
// A run in which it was not due says only that: the one before it, in which it was, has the rest.
func WhyNot(runs []*Run, runbook, target string, at time.Time) Answer {
	a := Answer{Runbook: runbook, Target: target, Reasons: []Reason{}}
	var names []string
	for _, r := range runs {
		if r.Started.After(at) || r.DryRun {
			continue
		}
		i := slices.IndexFunc(r.Runbooks, func(rb *Runbook) bool { return named(rb, runbook) })
		if i < 0 {
			for _, rb := range r.Runbooks {
				names = append(names, rb.Name)
			}
			continue
		}
		rb := r.Runbooks[i]
		a.Runbook = rb.Name
		if !rb.Due && rb.Problem == nil {
			if !slices.ContainsFunc(a.Reasons, func(x Reason) bool { return x.Kind == WasNotDue }) {
				a.because(WasNotDue, "at %s: %s", clock(r.Started), rb.Why)
			}
			continue
		}
		a.Run, a.At = r.ID, r.Started
		a.of(r, rb)
		return a
	}
	if len(a.Reasons) == 0 {
		a.because(NeverLooked, "no run on record until %s looked at %s%s", clock(at), runbook, problem.DidYouMean(runbook, names))
	}
	return a
}

// named says whether a person means this runbook: its name, its path, or the last part of its name.
func named(rb *Runbook, name string) bool {
	return rb.Name == name || rb.Path == name || rb.Name[strings.LastIndex(rb.Name, "/")+1:] == name
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func (a *Answer) because(kind, format string, args ...any) {
	a.Reasons = append(a.Reasons, Reason{kind, fmt.Sprintf(format, args...)})
}

// of adds the reasons of one run.
func (a *Answer) of(r *Run, rb *Runbook) {
	for _, h := range control.Distinct(r.Halt) {
		a.because(WasHalted, "%s%s", orWords(h.Reason, "no reason given"), by(h.By))
	}
	if rb.Problem != nil {
		a.because(HadError, "%s", rb.Problem.Error())
	}
	for _, p := range r.Problems {
		a.because(HadError, "%s", p.Error())
	}
	if a.Target == "" {
		for _, t := range rb.Targets {
			if t.Condition == Sick {
				a.target(t)
			}
		}
		if !a.Acted && len(a.Reasons) == 0 {
			a.because(WasNotSick, "none of %d targets was sick: %s", len(rb.Targets), orWords(rb.Symptom, "no symptom"))
		}
		return
	}
	var known []string
	for _, t := range rb.Targets {
		if t.Name == a.Target || t.Key == a.Target {
			a.target(t)
			return
		}
		known = append(known, t.Name)
	}
	if rb.Problem == nil {
		a.because(NoSuchTarget, "its fleet had no target %q%s", a.Target, problem.DidYouMean(a.Target, known))
	}
}

// target adds the reasons of one target.
func (a *Answer) target(t *Target) {
	root := &Node{}
	explainTarget(root, t, false)
	a.Way = root.Children[0]
	ev := t.Evaluation
	switch {
	case t.Condition != Sick:
		a.because(WasNotSick, "%s was %s: %s", t.Key, t.Condition, t.Why)
		return
	case ev == nil:
		a.because(WasSkipped, "%s was sick, and the run did not come to it", t.Key)
		return
	}
	for _, e := range ev.Events {
		if e.Action != nil && e.Action.State.Began() {
			a.Acted = true
		}
		if e.Action == nil {
			continue
		}
		for _, v := range guard.Refused(e.Action.Verdicts) {
			a.because(ByGuard, "%s on %s, by %s", e.Action.Action, t.Key, v)
		}
	}
	switch ev.Outcome {
	case Acted:
		a.Acted = true
	case Skipped:
		a.because(WasSkipped, "%s: %s", t.Key, ev.Reason)
	case Nothing, Escalated:
		text := string(ev.Outcome)
		if ev.Reason != "" {
			text += ": " + ev.Reason
		}
		if last := lastBranch(ev); last != "" {
			text += "; because " + last
		}
		a.because(ByBranch, "%s", text)
	case Failed, Interrupted, DoubtRemains, Refused:
		if ev.Problem != nil && !slices.ContainsFunc(a.Reasons, func(x Reason) bool { return x.Kind == ByGuard }) {
			a.because(HadError, "%s", ev.Problem.Error())
		}
	}
}

// lastBranch is the condition that decided last, with its values.
func lastBranch(ev *Evaluation) string {
	for _, e := range slices.Backward(ev.Events) {
		if e.Branch == nil || e.Branch.Kind != "branch" {
			continue
		}
		text := fmt.Sprintf("%s was %s", e.Branch.Source, e.Branch.Result)
		var values []string
		for _, v := range e.Branch.Values {
			if v.Source != e.Branch.Source {
				values = append(values, v.Source+" = "+v.Value)
			}
		}
		if len(values) > 0 {
			text += " (" + strings.Join(values, ", ") + ")"
		}
		return text + " at " + e.Branch.Pos.String()
	}
	return ""
}
