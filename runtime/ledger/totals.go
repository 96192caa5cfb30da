package ledger

import (
	"strconv"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// KeyTotals is the key of what all runs together did.
const KeyTotals = "idx/totals"

// Totals count what was done since the state directory was made: for metrics, which processes that live for a moment cannot count themselves. They
// decide nothing. A run that was killed is not in them.
type Totals struct {
	V       int     `json:"v"` // 1
	Seconds float64 `json:"seconds"`
	Counts  []Count `json:"counts,omitempty"` // in no order
}

// Count is one counter: what it counts, and its labels by name.
type Count struct {
	What   string            `json:"what"` // "runs", "decisions", "refusals", "actions", "failures"
	Labels map[string]string `json:"labels"`
	N      int               `json:"n"`
}

// maxCounts bounds the document: names of runbooks and actions change over the years. What is beyond it is not counted.
const maxCounts = 5000

// CountRun adds a run that has ended; KeyTotals is read.
func CountRun(tx store.Tx, r *trace.Run) (Totals, error) {
	t, err := Read[Totals](tx, KeyTotals)
	if err != nil {
		return t, err
	}
	if t.V > 1 {
		return t, problem.New(problem.StateUnusable, "the totals were written by a newer version (format %d, this one knows 1)", t.V).
			WithHint("use the newer runbook binary that wrote them")
	}
	t.V = 1
	t.Seconds += r.Ended.Sub(r.Started).Seconds()
	t.add("runs", "exit", strconv.Itoa(int(r.Exit)))
	for _, rb := range r.Runbooks {
		if rb.Problem != nil {
			t.add("failures", "runbook", rb.Name)
		}
		for _, target := range rb.Targets {
			if ev := target.Evaluation; ev != nil {
				t.evaluation(rb.Name, ev)
			}
		}
	}
	for _, c := range r.Cleanups {
		if c.Evaluation != nil {
			t.evaluation(c.Runbook, c.Evaluation)
		}
	}
	return t, Write(tx, KeyTotals, t)
}

func (t *Totals) evaluation(runbook string, ev *trace.Evaluation) {
	t.add("decisions", "runbook", runbook, "outcome", string(ev.Outcome))
	for _, e := range ev.Events {
		a := e.Action
		if a == nil {
			continue
		}
		for _, v := range guard.Refused(a.Verdicts) {
			t.add("refusals", "runbook", runbook, "guard", v.Guard)
		}
		if a.State != "" {
			t.add("actions", "runbook", runbook, "action", a.Action, "state", string(a.State))
		}
	}
}

func (t *Totals) add(what string, labels ...string) {
next:
	for i, c := range t.Counts {
		if c.What != what || len(c.Labels) != len(labels)/2 {
			continue
		}
		for l := 0; l < len(labels); l += 2 {
			if c.Labels[labels[l]] != labels[l+1] {
				continue next
			}
		}
		t.Counts[i].N++
		return
	}
	if len(t.Counts) >= maxCounts {
		return
	}
	c := Count{What: what, Labels: map[string]string{}, N: 1}
	for l := 0; l < len(labels); l += 2 {
		c.Labels[labels[l]] = labels[l+1]
	}
	t.Counts = append(t.Counts, c)
}
