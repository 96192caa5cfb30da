package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// What Restore puts aside and what it prepares, beside the store.
const (
	replacedSuffix  = ".replaced"
	restoringSuffix = ".restoring"
)

// Marked is the last commit that was acknowledged, as the mark has it, whatever became of the store itself; 0 if there is neither.
func (s *Store) Marked() (uint64, error) {
	if _, err := s.cfg.FS.Stat(s.cfg.MarkFile); errors.Is(err, fs.ErrNotExist) {
		if _, err := s.cfg.FS.Stat(s.cfg.Dir); errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
	}
	m, err := s.cfg.openMark(true)
	if err != nil {
		return 0, err
	}
	return m.seq, m.f.Close()
}

// Forgets is why a copy that Backup made in src may not simply replace the store: commits would be forgotten, or nobody can say whether.
func (s *Store) Forgets(src string) error {
	have, err := s.Marked()
	if err != nil {
		return err
	}
	copied, err := (&Store{cfg: Config{Dir: src, FS: s.cfg.FS}.withDefaults()}).Marked()
	if err != nil {
		return err
	}
	if have > copied {
		return problem.New(problem.Refused, "the store has %d commits, and the backup %d: what the last %d recorded would be forgotten", have, copied, have-copied).
			WithHint("look at what that was with --dry-run; if it may be forgotten: --force")
	}
	return nil
}

// Restore replaces the store by the copy that Backup made in src, and returns where the old one is kept. A store that has commits which the copy
// has not is refused unless newer is set: what they recorded would be forgotten. Until the copy is complete and was opened the old store stays
// as it is; a Restore that is cut short after that leaves a store that does not open until it is repeated. Nobody may have the store meanwhile.
func (s *Store) Restore(ctx context.Context, src string, newer bool) (kept string, err error) {
	c := s.cfg
	if err := c.makeLocks(); err != nil {
		return "", c.unusable(err, "restore")
	}
	lock, err := c.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	from := Config{Dir: src, FS: c.FS, Space: c.Space, Fatal: c.Fatal}.withDefaults()
	if err := s.Forgets(src); err != nil && !newer {
		return "", err
	}
	size, err := sizeOf(src)
	if err != nil {
		return "", c.unusable(err, "restore from %s", src)
	}
	if err := c.checkSpace(size); err != nil {
		return "", err
	}
	to := c
	to.Dir, to.MarkFile = c.Dir+restoringSuffix, c.MarkFile+restoringSuffix
	if err := copyStore(from, to); err != nil {
		return "", c.unusable(err, "restore from %s", src)
	}
	copied, err := to.open(true)
	if err != nil {
		return "", err
	}
	if err := copied.close(); err != nil {
		return "", c.unusable(err, "restore from %s", src)
	}
	kept, err = swap(c, to)
	if err != nil {
		return kept, c.unusable(err, "put the restored store into place; repeat the restore")
	}
	return kept, nil
}

// copyStore copies a store and its mark, durably. What an earlier attempt left is removed.
func copyStore(from, to Config) error {
	if err := errors.Join(os.RemoveAll(to.Dir), os.RemoveAll(to.MarkFile)); err != nil {
		return err
	}
	if err := os.Mkdir(to.Dir, 0o770); err != nil {
		return err
	}
	entries, err := os.ReadDir(from.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is not a file", filepath.Join(from.Dir, e.Name()))
		}
		if err := copyFile(filepath.Join(from.Dir, e.Name()), filepath.Join(to.Dir, e.Name())); err != nil {
			return err
		}
	}
	if err := copyFile(from.MarkFile, to.MarkFile); err != nil {
		return err
	}
	return errors.Join(syncDir(to.FS, to.Dir), syncDir(to.FS, parent(to.Dir)))
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o660)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// swap puts the store that was prepared into the place of the old one, which is kept. Between the renames there is no store or one that its mark does
// not fit: nothing opens.
func swap(c, prepared Config) (kept string, err error) {
	kept = c.Dir + replacedSuffix
	for n := 2; ; n++ {
		if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
		kept = fmt.Sprintf("%s%s-%d", c.Dir, replacedSuffix, n)
	}
	for _, x := range [][2]string{{c.Dir, kept}, {c.MarkFile, kept + ".mark"}} {
		if err := os.Rename(x[0], x[1]); errors.Is(err, fs.ErrNotExist) && x[0] == c.Dir {
			kept = "" // there was none
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	if err := os.Rename(prepared.MarkFile, c.MarkFile); err != nil {
		return kept, err
	}
	if err := os.Rename(prepared.Dir, c.Dir); err != nil {
		return kept, err
	}
	return kept, syncDir(c.FS, parent(c.Dir))
}

func sizeOf(dir string) (size uint64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += uint64(info.Size())
		}
		return err
	})
	return size, err
}
