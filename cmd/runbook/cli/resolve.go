package cli

import (
	"context"
	"errors"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func resolveCommand() spec {
	return spec{
		name: "resolve", group: "Decide", summary: "say what became of an action in doubt",
		about: `An action that began and whose outcome is unknown keeps its target until a
person says what happened: done, not-done, or abandoned (nobody can tell). The
nonce comes with the action (runbook actions ID), so that nobody resolves
something else than what they looked at. An attempt with an abandoned action
is ended with the attempt's id and --as closed, once its target is in order.`,
		args: "ID", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "as", Usage: "`WHAT`: done, not-done, abandoned, or closed for an attempt"},
			&cli.StringFlag{Name: "nonce", Usage: "the action's `NONCE`"},
			&cli.StringFlag{Name: "reason", Usage: "`WORDS`: how you know"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be recorded; change nothing"},
		},
		required: []string{"as", "reason"},
		example:  `runbook resolve k3v9qx2a1m --nonce 5f0c... --as done --reason "uptime says it restarted"`,
		run:      runResolve,
	}
}

var resolutions = map[string]action.StepState{
	"done": action.ResolvedDone, "not-done": action.ResolvedNotDone, "abandoned": action.Abandoned,
}

func runResolve(ctx context.Context, c *call) (result, error) {
	as := c.String("as")
	to, ok := resolutions[as]
	if !ok && as != "closed" {
		p := problem.New(problem.Usage, "runbook resolve: --as must be done, not-done, abandoned or closed, got %q", as)
		return nil, p.WithHint("runbook resolve --help")
	}
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "resolve")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	if as == "closed" {
		return closeAttempt(ctx, c, st)
	}
	s, err := ledger.Step(ctx, st, c.args[0])
	if err != nil {
		return nil, err
	}
	ev := action.Event{To: to, By: action.ByPerson, Nonce: c.String("nonce"), Person: control.Who(), Why: c.String("reason")}
	if c.Bool("dry-run") {
		if err := s.Apply(ev, action.Clock{Wall: c.stdio.Now()}); err != nil {
			return nil, err
		}
		return resolveResult{Action: s, DryRun: true}, nil
	}
	s, a, err := ledger.Resolve(ctx, st, clock.Read, s, ev)
	if err != nil {
		return nil, err
	}
	return resolveResult{Action: s, Attempt: a}, nil
}

func closeAttempt(ctx context.Context, c *call, st auditedStore) (result, error) {
	if c.Bool("dry-run") {
		a, _, err := ledger.Attempt(ctx, st, c.args[0])
		return resolveResult{Attempt: a, DryRun: true}, err
	}
	a, err := ledger.CloseAttempt(ctx, st, clock.Read, c.args[0], control.Who(), c.String("reason"))
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == problem.StoreDamaged && a == nil {
		return nil, problem.New(problem.NotFound, "there is no attempt %q", c.args[0]).WithHint("runbook actions ID shows the attempt of an action")
	}
	if err != nil {
		return nil, err
	}
	return resolveResult{Attempt: a}, nil
}

type resolveResult struct {
	Action  *action.Step    `json:"action,omitempty"`
	Attempt *action.Attempt `json:"attempt,omitempty"`
	DryRun  bool            `json:"dry_run,omitempty"`
}

func (r resolveResult) text(u *ui) {
	is := "is"
	if r.DryRun {
		is = "would be"
	}
	if s := r.Action; s != nil {
		u.Printf("action %s (%s on %s) %s %s\n", s.ID, s.Action, s.Identity.Target, is, spoken(string(s.State)))
	}
	if a := r.Attempt; a != nil {
		u.Printf("attempt %s on %s is %s\n", a.ID, a.Target.Key, spoken(string(a.State)))
		if a.State == action.Interrupted || a.State == action.AttemptFailed {
			u.Printf("it keeps the target until it is closed: runbook resolve %s --as closed --reason \"...\"\n", a.ID)
		}
	}
}
