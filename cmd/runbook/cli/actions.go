package cli

import (
	"context"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func actionsCommand() spec {
	return spec{
		name: "actions", group: "Look", summary: "list actions, or show one in full",
		about: `Without ID lists actions, the newest first. With ID shows one: every state it
went through and, while it is in doubt, the command that resolves it.`,
		args: "[ID]", max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "in-doubt", Usage: "only those that began and whose outcome is unknown"},
			&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"},
		},
		example: "runbook actions --in-doubt",
		run:     runActions,
	}
}

func runActions(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := openStore(state, "actions")
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
	if c.Int("limit") < 1 {
		return nil, problem.New(problem.Usage, "runbook actions: --limit must be at least 1").WithHint("runbook actions --help")
	}
	steps, err := ledger.Steps(ctx, st, c.Int("limit"), func(s *action.Step) bool {
		return !c.Bool("in-doubt") || s.State == action.InDoubt
	})
	if err != nil {
		return nil, err
	}
	if steps == nil {
		steps = []*action.Step{}
	}
	return actionsResult{Actions: steps, doubt: c.Bool("in-doubt"), now: c.stdio.Now()}, nil
}

type actionsResult struct {
	Actions []*action.Step `json:"actions"`
	doubt   bool
	now     time.Time
}

func (r actionsResult) text(u *ui) {
	if len(r.Actions) == 0 {
		if r.doubt {
			u.Printf("nothing is in doubt\n")
			return
		}
		u.Printf("no actions yet\n")
		return
	}
	var rows [][]string
	for _, s := range r.Actions {
		rows = append(rows, []string{s.ID, when(s.ReservedAt.Wall, r.now), spoken(string(s.State)), s.Action, s.Identity.Target, s.Identity.Runbook, s.Reason})
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
