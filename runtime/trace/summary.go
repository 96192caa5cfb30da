package trace

import (
	"fmt"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
)

// Eventful says whether anything but health was found or done.
func Eventful(r *Run) bool {
	if len(r.Problems)+len(r.Recovered)+len(r.Cleanups)+len(r.Verified)+len(r.InDoubt)+len(r.Halt)+len(r.Breaker) > 0 {
		return true
	}
	for _, rb := range r.Runbooks {
		if rb.Problem != nil {
			return true
		}
		for _, t := range rb.Targets {
			if t.Condition != Healthy || t.Evaluation != nil {
				return true
			}
		}
	}
	return false
}

// Summary is what `runbook run` prints: what happened and what was decided, without the evidence. In a dry run it shows the
// verdict of every guard, since that is what one asks for. The run's own problems are the command's error, and not said here.
func Summary(r *Run) *Node {
	root := &Node{Text: "run " + r.ID}
	if r.DryRun {
		root.Text += " (dry run: nothing is done)"
	}
	for _, h := range control.Distinct(r.Halt) {
		n := root.add(Bad, value.Pos{}, "halted (%s): %s%s", h.Source, orWords(h.Reason, "no reason given"), by(h.By))
		if h.Source == control.SourceEnvironment {
			n.say("unset RUNBOOK_HALT to lift it")
		} else {
			n.say("lift it with: runbook resume --reason \"...\"")
		}
	}
	for _, x := range r.Recovered {
		root.add(Warn, value.Pos{}, "recovered: %s (%s on %s) is %s: %s", x.Step, x.Action, x.Target, words(string(x.To)), x.Why)
	}
	for _, x := range r.Verified {
		root.add(markOf(string(x.State)), value.Pos{}, "earlier attempt on %s (%s): %s, %s", x.Target, x.Runbook, verdictWords(string(x.State)), x.Detail)
	}
	if len(r.Runbooks) == 0 && len(r.Problems) == 0 {
		root.say("there are no runbooks in this project")
	}
	for _, rb := range r.Runbooks {
		summarize(root, rb, r.DryRun)
	}
	for _, c := range r.Cleanups {
		n := root.add(cleanupMark(c), value.Pos{}, "cleanup on %s (%s)", c.Target, c.Runbook)
		summarizeEvaluation(n, c.Evaluation, false)
		explainCleanupEnd(n, c)
	}
	explainBreaker(root, r)
	for _, d := range r.InDoubt {
		n := root.add(Bad, value.Pos{}, "in doubt: %s (%s on %s)", d.Step, d.Action, d.Target)
		n.say("look at %s, then type: runbook resolve %s --nonce %s --as done|not-done|abandoned --reason \"...\"", d.Target, d.Step, d.Nonce)
	}
	return root
}

func summarize(root *Node, rb *Runbook, full bool) {
	n := root.say("%s", rb.Name)
	switch {
	case rb.Problem != nil:
		n.Mark = Bad
		n.Text += ": not evaluated"
		explainProblem(n, rb.Problem)
		return
	case !rb.Due:
		n.Text += ": not evaluated, " + rb.Why
		return
	case rb.Fleet != nil:
		n.Text += ": " + rb.Fleet.String()
		if rb.Fleet.Members == 0 { // most often a label that is written wrongly; silence must not look like health
			n.Mark = Warn
			for _, q := range rb.Queries {
				if q.Function == "fleet" {
					n.Text += ": " + q.Expr + " has no data"
				}
			}
		}
	}
	for _, t := range rb.Targets {
		if t.Condition == Healthy && t.Evaluation == nil {
			continue
		}
		mark := Warn
		if t.Condition == Sick {
			mark = Bad
		}
		c := n.add(mark, value.Pos{}, "%s is %s: %s", t.Key, t.Condition, t.Why)
		if t.Evaluation != nil {
			summarizeEvaluation(c, t.Evaluation, full)
		}
	}
}

