package cli

import (
	"context"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func replayCommand() spec {
	return spec{
		name: "replay", group: "Look", summary: "decide a recorded run again, and say whether the decision is the same",
		about: `From the record alone: the runbook as it was, with the answers that it got. What the
fleet, the symptom and the guards measured is taken from the record too, and
nothing is asked or done. With --with the runbook is that of another revision:
then the outcome and what it asks to be done are compared. RUN is as for explain.
Exits with 3 if a decision differs or cannot be made again.`,
		args: "RUN", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "with", Usage: "by the runbooks of this git `REV`, or . for the files as they are now"},
		},
		example: "runbook replay last --with HEAD~1",
		run:     runReplay,
	}
}

func runReplay(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "replay")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	r, err := findRun(ctx, st, c.args[0])
	if err != nil {
		return nil, err
	}
	with := c.String("with")
	p := engine.Replay{Spawn: o.spawn, Families: o.families, Changed: with != "", Source: kept(st)}
	if with != "" {
		tree := o.tree
		if with != "." {
			at, done, err := atRevision(ctx, o.tree, with)
			if err != nil {
				return nil, err
			}
			defer done()
			tree = at
		}
		p.Source = func(context.Context, string, string) (sandbox.Source, error) { return tree, nil }
	}
	decided, err := p.Run(ctx, r)
	if err != nil {
		return nil, err
	}
	res := replayResult{Run: r.ID, With: with, Decisions: decided}
	for _, d := range decided {
		if !d.Same {
			return res, exitWith(problem.ExitFindings)
		}
	}
	return res, nil
}

// kept hands out the files that are on record.
func kept(st store.Store) func(ctx context.Context, path, digest string) (sandbox.Source, error) {
	return func(ctx context.Context, path, digest string) (sandbox.Source, error) {
		src, err := ledger.LoadSource(ctx, st, digest)
		if err == nil && src == nil {
			err = problem.New(problem.NotFound, "the files by which %s was evaluated are not on record", path)
		}
		return src, err
	}
}

type replayResult struct {
	Run       string           `json:"run"`
	With      string           `json:"with,omitempty"`
	Decisions []engine.Decided `json:"decisions"`
}

func (r replayResult) text(u *ui) {
	if len(r.Decisions) == 0 {
		u.Printf("run %s decided nothing: no target was evaluated\n", r.Run)
	}
	for _, d := range r.Decisions {
		n := &trace.Node{Mark: trace.Bad, Text: d.Runbook + " on " + d.Target}
		if d.Cleanup {
			n.Text += " (cleanup)"
		}
		switch {
		case d.Unknown != "":
			n.Mark, n.Text = trace.Warn, n.Text+": cannot be decided again: "+d.Unknown
		case d.Same:
			n.Mark, n.Text = trace.Good, n.Text+": the same: "+d.Is
		default:
			n.Text += ": differs in " + d.Difference
			n.Children = []*trace.Node{{Text: "was  " + d.Was}, {Text: "is   " + d.Is}}
		}
		u.tree(n, "")
	}
}
