package testrun

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// answer is what t.run answers.
func (w *world) answer(rb *trace.Runbook, told []notify.Message) *value.Record {
	targets, notices := value.List{}, value.List{}
	for _, t := range rb.Targets {
		targets = append(targets, targetRecord(t))
	}
	for _, m := range told {
		notices = append(notices, record(typeNotice, "kind", text(string(m.Kind)), "owner", text(m.Owner), "target", text(m.Target), "reason", text(m.Reason), "text", text(m.Text)))
	}
	var trouble value.Value = value.Null{}
	if rb.Problem != nil {
		trouble = text(rb.Problem.Message)
	}
	return record(typeRun, "due", value.Bool(rb.Due), "why", text(rb.Why), "problem", trouble, "targets", targets, "notices", notices)
}

func targetRecord(t *trace.Target) *value.Record {
	ev := t.Evaluation
	evaluated := ev != nil
	if !evaluated {
		ev = &trace.Evaluation{}
	}
	var measured, outcome value.Value = value.Null{}, value.Null{}
	if t.Value != nil && !math.IsNaN(*t.Value) && !math.IsInf(*t.Value, 0) {
		measured = value.Float(*t.Value)
	}
	if evaluated {
		outcome = text(string(ev.Outcome))
	}
	actions, states, refused, branches, printed := value.List{}, value.List{}, value.List{}, value.Dict{}, value.List{}
	for _, e := range ev.Events {
		switch {
		case e.Branch != nil && e.Branch.Kind == "print":
			printed = append(printed, text(e.Branch.Result))
		case e.Branch != nil:
			key := text(e.Branch.Source)
			branches = slices.DeleteFunc(branches, func(x value.Entry) bool { return x.Key == key })
			branches = append(branches, value.Entry{Key: key, Value: value.Bool(e.Branch.Result == "true")})
		case e.Action != nil:
			if e.Action.State.Began() {
				actions = append(actions, record(typeAction, "name", text(e.Action.Action), "args", e.Action.Args))
				states = append(states, text(string(e.Action.State)))
			}
			for _, x := range guard.Refused(e.Action.Verdicts) {
				if !slices.Contains(refused, value.Value(text(x.Guard))) {
					refused = append(refused, text(x.Guard))
				}
			}
		}
	}
	reason := ev.Reason
	if !evaluated {
		reason = t.Why
	}
	return record(typeTarget, "name", text(t.Name), "key", text(t.Key), "labels", value.Strings(t.Labels), "condition", text(string(t.Condition)), "value", measured,
		"outcome", outcome, "reason", text(reason), "attempt", value.Int(ev.Number), "state", text(string(ev.State)),
		"actions", actions, "states", states, "refused", refused, "branches", branches, "printed", printed)
}

func text(s string) value.String { return value.String(s) }

// record makes a record of names and values.
func record(typ string, fields ...any) *value.Record {
	r := &value.Record{Type: typ}
	for i := 0; i < len(fields); i += 2 {
		v, ok := fields[i+1].(value.Value)
		if !ok {
			panic(fmt.Sprintf("testrun: %v of %s is no value", fields[i], typ))
		}
		r.Fields = append(r.Fields, value.Field{Name: fields[i].(string), Value: v})
	}
	return r
}
