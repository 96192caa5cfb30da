package cli

import (
	"context"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func actionsCommand() spec {
	return spec{
		name: "actions", group: "Look", summary: "list actions, or show one in full",
		about: `Without ID lists actions, the newest first; with --refused-by those that a guard
refused. With ID shows every state that one went through. An OUTCOME is reserved,
begun, not_started, succeeded, no_change, failed, in_doubt, resolved_done, ...`,
		args: "[ID]", max: 1, takes: takesProject | takesState,
		flags: append(filterFlags(),
			&cli.BoolFlag{Name: "in-doubt", Usage: "only those that began and whose outcome is unknown"},
			&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"},
		),
		example: "runbook actions --in-doubt",
		run:     runActions,
	}
}

func runActions(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "actions")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	if len(c.args) == 1 {
		s, err := ledger.Step(ctx, st, c.args[0])
		if err != nil {
			return nil, err
		}
		return actionResult{s}, nil
	}
	f, err := c.filter("actions", stepStates)
	if err != nil {
		return nil, err
	}
	if f.refusedBy != "" {
		return refusedActions(ctx, st, c, f)
	}
	steps, err := f.steps(ctx, st, c.Int("limit"), c.Bool("in-doubt"))
	if err != nil {
		return nil, err
	}
	if steps == nil {
		steps = []*action.Step{}
	}
	return actionsResult{Actions: steps, doubt: c.Bool("in-doubt"), filtered: f.any(), now: c.stdio.Now()}, nil
}

// stepStates are the outcomes of an action.
var stepStates = []string{
	string(action.Reserved), string(action.Begun), string(action.NotStarted), string(action.Succeeded), string(action.NoChange), string(action.Failed),
	string(action.InDoubt), string(action.ResolvedDone), string(action.ResolvedNotDone), string(action.Abandoned),
}

// refusedLine is an action that a guard refused.
type refusedLine struct {
	Run     string     `json:"run"`
	At      time.Time  `json:"at"`
	Runbook string     `json:"runbook"`
	Target  string     `json:"target"`
	Action  string     `json:"action"`
	Args    value.Dict `json:"args"`
	By      []string   `json:"by"` // every guard that refused it
}

type refusedResult struct {
	Refused []refusedLine `json:"refused"`
	now     time.Time
}

func refusedActions(ctx context.Context, st auditedStore, c *call, f filter) (result, error) {
	runs, err := ledger.Runs(ctx, st, c.Int("limit"), f.since, f.run)
	if err != nil {
		return nil, err
	}
	res := refusedResult{Refused: []refusedLine{}, now: c.stdio.Now()}
	for _, r := range runs {
		for _, rb := range r.Runbooks {
			for _, t := range rb.Targets {
				if t.Evaluation == nil || !f.about(rb.Name, t.Key, t.Name, t.Labels) {
					continue
				}
				for _, e := range t.Evaluation.Events {
					if e.Action == nil || !f.refused(e.Action) {
						continue
					}
					l := refusedLine{Run: r.ID, At: r.Started, Runbook: rb.Name, Target: t.Key, Action: e.Action.Action, Args: e.Action.Args}
					for _, v := range guard.Refused(e.Action.Verdicts) {
						l.By = append(l.By, v.Guard)
					}
					res.Refused = append(res.Refused, l)
				}
			}
		}
	}
	return res, nil
}

func (r refusedResult) text(u *ui) {
	if len(r.Refused) == 0 {
		u.Printf("no such actions\n")
		return
	}
	var rows [][]string
	for _, l := range r.Refused {
		rows = append(rows, []string{l.Run, stamp(l.At, r.now), l.Action, l.Target, l.Runbook, strings.Join(l.By, ", ")})
	}
	u.Table([]string{"RUN", "WHEN", "WHAT", "TARGET", "RUNBOOK", "REFUSED BY"}, rows)
}

type actionsResult struct {
	Actions         []*action.Step `json:"actions"`
	doubt, filtered bool
	now             time.Time
}

func (r actionsResult) text(u *ui) {
	if len(r.Actions) == 0 {
		if r.doubt {
			u.Printf("nothing is in doubt\n")
			return
		}
		u.Printf("%s\n", map[bool]string{false: "no actions yet", true: "no such actions"}[r.filtered])
		return
	}
	var rows [][]string
	for _, s := range r.Actions {
		rows = append(rows, []string{s.ID, stamp(s.ReservedAt.Wall, r.now), spoken(string(s.State)), s.Action, s.Identity.Target, s.Identity.Runbook, s.Reason})
	}
	u.Table([]string{"ACTION", "WHEN", "STATE", "WHAT", "TARGET", "RUNBOOK", "WHY"}, rows)
	for _, s := range r.Actions {
		if s.State == action.InDoubt {
			u.Printf("\n%s\n", resolveLine(s))
		}
	}
}

type actionResult struct {
	Action *action.Step `json:"action"`
}

func (r actionResult) text(u *ui) {
	s := r.Action
	u.Printf("%s  %s on %s: %s\n", bold(s.ID), s.Action, s.Identity.Target, spoken(string(s.State)))
	for _, row := range [][2]string{
		{"runbook", s.Identity.Runbook},
		{"reason", s.Reason},
		{"arguments", compact(s.Args)},
		{"connection", s.Connection},
		{"attempt", s.Identity.AttemptID() + map[bool]string{true: ", in its cleanup"}[s.Cleanup]},
		{"episode", s.Identity.Episode},
		{"run", s.Run},
		{"at", s.Pos.String()},
		{"cooldown", howLong(s.Cooldown)},
		{"timeout", howLong(s.Timeout)},
		{"key", s.Key},
		{"nonce", s.Nonce},
	} {
		if row[1] != "" {
			u.Printf("  %-11s %s\n", row[0], row[1])
		}
	}
	u.Printf("  history\n")
	for _, h := range s.History {
		u.Printf("    %s  %-12s %s\n", clockTime(h.At), spoken(h.To), h.Why)
	}
	for _, l := range s.Late {
		u.Printf("    %s  late: the plugin says %s: %s\n", clockTime(l.At), spoken(string(l.State)), l.Message)
	}
	if s.State == action.InDoubt {
		u.Printf("\n%s\n", resolveLine(s))
	}
}

func resolveLine(s *action.Step) string {
	return "look at " + s.Identity.Target + ", then type: runbook resolve " + s.ID + " --nonce " + s.Nonce + ` --as done|not-done|abandoned --reason "how you know"`
}
