package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/seed1de3961f/runbook/runtime/control"
)

// halts measures `runbook halt` against /bin/true: on a state directory that is well, while another process holds the store, and with a
// store that cannot be read, and on a disk without room or inodes. Each round sets a stop on a directory that has none, and the report is about
// the slowest of a hundred.
func halts(ctx context.Context, exe, root string, rounds int) error {
	all := []*contestant{{name: "`/bin/true`", argv: []string{"/bin/true"}}}
	for _, c := range []struct {
		name  string
		disk  bool // of its own
		spoil func(dir string) error
	}{
		{"all well", false, func(string) error { return nil }},
		{"its store held by another process", false, holdStore},
		{"its store damaged", false, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "store", "FORMAT"), []byte("garbage"), 0o600)
		}},
		{"its disk full", true, fillBlocks},
		{"its disk without inodes", true, fillInodes},
	} {
		dir := filepath.Join(root, "state "+c.name)
		if c.disk {
			unmount, err := mountSmall(dir)
			if errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
				fmt.Fprintf(os.Stderr, "bench: left out %q: %v\n", c.name, err)
				continue
			}
			if err != nil {
				return err
			}
			defer unmount()
			dir = filepath.Join(dir, "state")
		}
		if err := command(ctx, exe, "init", "--state", dir); err != nil {
			return err
		}
		if err := c.spoil(dir); err != nil {
			return err
		}
		all = append(all, &contestant{
			name: "`runbook halt`, " + c.name,
			argv: []string{exe, "halt", "--state", dir, "--reason", "bench"},
			prepare: func() error { // not timed, and not the command: it would read the store
				if !halted(dir) {
					return nil
				}
				if c.disk {
					if err := empty(dir); err != nil {
						return err
					}
				}
				if err := lift(ctx, dir); err != nil || !c.disk {
					return err
				}
				return c.spoil(dir)
			},
			check: func([]byte) error {
				if !halted(dir) {
					return errors.New("there is no stop")
				}
				return nil
			},
		})
	}
	if err := race(ctx, all, 2, rounds); err != nil {
		return err
	}
	reportHalts(os.Stdout, all, machine(root))
	return nil
}

// maxTimes is the goal: the 99th percentile of a halt in starts of /bin/true.
const maxTimes = 25

func reportHalts(w io.Writer, all []*contestant, machine string) {
	null := at(all[0].took, 50)
	fmt.Fprintf(w, "%s\n\n| command | median | 99th percentile | times the median of /bin/true: median | 99th percentile (goal: under %d) |\n|---|---|---|---|---|\n", machine, maxTimes)
	for _, c := range all {
		fmt.Fprintf(w, "| %s | %s | %s | %.0f | %.0f |\n", c.name, ms(at(c.took, 50)), ms(at(c.took, 99)), float64(at(c.took, 50))/float64(null), float64(at(c.took, 99))/float64(null))
	}
	fmt.Fprintf(w, "\n%d interleaved runs of each.\n", len(all[0].took))
}

// lift resumes as the command does, without what it reads from the store.
func lift(ctx context.Context, dir string) error {
	s, err := control.Open(dir)
	if err != nil {
		return err
	}
	return s.Resume(ctx, "bench", "bench")
}

func halted(dir string) bool {
	s, err := control.Open(dir)
	return err != nil || len(s.Check(func(string) (string, bool) { return "", false })) > 0
}

// filler is what fills the file system above dir.
func filler(dir string) string { return filepath.Join(filepath.Dir(dir), "filler") }

// empty takes away what fills the file system above dir.
func empty(dir string) error { return os.RemoveAll(filler(dir)) }

// fillBlocks leaves no byte free on the file system above dir.
func fillBlocks(dir string) error {
	f, err := os.Create(filler(dir))
	if err != nil {
		return err
	}
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return f.Close()
		}
	}
}

// fillInodes leaves no inode free on the file system above dir.
func fillInodes(dir string) error {
	if err := os.Mkdir(filler(dir), 0o700); err != nil {
		return err
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(filler(dir), strconv.Itoa(i)))
		if err != nil {
			return nil //nolint:nilerr // that is what was wanted
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}
