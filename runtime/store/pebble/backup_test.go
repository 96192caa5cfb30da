package pebble

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

func TestBackupIsAStore(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := open(t, Config{Dir: dir, Wait: testWait})
	for range 3 {
		if err := storetest.Increment(t.Context(), s, "n"); err != nil {
			t.Fatal(err)
		}
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := s.Backup(t.Context(), dst); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, s.Backup(t.Context(), dst), problem.StateUnusable, "exists")
	if err := storetest.Increment(t.Context(), s, "n"); err != nil {
		t.Fatal(err)
	}
	c := open(t, Config{Dir: dst, Wait: testWait})
	if n := counter(t, c); n != 3 {
		t.Errorf("the copy has %d, want 3", n)
	}
	if err := storetest.Increment(t.Context(), c, "n"); err != nil {
		t.Error(err)
	}
	if n := counter(t, s); n != 4 {
		t.Errorf("%d, want 4", n)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	mem := image(t, 5)
	cfg := memConfig(t, mem)
	r, err := open(t, cfg).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Report{Commits: 5, LogFrom: 1, Marked: 5, Records: 2, Bytes: r.Bytes, Space: r.Space}, r); diff != "" {
		t.Error(diff)
	}

	// A damaged table that an ordinary transaction need not read.
	names, err := mem.List(memDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			b := bytes.Clone(slurp(t, mem, memDir+"/"+name))
			b[len(b)/8] ^= 4
			spill(t, mem, memDir+"/"+name, b)
		}
	}
	_, err = open(t, cfg).Check(t.Context())
	wantProblem(t, err, problem.StoreDamaged)
}

// TestReplacedWhileOpen: a store that is kept open does not commit into files that somebody has moved away.
func TestReplacedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := open(t, Config{Dir: dir, Wait: testWait})
	if err := storetest.Increment(t.Context(), s, "n"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, storetest.Increment(t.Context(), s, "n"), problem.StoreDamaged, "gone or emptied: it had 1 commits")
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}
	if n := counter(t, s); n != 1 {
		t.Errorf("%d, want 1", n)
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(dir+".old")); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Increment(t.Context(), s, "n"); err != nil {
		t.Error(err)
	}
	if n := counter(t, s); n != 2 {
		t.Errorf("%d, want 2", n)
	}
}
