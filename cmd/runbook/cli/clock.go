package cli

import (
	"context"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func clockCommand() spec {
	return spec{
		name: "clock", group: "Maintain", summary: "the trusted clock",
		about: `Cooldowns and rates run on a clock that never goes back. An error in the
machine's clock makes them longer, never shorter.`,
		example: "runbook clock accept",
		sub: []spec{{
			name: "accept", summary: "believe the machine's clock after a jump",
			about: `After an unsynchronised clock has jumped ahead by more than a day nothing
acts, since cooldowns may not really have passed. Once a person has checked the
time (date -u) this believes it. Cooldowns are not shortened by it.`,
			takes:   takesProject | takesState,
			flags:   []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "say what would be believed; change nothing"}},
			example: "runbook clock accept",
			run:     runClockAccept,
		}},
	}
}

type clockResult struct {
	Wall   time.Time     `json:"wall"`
	Ahead  time.Duration `json:"ahead"` // what was not believed until now; 0: there was nothing to accept
	DryRun bool          `json:"dry_run,omitempty"`
}

func runClockAccept(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "clock accept")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	before, after, err := ledger.AcceptClock(ctx, st, clock.Read, control.Who(), c.Bool("dry-run"))
	if err != nil {
		return nil, err
	}
	return clockResult{Wall: after.Wall, Ahead: before.Ahead, DryRun: c.Bool("dry-run")}, nil
}

func (r clockResult) text(u *ui) {
	switch {
	case r.Ahead == 0:
		u.Printf("the clock is believed: it is %s\n", clockTime(r.Wall))
	case r.DryRun:
		u.Printf("would believe that it is %s, which is %s ahead of the time that has certainly passed\n", clockTime(r.Wall), howLong(r.Ahead))
	default:
		u.Printf("believed from now on: it is %s\n", clockTime(r.Wall))
	}
}
