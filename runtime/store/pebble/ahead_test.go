package pebble

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// Whatever is written in whatever pieces stands there as if it had been appended, with zeros up to the next step.
func TestAheadIsAppending(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	f, err := syncFS{FS: fsys}.Create("000001.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i, size := range []int{1, 400, 32 << 10, aheadBy - 1, 0, 3 * aheadBy, 7, aheadBy} {
		piece := bytes.Repeat([]byte{byte('a' + i)}, size)
		if n, err := f.Write(piece); n != size || err != nil {
			t.Fatalf("%d of %d bytes, %v", n, size, err)
		}
		want = append(want, piece...)
		got := contents(t, fsys, "000001.log")
		if len(got)%aheadBy != 0 || len(got)-len(want) >= aheadBy {
			t.Errorf("after %d bytes the file has %d", len(want), len(got))
		}
		if !bytes.HasPrefix(got, want) || len(bytes.Trim(got[len(want):], "\x00")) > 0 {
			t.Fatalf("after %d bytes the file has something else", len(want))
		}
	}
}

// What could not be written whole is an error, and never more than was asked for.
func TestAheadFails(t *testing.T) {
	t.Parallel()
	for room, want := range map[int]int{0: 0, 3: 3, 100: 10} {
		a := &ahead{File: short{room: room}}
		if n, err := a.Write(make([]byte, 10)); n != want || !errors.Is(err, errShort) {
			t.Errorf("with room for %d bytes: %d, %v", room, n, err)
		}
	}
}

var errShort = errors.New("no space left on device")

type short struct {
	vfs.File
	room int
}

func (s short) WriteAt(p []byte, _ int64) (int, error) { return min(s.room, len(p)), errShort }

// The log of a store does not grow with most commits, which is what makes them fast.
func TestCommitsDoNotGrowTheLog(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := open(t, Config{Dir: dir})
	sizes := map[int64]bool{}
	for range 50 {
		if err := s.Update(t.Context(), nil, func(tx store.Tx) error { tx.Put("k", make([]byte, 400)); return nil }); err != nil {
			t.Fatal(err)
		}
		logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(logs) != 1 {
			t.Fatalf("logs: %v, %v", logs, err)
		}
		info, err := os.Stat(logs[0])
		if err != nil {
			t.Fatal(err)
		}
		sizes[info.Size()] = true
	}
	if len(sizes) != 1 {
		t.Errorf("the log has had the sizes %v", sizes)
	}
}

func contents(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
