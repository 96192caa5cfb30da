package cli

import (
	"context"
	"os"
	"time"

	"github.com/seed1de3961f/runbook/cmd/runbook/demo"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

func demoCommand() spec {
	return spec{
		name: "demo", group: "Start", summary: "see a real remediation, in seconds, with nothing but this binary",
		about: `Starts a small service that really gets stuck, evaluates a real runbook
against it, restarts it through a real plugin, and verifies that it recovered;
then shows on purpose how the cooldown and halt refuse, and why. Everything
happens in a temporary directory, and nothing is left behind. Exits 0 only if
each step was really observed.`,
		example: "runbook demo",
		run: func(ctx context.Context, c *call) (result, error) {
			exe, err := os.Executable()
			if err != nil {
				return nil, problem.Wrap(problem.Internal, err, "find this program's own file")
			}
			rep, err := demo.Run(ctx, demo.Options{Exe: exe, Say: c.ui.Printf})
			if rep == nil {
				return nil, err
			}
			return demoResult{rep}, err
		},
	}
}

// demoResult is what the demo observed. A person has read it as it happened.
type demoResult struct{ *demo.Report }

func (r demoResult) text(u *ui) {
	if r.OK {
		u.Printf("\nall of it was observed, in %s\n", howLong(time.Duration(r.TookMS)*time.Millisecond))
	}
}
