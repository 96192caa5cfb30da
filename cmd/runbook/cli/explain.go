package cli

import (
	"context"

	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func explainCommand() spec {
	return spec{
		name: "explain", group: "Look", summary: "show exactly why a run did what it did, and did not",
		about: `RUN is a run's id, the start of it, an action's id, or "last". Shows every
query with its answer, which way every branch went and on which values, what
every guard measured, and every message to and from the plugins.`,
		args: "RUN", min: 1, max: 1, takes: takesProject | takesState,
		example: "runbook explain last",
		run: func(ctx context.Context, c *call) (result, error) {
			state, err := c.openState(ctx)
			if err != nil {
				return nil, err
			}
			st, err := openStore(state, "explain")
			if err != nil {
				return nil, err
			}
			defer st.Close()
			r, err := ledger.Run(ctx, st, c.args[0])
			if err != nil {
				step, serr := ledger.Step(ctx, st, c.args[0])
				if serr != nil {
					return nil, err
				}
				if r, err = ledger.Run(ctx, st, step.Run); err != nil {
					return nil, err
				}
			}
			return explainResult{r}, nil
		},
	}
}

// explainResult is the whole trace; for a person it is a tree.
type explainResult struct{ *trace.Run }

func (r explainResult) text(u *ui) { u.tree(trace.Explain(r.Run), "") }
