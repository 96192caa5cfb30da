package cli

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// filter is what a list is narrowed down to. All that is set must hold of one and the same target.
type filter struct {
	runbook, target, outcome, refusedBy string
	labels                              map[string]string
	since                               time.Time
}

// filterFlags are the flags of a filter.
func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "runbook", Usage: "only of this `RUNBOOK`"},
		&cli.StringFlag{Name: "target", Usage: "only of this `TARGET`, by name or key"},
		labelFlag(),
		durationFlag("since", "only of the last `DURATION`, such as 2h or 7d"),
		&cli.StringFlag{Name: "outcome", Usage: "only with this `OUTCOME`"},
		&cli.StringFlag{Name: "refused-by", Usage: "only what this `GUARD` refused"},
	}
}

// filter reads the flags, and --limit.
func (c *call) filter(command string, outcomes []string) (f filter, err error) {
	f = filter{
		runbook: strings.TrimSuffix(c.String("runbook"), ".star"), target: c.String("target"),
		outcome: strings.ReplaceAll(c.String("outcome"), " ", "_"), refusedBy: c.String("refused-by"),
	}
	if f.labels, err = c.labels(); err != nil {
		return f, err
	}
	if d := c.Duration("since"); d > 0 {
		f.since = c.stdio.Now().Add(-d)
	}
	if f.outcome != "" && !slices.Contains(outcomes, f.outcome) {
		return f, problem.New(problem.Usage, "--outcome: there is no outcome %q%s", f.outcome, problem.DidYouMean(f.outcome, outcomes)).
			WithHint("one of: %s", strings.Join(outcomes, ", "))
	}
	var guards []string
	for _, g := range guard.All() {
		guards = append(guards, g.Name)
	}
	if f.refusedBy != "" && !slices.Contains(guards, f.refusedBy) {
		return f, problem.New(problem.Usage, "--refused-by: there is no guard %q%s", f.refusedBy, problem.DidYouMean(f.refusedBy, guards)).
			WithHint("one of: %s", strings.Join(guards, ", "))
	}
	if c.Int("limit") < 1 {
		return f, problem.New(problem.Usage, "runbook %s: --limit must be at least 1", command).WithHint("runbook %s --help", command)
	}
	return f, nil
}

// any says whether anything is left out.
func (f filter) any() bool {
	return f.runbook+f.target+f.outcome+f.refusedBy != "" || len(f.labels) > 0 || !f.since.IsZero()
}

// about says whether a target of a runbook is asked for.
func (f filter) about(runbook, key, name string, labels map[string]string) bool {
	return f.ofRunbook(runbook) && (f.target == "" || f.target == key || f.target == name) && f.hasLabels(labels)
}

func (f filter) ofRunbook(name string) bool {
	return f.runbook == "" || f.runbook == name || f.runbook == name[strings.LastIndex(name, "/")+1:]
}

func (f filter) hasLabels(labels map[string]string) bool {
	for k, v := range f.labels {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// run says whether a run has what is asked for.
func (f filter) run(r *trace.Run) bool {
	if r.Started.Before(f.since) {
		return false
	}
	if f.target == "" && f.outcome == "" && f.refusedBy == "" && len(f.labels) == 0 {
		return f.runbook == "" || slices.ContainsFunc(r.Runbooks, func(rb *trace.Runbook) bool { return f.ofRunbook(rb.Name) && rb.Due })
	}
	for _, rb := range r.Runbooks {
		for _, t := range rb.Targets {
			if f.about(rb.Name, t.Key, t.Name, t.Labels) && f.evaluation(t.Evaluation) {
				return true
			}
		}
	}
	return false
}

// evaluation says whether an evaluation ended as is asked for. One target that was not evaluated has neither outcome nor refusal.
func (f filter) evaluation(ev *trace.Evaluation) bool {
	if f.outcome == "" && f.refusedBy == "" {
		return true
	}
	if ev == nil || f.outcome != "" && string(ev.Outcome) != f.outcome {
		return false
	}
	return f.refusedBy == "" || slices.ContainsFunc(ev.Events, func(e trace.Event) bool { return e.Action != nil && f.refused(e.Action) })
}

// refused says whether the guard that is asked for refused an action; any if none is.
func (f filter) refused(a *trace.Action) bool {
	return slices.ContainsFunc(guard.Refused(a.Verdicts), func(v guard.Verdict) bool { return f.refusedBy == "" || v.Guard == f.refusedBy })
}

// steps are the actions that are asked for, the newest first. Their targets' names and labels are in their attempts.
func (f filter) steps(ctx context.Context, st auditedStore, limit int, inDoubt bool) ([]*action.Step, error) {
	all, err := ledger.Steps(ctx, st, math.MaxInt, func(s *action.Step) bool {
		return f.ofRunbook(s.Identity.Runbook) && (f.outcome == "" || string(s.State) == f.outcome) && !s.ReservedAt.Wall.Before(f.since) &&
			(!inDoubt || s.State == action.InDoubt)
	})
	if err != nil {
		return nil, err
	}
	var out []*action.Step
	for _, s := range all {
		if f.target != "" || len(f.labels) > 0 {
			a, _, err := ledger.Attempt(ctx, st, s.Identity.AttemptID())
			if err != nil {
				return nil, err
			}
			if !f.about(a.Runbook, a.Target.Key, a.Target.Name, a.Target.Labels) {
				continue
			}
		}
		if out = append(out, s); len(out) == limit {
			break
		}
	}
	return out, nil
}
