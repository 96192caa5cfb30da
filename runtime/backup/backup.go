// Package backup makes copies of the records of a state directory, and puts them back.
//
// Promise: a copy that Make has returned is complete, on the disk, and was opened. What is restored is what was copied, byte for byte, or an error; a
// restored state directory is halted, because it has forgotten whatever was done after the copy. The controls that are files (HALT, RUN) are not
// part of a copy: a restore must not lift a stop.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

const (
	version      = 1
	manifestFile = "backup.json"
	storeDir     = "store"
)

// Manifest says what a copy holds.
type Manifest struct {
	V         int       `json:"v"`
	Namespace string    `json:"namespace"`
	Engine    string    `json:"engine"` // version of the binary that made it
	At        time.Time `json:"at"`
	Commits   uint64    `json:"commits"` // of the store when it was copied
	Records   int       `json:"records"`
	Bytes     int64     `json:"bytes"`
	Files     []File    `json:"files"`
}

// File is one file of a copy.
type File struct {
	Path   string `json:"path"` // with slashes, from the directory of the copy
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Make copies the store into the directory dst, which must not exist, or be empty. A run may be active: nobody commits while it is copied.
func Make(ctx context.Context, s control.State, st *pebble.Store, dst, engine string, now time.Time) (m Manifest, err error) {
	dst = filepath.Clean(dst)
	if err := vacant(dst); err != nil {
		return m, err
	}
	part := dst + ".partial"
	if err := os.Mkdir(part, 0o700); err != nil {
		hint := "make the directory above it first"
		if errors.Is(err, fs.ErrExist) {
			hint = "another backup is being made, or was cut short: then remove that directory"
		}
		return m, problem.Wrap(problem.StateUnusable, err, "backup to %s", dst).WithHint("%s", hint)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	if err := st.Backup(ctx, filepath.Join(part, storeDir)); err != nil {
		return m, err
	}
	m = Manifest{V: version, Namespace: s.Namespace, Engine: engine, At: now.UTC().Round(0)}
	if err := m.describe(ctx, part); err != nil {
		return m, problem.Wrap(problem.StateUnusable, err, "backup to %s", dst)
	}
	if err := writeManifest(part, m); err != nil {
		return m, problem.Wrap(problem.StateUnusable, err, "backup to %s", dst)
	}
	if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return m, problem.Wrap(problem.StateUnusable, err, "backup to %s", dst)
	}
	if err := os.Rename(part, dst); err != nil {
		return m, problem.Wrap(problem.StateUnusable, err, "backup to %s", dst)
	}
	return m, syncDir(filepath.Dir(dst))
}

func vacant(dst string) error {
	entries, err := os.ReadDir(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return problem.Wrap(problem.StateUnusable, err, "backup to %s", dst)
	case len(entries) > 0:
		return problem.New(problem.Usage, "%s exists and is not empty", dst).WithHint("each backup is a new directory, such as %s-$(date +%%F)", dst)
	}
	return nil
}

// describe reads back what was copied.
func (m *Manifest) describe(ctx context.Context, dir string) error {
	copied, err := pebble.New(pebble.Config{Dir: filepath.Join(dir, storeDir), Holder: "runbook backup"})
	if err != nil {
		return err
	}
	r, err := copied.Check(ctx)
	if err := errors.Join(err, copied.Close()); err != nil {
		return err
	}
	m.Commits, m.Records = r.Commits, r.Records
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || lockFile(d.Name()) {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := digest(path)
		if err != nil {
			return err
		}
		f.Path = filepath.ToSlash(rel)
		m.Files, m.Bytes = append(m.Files, f), m.Bytes+f.Size
		return nil
	})
}

// lockFile says whether a file is one that processes lock, and no data.
func lockFile(name string) bool {
	return name == "LOCK" || strings.HasSuffix(name, ".lock") || strings.HasSuffix(name, ".wait")
}

func digest(path string) (f File, err error) {
	in, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	h := sha256.New()
	f.Size, err = io.Copy(h, in)
	f.SHA256 = hex.EncodeToString(h.Sum(nil))
	return f, err
}

func writeManifest(dir string, m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, manifestFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open reads a copy and compares every byte of it with its manifest.
func Open(dir string) (m Manifest, err error) {
	bad := func(format string, args ...any) error {
		return problem.New(problem.StateUnusable, "backup %s: %s", dir, fmt.Sprintf(format, args...)).WithHint("use another backup; this one was changed, cut short, or is none")
	}
	text, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, problem.New(problem.Usage, "%s is not a backup: it has no %s", dir, manifestFile).WithHint("name a directory that runbook backup made")
	}
	if err != nil {
		return m, bad("%v", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, bad("%s: %v", manifestFile, err)
	}
	switch {
	case m.V > version:
		return m, problem.New(problem.StateUnusable, "backup %s has version %d, this binary knows %d", dir, m.V, version).WithHint("use the newer runbook binary that made it")
	case m.V < 1 || m.Namespace == "" || len(m.Files) == 0:
		return m, bad("%s is incomplete", manifestFile)
	}
	for _, f := range m.Files {
		if !fs.ValidPath(f.Path) {
			return m, bad("%s names %q", manifestFile, f.Path)
		}
		found, err := digest(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			return m, bad("%v", err)
		}
		if found.Size != f.Size || found.SHA256 != f.SHA256 {
			return m, bad("%s is not what was copied", f.Path)
		}
	}
	return m, nil
}

// Restore puts a copy that Open has looked at into the place of the records of a state directory, halts it first, and says where the old records
// are kept ("" if there were none). force allows that records are forgotten which are newer than the copy, or that cannot be read.
func Restore(ctx context.Context, s control.State, st *pebble.Store, dir string, m Manifest, force bool, report func(string)) (kept string, err error) {
	if s.Namespace != m.Namespace {
		return "", problem.New(problem.Usage, "the backup is of namespace %s, and %s is of %s: they are of two projects, or of two installations", m.Namespace, s.Dir, s.Namespace).
			WithHint("restore into a directory that does not exist yet, with --state")
	}
	if err := st.Forgets(filepath.Join(dir, storeDir)); err != nil && !force {
		return "", err
	}
	// Before it waits for anybody: a run that is active must not act on what is about to be forgotten.
	reason := fmt.Sprintf("restored from the backup of %s: what was done since then is forgotten", m.At.Format(time.RFC3339))
	if err := s.Halt(ctx, control.HaltRequest{Reason: reason, Report: report}); err != nil {
		return "", err
	}
	return st.Restore(ctx, filepath.Join(dir, storeDir), force)
}
