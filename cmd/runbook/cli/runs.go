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
		about: `With filters only those in which one target has all that is asked for. An OUTCOME
is acted, nothing, escalated, refused, failed, in_doubt, interrupted or skipped.`,
		takes: takesProject | takesState,
		flags: append(filterFlags(),
			&cli.IntFlag{Name: "limit", Value: 20, Usage: "show at most `N`; default 20"}),
		example: "runbook runs --refused-by cooldown --since 2d",
		run: func(ctx context.Context, c *call) (result, error) {
			state, err := c.openState(ctx)
			if err != nil {
				return nil, err
			}
			st, err := c.openStore(state, "runs")
			if err != nil {
				return nil, err
			}
			defer st.Close()
			f, err := c.filter("runs", outcomes)
			if err != nil {
				return nil, err
			}
			runs, err := ledger.Runs(ctx, st, c.Int("limit"), f.since, f.run)
			if err != nil {
				return nil, err
			}
			res := runsResult{Runs: []runLine{}, now: c.stdio.Now(), filtered: f.any()}
			for _, r := range runs {
				res.Runs = append(res.Runs, newRunLine(r))
			}
			return res, nil
		},
	}
}

// outcomes are those of an evaluation.
var outcomes = []string{
	string(trace.Acted), string(trace.Nothing), string(trace.Escalated), string(trace.Refused), string(trace.Failed),
	string(trace.DoubtRemains), string(trace.Interrupted), string(trace.Skipped),
}

type runsResult struct {
	Runs     []runLine `json:"runs"`
	now      time.Time
	filtered bool
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
		u.Printf("%s\n", map[bool]string{false: "no runs yet", true: "no such runs"}[r.filtered])
		return
	}
	var rows [][]string
	for _, l := range r.Runs {
		end := fmt.Sprint(l.Exit)
		if l.State != "done" {
			end = l.State
		}
		rows = append(rows, []string{l.ID, stamp(l.Started, r.now), end, l.Summary})
	}
	u.Table([]string{"RUN", "STARTED", "EXIT", "WHAT"}, rows)
}
