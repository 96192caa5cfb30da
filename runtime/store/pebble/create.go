package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	pdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Create makes an empty store in dir, with its mark and lock beside it. The parent of dir must exist. A Create that was cut
// short can be repeated; one over a store that is there is refused.
func Create(dir string) error { return create(Config{Dir: dir}) }

func create(cfg Config) error {
	c := cfg.withDefaults()
	if err := c.makeLocks(); err != nil {
		return c.unusable(err, "create store %s", c.Dir)
	}
	lock, err := c.tryOnce()
	if err != nil {
		return err
	}
	defer lock.release() //nolint:errcheck // closing the file releases it too
	if err := c.checkSpace(0); err != nil {
		return err
	}
	if err := c.checkVacant(); err != nil {
		return err
	}
	mark := func() error { return c.makeMark(0, chain{}) }
	for _, step := range []func() error{c.makeDir, c.makeDatabase, c.makeDatabase, mark, c.makeFormat} {
		if err := step(); err != nil {
			return c.unusable(err, "create store %s", c.Dir)
		}
	}
	return nil
}

// checkVacant refuses to create over anything that has ever held a commit.
func (c *Config) checkVacant() error {
	_, err := c.FS.Stat(c.FS.PathJoin(c.Dir, formatFile))
	if err == nil {
		return problem.New(problem.StateUnusable, "there is a store in %s already", c.Dir).
			WithHint("use it as it is; to begin anew, move the state directory away first")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return c.unusable(err, "look at %s", c.Dir)
	}
	var p *problem.Problem
	if err := c.missing(); errors.As(err, &p) && p.Code != problem.StateMissing {
		return err
	}
	return nil
}

func (c *Config) makeDir() error {
	// MkdirAll does nothing for a directory that exists; the parent is synced either way, because an earlier attempt may
	// have ended before it did that.
	if _, err := c.FS.Stat(parent(c.Dir)); err != nil {
		return err
	}
	if err := c.FS.MkdirAll(c.Dir, 0o770); err != nil {
		return err
	}
	return syncDir(c.FS, parent(c.Dir))
}

// makeDatabase is done twice: Pebble's first log of a new database is written before the format is raised and lacks the
// checks that later logs have.
func (c *Config) makeDatabase() error {
	trouble := make(chan *problem.Problem, 1)
	o := c.options(&database{cfg: c, trouble: trouble}, false)
	o.ErrorIfNotExists = false
	made := make(chan error, 1)
	go func() {
		db, err := pdb.Open(c.Dir, o)
		if err == nil {
			err = db.Set(floorKey, binary.BigEndian.AppendUint64(nil, 1), pdb.Sync)
			err = errors.Join(err, db.Close())
		}
		made <- err
	}()
	select {
	case err := <-made:
		return err
	case p := <-trouble: // where it cannot write, Pebble tries again for ever
		return p
	}
}

func (c *Config) makeMark(seq uint64, last chain) error {
	if err := createMark(c.FS, c.MarkFile, seq, last); err != nil {
		return err
	}
	return syncDir(c.FS, parent(c.MarkFile))
}

// makeFormat comes last: the file's presence says that all the rest is there.
func (c *Config) makeFormat() error {
	path := c.FS.PathJoin(c.Dir, formatFile)
	f, err := c.FS.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(formatText()))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := c.FS.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(c.FS, c.Dir)
}

func parent(path string) string { return filepath.Dir(filepath.Clean(path)) }

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
