package trace

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
)

// Node is one line of an explanation and what explains it further.
type Node struct {
	Mark     Mark    `json:"mark,omitempty"`
	Text     string  `json:"text"`
	Where    string  `json:"where,omitempty"` // file:line:col
	Children []*Node `json:"children,omitempty"`
}

// Mark says how to read a line at a glance.
type Mark string

// The marks.
const (
	Plain Mark = ""
	Good  Mark = "good"
	Bad   Mark = "bad"
	Warn  Mark = "warn"
)

func (n *Node) add(mark Mark, where value.Pos, format string, args ...any) *Node {
	c := &Node{Mark: mark, Text: fmt.Sprintf(format, args...), Where: where.String()}
	n.Children = append(n.Children, c)
	return c
}

func (n *Node) say(format string, args ...any) *Node {
	return n.add(Plain, value.Pos{}, format, args...)
}

// Explain is the story of a run as a tree: what was seen, which way every branch went and on which values, what every
// guard measured, what was done and how it ended.
func Explain(r *Run) *Node { return explain(r, false) }

// ExplainFull is Explain with all that was healthy, every answer whole, and by which files, settings and parameters it was decided.
func ExplainFull(r *Run) *Node { return explain(r, true) }

func explain(r *Run, full bool) *Node {
	root := &Node{Text: "run " + r.ID + ", " + r.Started.UTC().Format("2006-01-02 15:04:05Z")}
	switch {
	case r.DryRun:
		root.Text += ", dry run: nothing was done"
	case r.Ended.IsZero():
		root.Mark = Warn
		root.Text += ", did not end: it is still going on, or it was killed"
	default:
		root.Text += fmt.Sprintf(", took %s, exit %d", r.Ended.Sub(r.Started).Round(time.Millisecond), r.Exit)
	}
	if full {
		root.say("by %s on %s (process %d), because of: %s; namespace %s; settings %.12s", orWords(r.Engine, "an unknown version"), r.Owner.Host, r.Owner.PID, r.Trigger, r.Namespace, r.Policy)
	}
	for _, h := range r.Halt {
		root.add(Bad, value.Pos{}, "halted (%s): %s%s", h.Source, orWords(h.Reason, "no reason given"), by(h.By))
	}
	for _, x := range r.Recovered {
		root.add(Warn, value.Pos{}, "recovered %s (%s on %s, %s): %s, because %s", x.Step, x.Action, x.Target, x.Runbook, words(string(x.To)), x.Why)
	}
	for _, x := range r.Verified {
		root.add(markOf(string(x.State)), value.Pos{}, "attempt %s on %s (%s): %s, %s", x.Attempt, x.Target, x.Runbook, verdictWords(string(x.State)), x.Detail)
	}
	for _, p := range r.Problems {
		explainProblem(root, p)
	}
	for _, rb := range r.Runbooks {
		explainRunbook(root, rb, full)
	}
	for _, c := range r.Cleanups {
		n := root.add(cleanupMark(c), value.Pos{}, "cleanup of attempt %s on %s (%s), which ended early: %s", c.Attempt, c.Target, c.Runbook, c.Why)
		explainEvaluation(n, c.Evaluation, full)
		explainCleanupEnd(n, c)
	}
	explainBreaker(root, r)
	for _, d := range r.InDoubt {
		n := root.add(Bad, value.Pos{}, "in doubt: %s (%s on %s, %s) since %s", d.Step, d.Action, d.Target, d.Runbook, d.Since.UTC().Format("2006-01-02 15:04:05Z"))
		n.say("look at %s, then type: runbook resolve %s --nonce %s --as done|not-done|abandoned --reason \"...\"", d.Target, d.Step, d.Nonce)
	}
	return root
}

