// Package disk is the plugin that looks at the file systems of the engine's machine, and makes room in ways that the connection lists.
//
// Promise: only regular files that fit a pattern of the connection are deleted, that have not been written for longer than the connection's least age, in directories that are really
// there: no symbolic link leads out of them, and each file is looked at again when its turn comes. The journal is made smaller by journalctl itself, which leaves the file that is
// written to. What was asked for and not done is said, file by file where it failed.
package disk

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

type config struct {
	Roots    []string          `rb:"roots" doc:"directories below which largest() may look; none if not given"`
	Deletes  map[string]string `rb:"deletes" doc:"what may be deleted: name -> absolute path with * and ? in it, each within one name: /var/log/worker/*.log.*; nothing if not given"`
	LeastAge time.Duration     `rb:"least_age" default:"24h" doc:"how long ago a file must have been written at least to be deleted"`
	Journal  string            `rb:"journal" default:"/var/log/journal" doc:"where systemd keeps its journal"`
	LeastLog int64             `rb:"least_journal" default:"104857600" doc:"how many bytes of the journal are kept at least"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("disk", "1", "Look at the file systems of the engine's machine, and make room in ways that the connection lists.")
	sdk.ConfigFunc(p, x.configure)
	reads := func(more ...sdk.Option) []sdk.Option { return append(more, sdk.Capabilities("fs")) }
	sdk.QueryFunc(p, "usage", "The file system that a path is on: {size, used, free, share, inodes, inodes_free, inodes_share}. Sizes are bytes; share is what df says: used of what users can use, 0 to 1.",
		x.usage, reads(sdk.Timeout(10*time.Second, time.Minute))...)
	sdk.AnalysisFunc(p, "forecast", "How a file system fills while it is looked at: {before, after, rate, filling, full_in}. before and after are bytes used, rate is bytes a second, and full_in is what is "+
		"free divided by that, or 0 when it does not fill.", x.forecast, reads(sdk.Timeout(time.Minute, 10*time.Minute))...)
	sdk.QueryFunc(p, "largest", "The largest files below a directory, as a list of {path, bytes, age}, on its own file system and without following links. bytes is what they take on the disk.",
		x.largest, reads(sdk.Timeout(time.Minute, 10*time.Minute))...)
	sdk.QueryFunc(p, "old", "What delete would delete: {files, bytes, oldest}.", x.old, reads(sdk.Timeout(time.Minute, 10*time.Minute))...)
	sdk.QueryFunc(p, "journal", "The journal of systemd: {files, archived, active}. archived is the bytes that vacuum_journal can free, active those that are written to.",
		x.journal, reads(sdk.Timeout(10*time.Second, time.Minute))...)
	sdk.ActionFunc(p, "delete", "Delete old files that fit a pattern of the connection, the oldest first.", x.delete, reads(sdk.Timeout(2*time.Minute, 30*time.Minute), sdk.BlastRadius("host"))...)
	sdk.PlanFunc(p, "delete", x.planDelete)
	sdk.ProbeFunc(p, "delete", x.probeDelete)
	sdk.ActionFunc(p, "vacuum_journal", "Delete the oldest archived files of systemd's journal until what is left takes no more than so many bytes.", x.vacuum,
		append(reads(sdk.Timeout(2*time.Minute, 30*time.Minute), sdk.BlastRadius("host")), sdk.Capabilities("fs", "exec"))...)
	sdk.PlanFunc(p, "vacuum_journal", x.planVacuum)
	sdk.ProbeFunc(p, "vacuum_journal", x.probeVacuum)
	return p
}

type plugin struct {
	config  config
	deletes map[string]pattern
}

func (x *plugin) configure(_ context.Context, c config) error {
	for _, r := range c.Roots {
		if !filepath.IsAbs(r) || filepath.Clean(r) != r {
			return problem.New(problem.Project, "roots: %q is not a clean absolute path", r)
		}
	}
	deletes := map[string]pattern{}
	for _, name := range slices.Sorted(maps.Keys(c.Deletes)) {
		p, err := parsePattern(c.Deletes[name])
		if err != nil {
			return problem.New(problem.Project, "deletes: %q: %v", name, err)
		}
		deletes[name] = p
	}
	switch {
	case c.LeastAge < time.Minute:
		return problem.New(problem.Project, "least_age: %s is less than a minute", c.LeastAge)
	case !filepath.IsAbs(c.Journal):
		return problem.New(problem.Project, "journal: %q is not an absolute path", c.Journal)
	case c.LeastLog < 1:
		return problem.New(problem.Project, "least_journal: %d is not positive", c.LeastLog)
	}
	x.config, x.deletes = c, deletes
	return nil
}

// below says whether a path is in a directory, or is it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// bytes is a number of bytes for people.
func bytes(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
