package cli

import (
	"context"
	"fmt"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func runsCommand() spec {
	return spec{
		name: "runs", group: "Look", summary: "list runs, the newest first",
		takes:   takesProject | takesState,
		flags:   []cli.Flag{&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"}},
		example: "runbook runs --limit 5",
		run: func(ctx context.Context, c *call) (result, error) {
			state, err := c.openState(ctx)
			if err != nil {
				return nil, err
			}
			st, err := openStore(state, "runs")
			if err != nil {
				return nil, err
			}
			defer st.Close()
			if c.Int("limit") < 1 {
				return nil, problem.New(problem.Usage, "runbook runs: --limit must be at least 1").WithHint("runbook runs --help")
			}
			runs, err := ledger.Runs(ctx, st, c.Int("limit"))
			if err != nil {
				return nil, err
			}
			res := runsResult{Runs: []runLine{}, now: c.stdio.Now()}
			for _, r := range runs {
				res.Runs = append(res.Runs, newRunLine(r))
			}
			return res, nil
		},
	}
}

type runsResult struct {
	Runs []runLine `json:"runs"`
	now  time.Time
}

// runLine is one run in a list.
type runLine struct {
	ID      string       `json:"id"`
	Started time.Time    `json:"started"`
	Ended   time.Time    `json:"ended,omitzero"`
	State   string       `json:"state"` // done, active, died
	Exit    problem.Exit `json:"exit"`
	Summary string       `json:"summary"`
}

func newRunLine(r *trace.Run) runLine {
	l := runLine{ID: r.ID, Started: r.Started, Ended: r.Ended, State: "done", Exit: r.Exit, Summary: trace.OneLine(r)}
	if r.Ended.IsZero() {
		l.State = "died"
		if process.Alive(r.Owner) {
			l.State = "active"
		}
	}
	return l
}

func (r runsResult) text(u *ui) {
	if len(r.Runs) == 0 {
		u.Printf("no runs yet\n")
		return
	}
	var rows [][]string
	for _, l := range r.Runs {
		end := fmt.Sprint(l.Exit)
		if l.State != "done" {
			end = l.State
		}
		rows = append(rows, []string{l.ID, when(l.Started, r.now), end, l.Summary})
	}
	u.Table([]string{"RUN", "STARTED", "EXIT", "WHAT"}, rows)
}
