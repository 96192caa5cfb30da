package cli

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// lookEvery is how often a watched project is looked at. Looking works on every file system, also one that tells nobody of its changes.
const lookEvery = 300 * time.Millisecond

// watchTests runs the tests, and again whenever a file of the project has changed, until it is interrupted.
func watchTests(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	root := o.tree.Root()
	skip := map[string]bool{o.settings.StateDir: true}
	for _, flag := range []string{"junit", "html"} { // what a run of the tests writes is no change
		if file, err := filepath.Abs(c.String(flag)); err == nil && c.IsSet(flag) {
			skip[file] = true
		}
	}
	o.close()
	for {
		before := look(root, skip)
		if c.stdio.OutIsTerminal {
			c.ui.out.write("\x1b[H\x1b[2J") // an empty screen
		}
		res, err := testOnce(ctx, c)
		c.ui.report(ctx, c.ui.finish(res, err))
		c.ui.Progress("waiting for a change in %s; ctrl-c ends this", root)
		for look(root, skip) == before {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(lookEvery):
			}
		}
	}
}

// look is a digest of the names, sizes and times of a project's files, without hidden ones and those to skip.
func look(root string, skip map[string]bool) uint64 {
	h := fnv.New64a()
	_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // it is gone: that is a change, too
		case skip[name] && !d.IsDir():
			return nil
		case d.IsDir() && (skip[name] || name != root && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		if info, err := d.Info(); err == nil {
			_, _ = fmt.Fprintf(h, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return h.Sum64()
}
