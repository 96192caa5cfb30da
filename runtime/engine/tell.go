package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// notice is what the owner must be told, or nil.
func (v *evaluation) notice() *notify.Notice {
	r := v.record
	n := &notify.Notice{
		Runbook: v.rb.Name, Target: v.target.Key, Episode: r.Episode, Owner: v.rb.Owner, Run: v.e.run.ID, At: v.e.wall(),
		Kind: notify.Escalation, Reason: string(r.Outcome), Text: r.Reason,
	}
	switch r.Outcome {
	case trace.Escalated:
		n.Reason = "escalate: " + r.Reason
		return n
	case trace.Refused:
		if v.planned != nil {
			return v.proposal(n)
		}
		// What lifts by itself is recorded silently; what needs a person is told once, and so is an attempt that was stopped half way.
		if began(r) {
			n.Reason, n.Text = "refused half way", "the attempt was stopped half way: "+r.Reason+v.done()
			return n
		}
		refused := guard.Refused(lastVerdicts(r))
		if len(refused) == 0 {
			n.Reason = "refused: " + string(r.Problem.Code)
			return v.hinted(n)
		}
		for _, x := range refused {
			if x.Class == guard.Person {
				n.Reason = "refused by " + x.Guard
				return v.hinted(n)
			}
		}
		return nil
	case trace.Failed, trace.Interrupted, trace.DoubtRemains:
		if r.Problem.Code == problem.Interrupted && !began(r) {
			return nil // whoever ended the run knows; the next one looks again
		}
		n.Reason = string(r.Outcome) + ": " + string(r.Problem.Code)
		if v.doubtful != "" {
			n.Reason = doubtReason(v.doubtful)
		}
		if began(r) {
			n.Text += v.done()
		}
		if r.Problem.Code == problem.MetricsSource && !began(r) {
			n.Kind, n.Source = notify.Source, v.e.Settings.Metrics.Name
		}
		return v.hinted(n)
	}
	return nil
}

// explained adds what was seen, that nothing was done if so it is, and where to read more. What was done is said where it has to be judged.
func (v *evaluation) explained(n *notify.Notice) *notify.Notice {
	if n == nil {
		return nil
	}
	switch {
	case !began(v.record):
		n.Text += "\ndone: nothing"
	case v.record.Outcome == trace.Escalated: // the others have said it
		n.Text += v.done()
	}
	for _, t := range v.trb.Targets {
		if t.Key == v.target.Key && t.Why != "" {
			n.Text += fmt.Sprintf("\nseen: %s is %s: %s", v.target.Name, t.Condition, t.Why)
		}
	}
	n.Text += "\nmore: runbook explain " + v.e.run.ID
	return n
}

// hinted adds what to do to a notice.
func (v *evaluation) hinted(n *notify.Notice) *notify.Notice {
	if h := v.record.Problem.Hint; h != "" {
		n.Text += "\n" + h
	}
	return n
}

// done says what the attempt did before it ended early: somebody has to judge what that leaves.
func (v *evaluation) done() string {
	var b strings.Builder
	for _, x := range v.record.Events {
		if a := x.Action; a != nil && a.State != "" {
			fmt.Fprintf(&b, "\n%s %s: %s", a.ID, a.Action, a.State)
		}
	}
	if !v.cleaning && v.rb.HasCleanup && v.doubtful == "" {
		b.WriteString("\nits cleanup is evaluated next; you hear of it again only if that does not end well")
	}
	return "; what it did on " + v.target.Name + ":" + b.String()
}

// firstVerdicts are the guards' answers to the first action that was asked for.
func firstVerdicts(r *trace.Evaluation) []guard.Verdict {
	for _, x := range r.Events {
		if x.Action != nil {
			return x.Action.Verdicts
		}
	}
	return nil
}

// lastVerdicts are the guards' answers to the last action that was asked for.
func lastVerdicts(r *trace.Evaluation) []guard.Verdict {
	for _, x := range slices.Backward(r.Events) {
		if a := x.Action; a != nil {
			return a.Verdicts
		}
	}
	return nil
}
