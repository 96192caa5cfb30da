package cli

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func explainCommand() spec {
	return spec{
		name: "explain", group: "Look", summary: "show exactly why a run did what it did, and did not",
		about: `RUN is a run's id, the start of it, an action's id, or "last". Shows every
query with its answer, which way every branch went and on which values, what
every guard measured, and every message to and from the plugins.`,
		args: "RUN", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "also what was healthy, every answer whole, and by which files and settings it was decided"},
			&cli.StringFlag{Name: "html", Usage: "write it to `FILE` as one page with the runbooks' text, to attach to an incident"},
		},
		example: "runbook explain last --html incident.html",
		run:     runExplain,
	}
}

func runExplain(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "explain")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	r, err := findRun(ctx, st, c.args[0])
	if err != nil {
		return nil, err
	}
	file := c.String("html")
	if file == "" {
		return explainResult{r, c.Bool("full")}, nil
	}
	page, err := explainPage(ctx, st, r)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, page, 0o600); err != nil {
		return nil, problem.Wrap(problem.Usage, err, "write %s", filepath.Base(file)).WithHint("name a file in a directory that can be written to")
	}
	return pageResult{Run: r.ID, File: file}, nil
}

// findRun is the run with that id, or the one that made the action with that id.
func findRun(ctx context.Context, st interface {
	store.Store
	store.Scanner
}, id string,
) (*trace.Run, error) {
	r, err := ledger.Run(ctx, st, id)
	if err == nil {
		return r, nil
	}
	step, serr := ledger.Step(ctx, st, id)
	if serr != nil {
		return nil, err
	}
	return ledger.Run(ctx, st, step.Run)
}

// explainPage is the run as a page, with the text of what was evaluated as far as it is on record.
func explainPage(ctx context.Context, st store.Store, r *trace.Run) ([]byte, error) {
	files := map[string]string{}
	for _, digest := range r.Sources() {
		src, err := ledger.LoadSource(ctx, st, digest)
		if err != nil {
			return nil, err
		}
		if src != nil {
			maps.Copy(files, src.Files)
		}
	}
	var b bytes.Buffer
	if err := trace.Page(&b, r, files); err != nil {
		return nil, problem.Wrap(problem.Internal, err, "write the page")
	}
	return b.Bytes(), nil
}

// explainResult is the whole trace; for a person it is a tree.
type explainResult struct {
	*trace.Run
	full bool
}

func (r explainResult) text(u *ui) {
	if r.full {
		u.tree(trace.ExplainFull(r.Run), "")
		return
	}
	u.tree(trace.Explain(r.Run), "")
}

type pageResult struct {
	Run  string `json:"run"`
	File string `json:"file"`
}

func (r pageResult) text(u *ui) { u.Printf("run %s is explained in %s\n", r.Run, r.File) }
