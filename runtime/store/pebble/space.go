package pebble

import (
	"fmt"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// A commit is begun only while there is room for it, for the flush and the compaction that may follow and for Pebble's
// own files: without room Pebble ends the process in the middle of a commit.
const (
	minBytes  = 4 << 20
	minInodes = 32
)

// Space is what is known of the file system that a directory is on.
type Space struct {
	Bytes     uint64 // free, for a user without privileges
	Inodes    uint64 // free; counts only if HasInodes
	HasInodes bool
	ReadOnly  bool
	Network   string // the kind of file system if it is one whose locks and syncs cannot be relied on
}

// checkDisk refuses a file system that cannot keep the promises. Reading is possible on any other.
func (c *Config) checkDisk() error {
	_, err := c.space()
	return err
}

func (c *Config) space() (Space, error) {
	s, err := c.Space(parent(c.Dir))
	if err != nil {
		return s, c.unusable(err, "look at the file system of %s", c.Dir)
	}
	if s.Network != "" {
		return s, problem.New(problem.StateUnusable, "store %s is on %s: locks and syncs cannot be relied on there", c.Dir, s.Network).
			WithHint("put the state directory on a local disk")
	}
	return s, nil
}

// checkSpace refuses to write size bytes where that may fail half-way.
func (c *Config) checkSpace(size uint64) error {
	s, err := c.space()
	if err != nil {
		return err
	}
	dir := parent(c.Dir)
	switch need := minBytes + 4*size; {
	case s.ReadOnly:
		return problem.New(problem.StateUnusable, "store %s: the file system is mounted read-only", c.Dir).
			WithHint("often after a disk error: findmnt -T %s; dmesg | tail", dir)
	case s.Bytes < need:
		return problem.New(problem.StateUnusable, "store %s: the disk is full: %s free, %s needed", c.Dir, mib(s.Bytes), mib(need)).
			WithHint("make room: df -h %s", dir)
	case s.HasInodes && s.Inodes < minInodes:
		return problem.New(problem.StateUnusable, "store %s: the disk has no room for more files: %d inodes free, %d needed", c.Dir, s.Inodes, minInodes).
			WithHint("remove files: df -i %s", dir)
	}
	return nil
}

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