func summarizeEvaluation(c *Node, ev *Evaluation, full bool) {
	for _, e := range ev.Events {
		switch {
		case e.Action == nil:
		case full:
			explainAction(c, e.Action)
		case e.Action.Refused:
			a := c.add(Bad, e.Action.Pos, "%s %s: refused", e.Action.Action, renderArgs(e.Action.Args))
			explainVerdicts(a, guard.Refused(e.Action.Verdicts))
		case e.Action.Planned:
			c.add(Warn, e.Action.Pos, "%s %s: would follow", e.Action.Action, renderArgs(e.Action.Args))
		default:
			a := c.add(markOf(string(e.Action.State)), e.Action.Pos, "%s %s: %s", e.Action.Action, renderArgs(e.Action.Args), orWords(words(string(e.Action.State)), "not started"))
			if e.Action.ID != "" {
				a.Text += " (action " + e.Action.ID + ")"
			}
			if e.Action.Message != "" {
				a.Text += ": " + firstLine(e.Action.Message)
			}
		}
	}
	out := c.add(markOf(string(ev.Outcome)), value.Pos{}, "%s", words(string(ev.Outcome)))
	if ev.Reason != "" {
		out.Text += ": " + ev.Reason
	}
	if p := ev.Problem; p != nil && !refusedByGuard(ev) {
		explainProblem(out, p)
		if p.Message == ev.Reason { // once is enough
			out.Where, out.Children = out.Children[0].Where, out.Children[0].Children
		}
	}
}

func cleanupMark(c *Cleanup) Mark {
	switch c.State {
	case action.CleanupDone:
		return Good
	case action.CleanupFailed:
		return Bad
	}
	return Warn
}

// explainCleanupEnd says what a cleanup that is not done means.
func explainCleanupEnd(n *Node, c *Cleanup) {
	switch c.State {
	case action.CleanupWaits:
		n.say("it is tried again by the next run; the target is kept until then")
	case action.CleanupFailed:
		n.say("put %s right, then type: runbook resolve %s --as closed --reason \"...\"", c.Target, c.Attempt)
	}
}

// refusedByGuard says whether guards' verdicts have shown already why an evaluation ended.
func refusedByGuard(ev *Evaluation) bool {
	for _, e := range ev.Events {
		if e.Action != nil && len(guard.Refused(e.Action.Verdicts)) > 0 {
			return true
		}
	}
	return false
}

// OneLine is a run in a list.
func OneLine(r *Run) string {
	var parts []string
	count := map[string]int{}
	for _, rb := range r.Runbooks {
		if rb.Problem != nil {
			parts = append(parts, rb.Name+": "+firstLine(rb.Problem.Message))
		}
		if rb.Due {
			count["evaluated"]++
		}
		for _, t := range rb.Targets {
			if ev := t.Evaluation; ev != nil {
				parts = append(parts, fmt.Sprintf("%s %s: %s", rb.Name, t.Name, words(string(ev.Outcome))))
			}
			if t.Condition != Healthy && t.Evaluation == nil {
				count[string(t.Condition)]++
			}
		}
	}
	for _, v := range r.Verified {
		parts = append(parts, fmt.Sprintf("%s: %s", v.Target, verdictWords(string(v.State))))
	}
	for _, x := range r.Recovered {
		parts = append(parts, fmt.Sprintf("recovered %s: %s", x.Step, words(string(x.To))))
	}
	if len(r.Halt) > 0 {
		parts = append(parts, "halted")
	}
	for _, p := range r.Problems {
		parts = append(parts, firstLine(p.Message))
	}
	for _, c := range []Condition{Pending, Unknown, Missing} {
		if n := count[string(c)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("%d evaluated, nothing sick", count["evaluated"]))
	}
	if r.DryRun {
		parts = append([]string{"dry run"}, parts...)
	}
	return strings.Join(parts, "; ")
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 160 {
		s = strings.ToValidUTF8(s[:160], "") + "..."
	}
	return s
}