func explainRunbook(root *Node, rb *Runbook, full bool) {
	n := root.say("runbook %s", rb.Name)
	if rb.Owner != "" {
		n.Text += " (" + rb.Owner + ", mode " + string(rb.Mode) + ")"
	}
	if rb.Problem != nil {
		n.Mark = Bad
		explainProblem(n, rb.Problem)
	}
	if !rb.Due {
		n.say("not evaluated: %s", rb.Why)
		return
	}
	n.say("evaluated: %s", rb.Why)
	if full {
		n.say("%s, digest %.12s%s", rb.Path, rb.Digest, with(rb.Params))
	}
	if rb.Symptom != "" {
		n.say("symptom: %s for %s", rb.Symptom, rb.Held)
	}
	for _, q := range rb.Queries {
		explainQuery(n, q, full)
	}
	if f := rb.Fleet; f != nil {
		n.say("fleet: %s", f)
	}
	healthy := 0
	for _, t := range rb.Targets {
		if t.Condition == Healthy && t.Evaluation == nil && !full {
			healthy++
			continue
		}
		explainTarget(n, t, full)
	}
	if healthy > 0 {
		n.add(Good, value.Pos{}, "%d healthy", healthy)
	}
}

// String counts the fleet in words.
func (f *Fleet) String() string {
	if f.Members == 0 {
		return "no targets"
	}
	parts := []string{fmt.Sprintf("%d targets, %d sick", f.Members, f.Sick)}
	for _, x := range []struct {
		n    int
		what string
	}{{f.Pending, "not sick for long enough"}, {f.Unknown, "unknown"}, {f.Missing, "missing"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	return strings.Join(parts, ", ")
}

func explainTarget(parent *Node, t *Target, full bool) {
	mark := map[Condition]Mark{Healthy: Good, Sick: Bad}[t.Condition]
	if mark == Plain {
		mark = Warn
	}
	n := parent.add(mark, value.Pos{}, "%s is %s: %s", t.Key, t.Condition, t.Why)
	if t.Evaluation != nil {
		explainEvaluation(n, t.Evaluation, full)
	}
}

func explainEvaluation(n *Node, ev *Evaluation, full bool) {
	for _, e := range ev.Events {
		switch {
		case e.Branch != nil && e.Branch.Kind == "print":
			n.add(Plain, e.Branch.Pos, "print: %s", e.Branch.Result)
		case e.Branch != nil:
			explainBranch(n, e)
		case e.Query != nil:
			explainQuery(n, e.Query, full)
		case e.Action != nil:
			explainAction(n, e.Action)
		}
	}
	if ev.Dropped > 0 {
		n.say("(%d more branches were not kept)", ev.Dropped)
	}
	out := n.add(markOf(string(ev.Outcome)), value.Pos{}, "outcome: %s", words(string(ev.Outcome)))
	if ev.Reason != "" {
		out.Text += ": " + ev.Reason
	}
	if ev.Attempt != "" {
		out.say("attempt %s (the %s of episode %s) is %s", ev.Attempt, ordinal(ev.Number), ev.Episode, verdictWords(string(ev.State)))
	}
	if p := ev.Problem; p != nil && !toldByAction(ev, p) {
		out.Where = p.Pos.String()
		for _, d := range p.Detail {
			out.say("%s", d)
		}
		if p.Hint != "" {
			out.say("hint: %s", p.Hint)
		}
	}
}

// toldByAction says whether the action that met a problem has told it already.
func toldByAction(ev *Evaluation, p *problem.Problem) bool {
	for _, e := range ev.Events {
		if e.Action != nil && e.Action.Problem != nil && e.Action.Problem.Message == p.Message {
			return true
		}
	}
	return false
}

func explainBranch(n *Node, e Event) {
	b := e.Branch
	text := b.Source + " is " + b.Result
	if len(b.Values) > 0 {
		parts := make([]string, len(b.Values))
		for i, v := range b.Values {
			parts[i] = v.Source + " = " + v.Value
		}
		text += "   (" + strings.Join(parts, ", ") + ")"
	}
	n.add(Plain, b.Pos, "%s", text)
}

func explainQuery(n *Node, q *Query, full bool) {
	what := q.Expr
	if what == "" {
		what = renderArgs(q.Args)
	}
	if q.Error != "" {
		n.add(Bad, q.Pos, "%s %s failed: %s", q.Function, what, q.Error)
		return
	}
	c := n.add(Plain, q.Pos, "%s %s → %s", q.Function, what, q.Answer)
	if full && q.Took > 0 {
		c.Text += fmt.Sprintf(" (took %s)", q.Took.Round(100*time.Microsecond))
	}
	if full && q.Value != nil && string(q.Value) != q.Answer {
		c.say("whole answer: %s", q.Value)
	}
}

// with is the parameters of a runbook in words.
func with(params value.Dict) string {
	if len(params) == 0 {
		return ""
	}
	return ", with " + renderArgs(params)
}

func explainAction(parent *Node, a *Action) {
	state := words(string(a.State))
	mark := markOf(string(a.State))
	switch {
	case a.Refused:
		state, mark = "refused", Bad
	case a.Planned:
		state, mark = "would be done now", Good
	case a.State == "":
		state, mark = "not started", Bad
	}
	if a.Refused && a.Planned {
		state, mark = "would be refused", Bad
	}
	n := parent.add(mark, a.Pos, "%s %s: %s", a.Action, renderArgs(a.Args), state)
	if a.ID != "" {
		n.Text += " (action " + a.ID + ")"
	}
	n.say("reason: %s", a.Reason)
	if a.Connection != "" {
		n.say("connection: %s", a.Connection)
	}
	explainVerdicts(n, a.Verdicts)
	for _, m := range a.Messages {
		n.say("%s  %s", m.At.UTC().Format("15:04:05.000"), m.What)
	}
	if a.Problem != nil {
		explainProblem(n, a.Problem)
	}
}

// explainVerdicts shows every guard: the refusals first, since they decide.
func explainVerdicts(n *Node, vs []guard.Verdict) {
	vs = append([]guard.Verdict(nil), vs...)
	sort.SliceStable(vs, func(i, j int) bool { return !vs[i].Passed && vs[j].Passed })
	for _, v := range vs {
		switch {
		case v.Skipped:
			n.add(Plain, value.Pos{}, "guard %s: %s", v.Guard, v.Measured)
		case v.Passed:
			n.add(Good, value.Pos{}, "guard %s passed: %s; limit: %s", v.Guard, v.Measured, v.Limit)
		default:
			c := n.add(Bad, value.Pos{}, "guard %s refused: %s; limit: %s", v.Guard, v.Measured, v.Limit)
			if !v.LiftsAt.IsZero() {
				c.Text += "; lifts at " + v.LiftsAt.UTC().Format("2006-01-02 15:04:05Z")
			}
			if v.Lifts != "" {
				c.Text += "; " + v.Lifts
			}
		}
	}
}

func explainProblem(n *Node, p *problem.Problem) {
	c := n.add(Bad, p.Pos, "%s", p.Message)
	for _, d := range p.Detail {
		c.say("%s", d)
	}
	if p.Hint != "" {
		c.say("hint: %s", p.Hint)
	}
}

func renderArgs(d value.Dict) string {
	parts := make([]string, 0, len(d))
	for _, e := range d {
		k, _ := e.Key.(value.String)
		b, err := value.Marshal(e.Value)
		if err != nil {
			continue
		}
		text := string(b)
		if len(text) > 120 {
			text = text[:120] + "..."
		}
		parts = append(parts, string(k)+"="+strings.ToValidUTF8(text, ""))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func markOf(state string) Mark {
	switch state {
	case "acted", "succeeded", "no_change", "verified", "nothing", "resolved_done":
		return Good
	case "complete", "escalated", "skipped", "inconclusive", "reserved", "begun", "not_started":
		return Warn
	}
	return Bad
}

// words is a state as people say it.
func words(state string) string { return strings.ReplaceAll(state, "_", " ") }

func verdictWords(state string) string {
	switch state {
	case "complete":
		return "complete, not verified yet"
	case "":
		return "not finished"
	}
	return words(state)
}

func orWords(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return ", by " + who
}

func ordinal(n int) string {
	switch n {
	case 1:
		return "first"
	case 2:
		return "second"
	case 3:
		return "third"
	}
	return fmt.Sprintf("%dth", n)
}

func explainBreaker(root *Node, r *Run) {
	if r.Breaker != "" {
		root.add(Bad, value.Pos{}, "breaker %s", r.Breaker).say("see: runbook breaker status")
	}
}
