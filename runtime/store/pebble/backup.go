package pebble

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	pdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Report is what Check found.
type Report struct {
	Commits uint64 `json:"commits"`  // ever made
	LogFrom uint64 `json:"log_from"` // the oldest commit that the log still names
	Marked  uint64 `json:"marked"`   // the commit that the mark names
	Records int    `json:"records"`
	Bytes   uint64 `json:"bytes"` // on the disk
	Space   Space  `json:"space"`
}

// Check reads everything that the store has, which an ordinary open does not, and so finds damage where nobody looks. It
// changes nothing, and works on a full or read-only disk.
func (s *Store) Check(ctx context.Context) (Report, error) {
	db, err := s.begin(ctx, false)
	if err != nil {
		return Report{}, err
	}
	defer s.end()
	r := Report{Commits: db.seq, LogFrom: db.floor, Marked: db.mark.seq, Bytes: db.db.Metrics().DiskSpaceUsage()}
	if r.Space, err = s.cfg.space(); err != nil {
		return r, err
	}
	if err := db.db.CheckLevels(nil); err != nil {
		return r, s.cfg.damaged("%v", err)
	}
	return r, db.scan(ctx, "", false, func(string, []byte) bool { r.Records++; return true })
}

// Backup makes a copy of the store in dst, which must not exist, with its mark and lock beside it: a store that New opens.
// Nobody commits meanwhile. dst is best on another disk.
func (s *Store) Backup(ctx context.Context, dst string) error {
	db, err := s.begin(ctx, true)
	if err != nil {
		return err
	}
	defer s.end()
	to := Config{Dir: dst, FS: s.cfg.FS, Space: s.cfg.Space, Fatal: s.cfg.Fatal}.withDefaults()
	for _, path := range []string{to.Dir, to.MarkFile, to.LockFile} {
		if _, err := to.FS.Stat(path); err == nil {
			return problem.New(problem.StateUnusable, "backup to %s: %s exists", dst, path).WithHint("name a directory that does not exist yet")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return to.unusable(err, "backup to %s", dst)
		}
	}
	if err := to.checkSpace(db.db.Metrics().DiskSpaceUsage()); err != nil {
		return err
	}
	mark := func() error { return to.makeMark(db.seq, db.chain) }
	for _, step := range []func() error{
		func() error { return db.db.Checkpoint(to.Dir, pdb.WithFlushedWAL()) },
		to.unlink,
		to.makeLocks, mark, to.makeFormat,
		func() error { return syncDir(to.FS, parent(to.Dir)) },
	} {
		if err := step(); err != nil {
			return to.unusable(err, "backup to %s", dst)
		}
	}
	// A backup that cannot be opened is none.
	copied, err := to.open(true)
	if err != nil {
		return err
	}
	return copied.close()
}

// unlink makes each file of a checkpoint one of its own. Pebble links what does not change: what damages that in the store would damage it in the
// copy as well.
func (c *Config) unlink() error {
	if c.FS != vfs.Default {
		return nil // in memory there are no links
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(c.Dir, e.Name())
		if err := copyFile(path, path+".copy"); err != nil {
			return err
		}
		if err := os.Rename(path+".copy", path); err != nil {
			return err
		}
	}
	return syncDir(c.FS, c.Dir)
}

// makeLocks makes the files that processes lock. They are on the disk in tests too.
func (c *Config) makeLocks() error {
	for _, path := range []string{c.LockFile, c.LockFile + waitSuffix} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o660)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
