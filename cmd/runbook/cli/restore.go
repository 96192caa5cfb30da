package cli

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/backup"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

func restoreCommand() spec {
	return spec{
		name: "restore", group: "Maintain", summary: "put a backup into the place of the records, and halt",
		about: `Checks every byte of the backup in DIR, halts, and puts it into the place of the
store, which is kept beside it. What was done after the backup is forgotten:
cooldowns, attempts, and actions in doubt. Records that are newer than the backup,
or that cannot be read, are replaced with --force only; --dry-run lists them. A state
directory that does not exist is made. Cut short, nothing acts: type it again.`,
		args: "DIR", min: 1, max: 1, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "also if newer records are forgotten, or the store cannot be read"},
			&cli.BoolFlag{Name: "dry-run", Usage: "check the backup and say what would be forgotten; change nothing"},
		},
		example: "runbook restore /var/backups/runbook-2026-11-27 --dry-run",
		run:     runRestore,
	}
}

type restoreResult struct {
	Dir       string          `json:"dir"`
	State     string          `json:"state"`
	Backup    backup.Manifest `json:"backup"`
	Commits   uint64          `json:"commits"`             // of the store that is there, 0 if there is none
	Forgotten []*action.Step  `json:"forgotten,omitempty"` // actions that were reserved after the backup, newest first
	Unread    string          `json:"unread,omitempty"`    // why the store that is there cannot be read
	Kept      string          `json:"kept,omitempty"`      // where the old records are
	DryRun    bool            `json:"dry_run,omitempty"`
	now       time.Time
}

func runRestore(ctx context.Context, c *call) (result, error) {
	dir, err := filepath.Abs(c.args[0])
	if err != nil {
		return nil, problem.Wrap(problem.Usage, err, "restore %s", c.args[0])
	}
	m, err := backup.Open(dir)
	if err != nil {
		return nil, err
	}
	r := restoreResult{Dir: dir, Backup: m, DryRun: c.Bool("dry-run"), now: c.stdio.Now()}
	state, err := c.openState(ctx)
	r.State = state.Dir
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == problem.StateMissing && state.Dir != "" {
		if r.DryRun {
			return r, nil
		}
		if state, err = control.InitAs(state.Dir, "", m.Namespace); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if err := r.look(ctx, state); err != nil {
		return nil, err
	}
	if r.DryRun {
		return r, nil
	}
	st, err := c.openStore(state, "restore")
	if err != nil {
		return nil, err
	}
	defer st.Close()
	r.Kept, err = backup.Restore(ctx, state, st.Store, dir, m, c.Bool("force"), func(line string) { c.log.Info("halt", "did", line) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

// look finds out what the store that is there would lose.
func (r *restoreResult) look(ctx context.Context, state control.State) error {
	st, err := pebble.New(storeConfig(state, "restore"))
	if err != nil {
		return err
	}
	defer st.Close() // it is not to be open when it is replaced
	have, err := st.Marked()
	if err != nil {
		r.Unread = err.Error()
		return nil
	}
	if r.Commits = have; have <= r.Backup.Commits {
		return nil
	}
	steps, err := ledger.Steps(ctx, st, 1000, func(s *action.Step) bool { return s.ReservedAt.Wall.After(r.Backup.At) })
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.Unread = err.Error()
	}
	r.Forgotten = steps
	return nil
}

func (r restoreResult) text(u *ui) {
	u.Printf("the backup of %s holds %d records and is as it was made\n", when(r.Backup.At, r.now), r.Backup.Records)
	switch {
	case r.Unread != "":
		u.Printf("the store that is there cannot be read: %s\n", r.Unread)
	case r.Commits > r.Backup.Commits:
		u.Printf("the store that is there has %d commits that the backup has not\n", r.Commits-r.Backup.Commits)
	}
	is := "is"
	if r.DryRun {
		is = "would be"
	}
	if len(r.Forgotten) > 0 {
		u.Printf("what was done since then %s forgotten:\n", is)
		var rows [][]string
		for _, s := range r.Forgotten {
			rows = append(rows, []string{s.ID, when(s.ReservedAt.Wall, r.now), spoken(string(s.State)), s.Action, s.Identity.Target, s.Identity.Runbook})
		}
		u.Table([]string{"ACTION", "WHEN", "STATE", "WHAT", "TARGET", "RUNBOOK"}, rows)
	}
	if r.DryRun {
		u.Printf("nothing was changed; to put it back: runbook restore %s%s\n", r.Dir, map[bool]string{true: " --force"}[r.Unread != "" || r.Commits > r.Backup.Commits])
		return
	}
	u.Printf("%s is restored, and halted\n", r.State)
	if r.Kept != "" {
		u.Printf("the old records are in %s; remove them when you are sure\n", r.Kept)
	}
	u.Printf("look at the targets, then type: runbook resume --reason \"...\"\n")
}
