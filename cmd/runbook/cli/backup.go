package cli

import (
	"context"
	"path/filepath"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/backup"
)

func backupCommand() spec {
	return spec{
		name: "backup", group: "Maintain", summary: "copy the records to a directory, also while a run is active",
		about: `Copies the store of the state directory into DIR, which must not exist yet or be
empty, and opens the copy to see that it is one. Nobody commits meanwhile, which
takes about as long as copying the files. A stop (HALT) is not part of the copy.`,
		args: "DIR", min: 1, max: 1, takes: takesProject | takesState,
		flags:   []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "say what would be copied; copy nothing"}},
		example: "runbook backup /var/backups/runbook-$(date +%F)",
		run:     runBackup,
	}
}

type backupResult struct {
	Dir string `json:"dir"`
	backup.Manifest
	DryRun bool `json:"dry_run,omitempty"`
}

func runBackup(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "backup")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	dir, err := filepath.Abs(c.args[0])
	if err != nil {
		return nil, problem.Wrap(problem.Usage, err, "backup to %s", c.args[0])
	}
	if c.Bool("dry-run") {
		r, err := st.Check(ctx)
		if err != nil {
			return nil, err
		}
		m := backup.Manifest{Namespace: state.Namespace, At: c.stdio.Now(), Commits: r.Commits, Records: r.Records, Bytes: int64(r.Bytes)}
		return backupResult{Dir: dir, Manifest: m, DryRun: true}, nil
	}
	m, err := backup.Make(ctx, state, st.Store, dir, buildInfo().Version, c.stdio.Now())
	if err != nil {
		return nil, err
	}
	return backupResult{Dir: dir, Manifest: m}, nil
}

func (r backupResult) text(u *ui) {
	did := "copied"
	if r.DryRun {
		did = "would copy"
	}
	u.Printf("%s %d records, %s, to %s\n", did, r.Records, inBytes(uint64(r.Bytes)), r.Dir)
	if !r.DryRun {
		u.Printf("put it back with: runbook restore %s\n", r.Dir)
	}
}
