package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/seed1de3961f/runbook/runtime/control"
)

// halts measures `runbook halt` against /bin/true: on a state directory that is well, while another process holds the store, and with a
// store that cannot be read. Each round sets a stop on a directory that has none, and the report is about the slowest of a hundred.
func halts(ctx context.Context, exe, root string, rounds int) error {
	all := []*contestant{{name: "`/bin/true`", argv: []string{"/bin/true"}}}
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
	}{
		{"all well", func(string) error { return nil }},
		{"its store held by another process", holdStore},
		{"its store damaged", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "store", "FORMAT"), []byte("garbage"), 0o600)
		}},
	} {
		dir := filepath.Join(root, "state "+c.name)
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
				if _, err := os.Stat(filepath.Join(dir, "HALT")); err != nil {
					return nil
				}
				return lift(ctx, dir)
			},
			check: func([]byte) error {
				if _, err := os.Stat(filepath.Join(dir, "HALT")); err != nil {
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
