package pebble

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// restorable is a store with two records, of which its backup has one.
func restorable(t *testing.T) (s *Store, backup string) {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Dir: filepath.Join(dir, "store")}
	if err := Create(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	backup = filepath.Join(dir, "backup")
	keep(t, s, "first")
	if err := s.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	keep(t, s, "second")
	return s, backup
}

func keep(t *testing.T, s *Store, key string) {
	t.Helper()
	if err := s.Update(t.Context(), []string{key}, func(tx store.Tx) error { tx.Put(key, []byte("x")); return nil }); err != nil {
		t.Fatal(err)
	}
}

// holds lists which of the two records a store has.
func holds(t *testing.T, s *Store) (keys string, err error) {
	t.Helper()
	err = s.Scan(t.Context(), "", false, func(key string, _ []byte) bool { keys += key + " "; return true })
	return keys, err
}

func TestRestore(t *testing.T) {
	t.Parallel()
	s, backup := restorable(t)
	_, err := s.Restore(t.Context(), backup, false)
	if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != problem.Refused {
		t.Fatalf("newer records: %v", err)
	}
	if got, err := holds(t, s); err != nil || got != "first second " {
		t.Fatalf("refused, it holds %q, %v", got, err)
	}
	kept, err := s.Restore(t.Context(), backup, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := holds(t, s); err != nil || got != "first " {
		t.Fatalf("restored, it holds %q, %v", got, err)
	}
	keep(t, s, "third")
	old, err := New(Config{Dir: kept, MarkFile: kept + ".mark", LockFile: s.cfg.LockFile})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := holds(t, old); err != nil || got != "first second " {
		t.Errorf("what is kept holds %q, %v", got, err)
	}
	_ = old.Close()
}

// Cut short at any moment the old store is there, or nothing opens; repeated, the restore is done.
func TestRestoreCutShort(t *testing.T) {
	t.Parallel()
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	// What has been done when the process ends, in the order in which it is done.
	steps := []func(t *testing.T, s *Store, backup string){
		func(t *testing.T, s *Store, backup string) {
			to := s.cfg
			to.Dir, to.MarkFile = s.cfg.Dir+restoringSuffix, s.cfg.MarkFile+restoringSuffix
			if err := copyStore(Config{Dir: backup}.withDefaults(), to); err != nil {
				t.Fatal(err)
			}
		},
		func(t *testing.T, s *Store, _ string) { move(t, s.cfg.Dir, s.cfg.Dir+replacedSuffix) },
		func(t *testing.T, s *Store, _ string) { move(t, s.cfg.MarkFile, s.cfg.Dir+replacedSuffix+".mark") },
		func(t *testing.T, s *Store, _ string) { move(t, s.cfg.MarkFile+restoringSuffix, s.cfg.MarkFile) },
		func(t *testing.T, s *Store, _ string) { move(t, s.cfg.Dir+restoringSuffix, s.cfg.Dir) },
	}
	for n := range len(steps) + 1 {
		t.Run(string(rune('0'+n))+" steps", func(t *testing.T) {
			t.Parallel()
			s, backup := restorable(t)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, step := range steps[:n] {
				step(t, s, backup)
			}
			again, err := New(s.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			got, err := holds(t, again)
			switch {
			case n <= 1 && (err != nil || got != "first second "):
				t.Errorf("before the swap it holds %q, %v", got, err)
			case n > 1 && n < len(steps) && err == nil:
				t.Errorf("in the middle of the swap it opens, and holds %q", got)
			case n == len(steps) && (err != nil || got != "first "):
				t.Errorf("after the swap it holds %q, %v", got, err)
			}
			if _, err := again.Restore(t.Context(), backup, true); err != nil {
				t.Fatal(err)
			}
			if got, err := holds(t, again); err != nil || got != "first " {
				t.Errorf("repeated, it holds %q, %v", got, err)
			}
		})
	}
}

func TestRestoreFromABrokenCopy(t *testing.T) {
	t.Parallel()
	s, backup := restorable(t)
	entries, err := os.ReadDir(backup)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".sst" || filepath.Ext(e.Name()) == ".log" {
			if err := os.Truncate(filepath.Join(backup, e.Name()), 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Restore(t.Context(), backup, true); err == nil {
		t.Error("a broken copy was put into place")
	}
	if got, err := holds(t, s); err != nil || got != "first second " {
		t.Errorf("it holds %q, %v", got, err)
	}
}
