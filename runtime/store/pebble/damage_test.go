package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

func code(err error) problem.Code {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p.Code
	}
	return ""
}

// image is a store with n commits; those of the last process are still in Pebble's write-ahead log.
func image(t testing.TB, n int) *vfs.MemFS {
	t.Helper()
	mem := newMem(t)
	cfg := memConfig(t, mem)
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{n / 2, n - n/2} {
		s := open(t, cfg)
		for range part {
			if err := double(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

func copyOf(mem *vfs.MemFS) *vfs.MemFS { return mem.CrashClone(vfs.CrashCloneCfg{}) }

func slurp(t testing.TB, fsys vfs.FS, path string) []byte {
	t.Helper()
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spill(t testing.TB, fsys vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(b)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsNeverSilent flips a bit in, cuts off, wipes a sector of or removes each file. Either everything is there, or the store says that
// it is damaged; and what reads may find, a commit finds too.
func TestDamageIsNeverSilent(t *testing.T) {
	t.Parallel()
	var cases atomic.Int64
	t.Run("images", func(t *testing.T) {
		for _, x := range []struct {
			name            string
			commits, filler int
			places          int // in each file
		}{{"a few commits", 12, 0, 120}, {"many commits", 150, 0, 150}, {"several files", 30, 120, 150}} {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				if raced {
					x.places = 12
				}
				mem := image(t, x.commits)
				cfg := memConfig(t, mem)
				if err := filler(t.Context(), cfg, x.filler); err != nil {
					t.Fatal(err)
				}
				cases.Add(int64(damage(t, mem, x.commits, x.places)))
			})
		}
	})
	if n := cases.Load(); n < 10_000 && !raced {
		t.Errorf("only %d cases", n)
	}
}

// damage damages each file of a store in so many places, and returns how many cases that were.
func damage(t *testing.T, mem *vfs.MemFS, commits, places int) int {
	t.Helper()
	names, err := mem.List(memDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := memConfig(t, mem)
	cases, found := 0, map[string]int{}
	try := func(what, path string, b []byte) {
		clone := copyOf(mem)
		if b == nil {
			if err := clone.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else {
			spill(t, clone, path, b)
		}
		cfg.FS = clone
		for _, write := range []bool{false, true} {
			cases++
			s := unattended(t, cfg)
			if write {
				err = double(context.Background(), s)
			}
			n, rerr := readDouble(context.Background(), s)
			err = errors.Join(err, rerr)
			_ = s.Close()
			wanted := commits
			if write {
				wanted++
			}
			switch {
			case err == nil && n != wanted:
				t.Errorf("%s: %d of %d commits are gone without an error", what, wanted-n, wanted)
			case err != nil:
				if c := code(err); c != problem.StoreDamaged && c != problem.StateMissing {
					t.Errorf("%s: got %q %v, want %s", what, c, err, problem.StoreDamaged)
				}
				found[strings.SplitN(what, " ", 2)[0]]++
			}
			err = nil
		}
	}
	paths := []string{memDir + ".mark"}
	for _, name := range names {
		if name != "LOCK" && !strings.HasPrefix(name, "OPTIONS") {
			paths = append(paths, memDir+"/"+name)
		}
	}
	for _, path := range paths {
		b := slurp(t, mem, path)
		try("remove "+path, path, nil)
		written := len(bytes.TrimRight(b, "\x00")) // a log has zeros after it
		step := max(1, written/places)
		for i := 0; i < len(b); i += step {
			if i >= written {
				step = max(step, (len(b)-written)/5)
			}
			flipped := bytes.Clone(b)
			flipped[i] ^= 1 << (i % 8)
			try(fmt.Sprintf("flip byte %d of %s", i, path), path, flipped)
			try(fmt.Sprintf("cut %s to %d bytes", path, i), path, b[:i])
			if written < len(b) && i < written { // a sector that never reached the disk, where there were zeros before
				wiped := bytes.Clone(b)
				clear(wiped[i:min(i+512, written)])
				try(fmt.Sprintf("wipe %s from byte %d", path, i), path, wiped)
			}
		}
	}
	t.Logf("%d cases, found: %v", cases, found)
	if !raced && (found["flip"] < 20 || found["cut"] < 20 || found["wipe"] < 20) {
		t.Errorf("too little was found: is the damage done where it matters? %v", found)
	}
	return cases
}

func TestAnOlderCopyIsRefused(t *testing.T) {
	t.Parallel()
	mem := newMem(t)
	cfg := memConfig(t, mem)
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	commit := func(n int) {
		t.Helper()
		for range n {
			if err := double(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.letGoNow(); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string, fsys vfs.FS, words string) {
		t.Helper()
		c := cfg
		c.FS = fsys
		err := double(t.Context(), open(t, c))
		if code(err) != problem.StoreDamaged || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %s with %q", what, err, problem.StoreDamaged, words)
		}
	}
	mark := memDir + ".mark"
	empty := slurp(t, mem, mark)
	commit(3)
	older, olderMark := copyOf(mem), slurp(t, mem, mark)
	commit(2)
	newer := copyOf(mem)

	clone := copyOf(older)
	spill(t, clone, mark, slurp(t, newer, mark))
	refused("an older database", clone, "commits 4 to 5 were acknowledged and are gone")
	// A power cut may leave an older mark, but not one that is older than that.
	clone = copyOf(newer)
	spill(t, clone, mark, olderMark)
	c := cfg
	c.FS = clone
	if n, err := readDouble(t.Context(), open(t, c)); err != nil || n != 5 {
		t.Errorf("a mark that was not durable yet: %d, %v", n, err)
	}
	commit(maxBehind)
	clone = copyOf(mem)
	spill(t, clone, mark, olderMark)
	refused("an older mark", clone, "not of the same time")
	spill(t, clone, mark, empty)
	refused("the mark of a new store", clone, "not of the same time")
	clone = copyOf(newer)
	spill(t, clone, mark, bytes.Repeat([]byte{0}, 2*slotApart))
	refused("an empty mark", clone, "both halves")
	clone = copyOf(newer)
	if err := clone.RemoveAll(memDir); err != nil {
		t.Fatal(err)
	}
	refused("no database", clone, "it had 5 commits")
	c.FS = clone
	if err := create(c); code(err) != problem.StoreDamaged {
		t.Errorf("create over a store that lost its database: %v", err)
	}

	// Another history of the same length.
	other := copyOf(older)
	c.FS = other
	o := open(t, c)
	for range 2 {
		if err := o.Update(t.Context(), nil, put("else", "where")); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	spill(t, other, mark, slurp(t, newer, mark))
	refused("the mark of another store", other, "not of the same store")
}

func TestSlot(t *testing.T) {
	t.Parallel()
	var c chain
	copy(c[:], "0123456789abcdef")
	b := slotText(42, c)
	const golden = "runbook-mark 1 00000000000000000042 30313233343536373839616263646566 "
	if len(b) != slotSize || !strings.HasPrefix(string(b), golden) {
		t.Errorf("stored marks must stay readable: got %q", b)
	}
	if seq, got, ok := parseSlot(b); !ok || seq != 42 || got != c {
		t.Errorf("%d %x %v", seq, got, ok)
	}
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, _, ok := parseSlot(bad); ok {
				t.Errorf("accepted %q", bad)
			}
		}
		if _, _, ok := parseSlot(b[:i]); ok {
			t.Errorf("accepted %q", b[:i])
		}
	}
}
