package disk

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxWalked bounds how many files one answer looks at.
const maxWalked = 2_000_000

// space is what a file system has, in bytes and inodes.
type space struct {
	Size        int64   `rb:"size"`
	Used        int64   `rb:"used"`
	Free        int64   `rb:"free"`
	Share       float64 `rb:"share"`
	Inodes      int64   `rb:"inodes"` // 0 where they are made as needed
	InodesFree  int64   `rb:"inodes_free"`
	InodesShare float64 `rb:"inodes_share"`
}

func (s space) withShares() space {
	if s.Used+s.Free > 0 {
		s.Share = float64(s.Used) / float64(s.Used+s.Free)
	}
	if s.Inodes > 0 {
		s.InodesShare = float64(s.Inodes-s.InodesFree) / float64(s.Inodes)
	}
	return s
}

type fileID struct{ dev, inode uint64 }

type usageArgs struct {
	Path string `rb:"path,required,positional" doc:"a path on the file system: /var"`
}

func (x *plugin) usage(_ context.Context, a usageArgs) (space, error) {
	if !filepath.IsAbs(a.Path) {
		return space{}, problem.New(problem.Argument, "path: %.200q is not an absolute path", a.Path)
	}
	s, err := statfs(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, problem.New(problem.NotFound, "%v", err)
	}
	return s, err
}

type forecastArgs struct {
	Path string        `rb:"path,required,positional" doc:"a path on the file system: /var"`
	Over time.Duration `rb:"over" default:"10s" doc:"how long it is looked at, 1s to 5m"`
}

// trend is how a file system fills.
type trend struct {
	Before  int64         `rb:"before"`
	After   int64         `rb:"after"`
	Rate    float64       `rb:"rate"`
	Filling bool          `rb:"filling"`
	FullIn  time.Duration `rb:"full_in"`
}

func (x *plugin) forecast(ctx context.Context, a forecastArgs) (trend, error) {
	if a.Over < time.Second || a.Over > 5*time.Minute {
		return trend{}, problem.New(problem.Argument, "over: %s is not 1s to 5m", a.Over)
	}
	before, err := x.usage(ctx, usageArgs{a.Path})
	if err != nil {
		return trend{}, err
	}
	began := time.Now()
	select {
	case <-time.After(a.Over):
	case <-ctx.Done():
		return trend{}, context.Cause(ctx)
	}
	after, err := x.usage(ctx, usageArgs{a.Path})
	if err != nil {
		return trend{}, err
	}
	return extrapolate(before, after, time.Since(began)), nil
}

// extrapolate goes on in a straight line.
func extrapolate(before, after space, over time.Duration) trend {
	t := trend{Before: before.Used, After: after.Used, Rate: float64(after.Used-before.Used) / over.Seconds()}
	if t.Filling = t.Rate > 0; t.Filling {
		const most = 100 * 365 * 24 * time.Hour
		t.FullIn = time.Duration(min(float64(after.Free)/t.Rate*float64(time.Second), float64(most)))
	}
	return t
}

type largestArgs struct {
	Root  string `rb:"root,required,positional" doc:"a directory of the connection's roots, or one below"`
	Count int    `rb:"count" default:"20" doc:"how many, 1 to 1000"`
}

// file is one file.
type file struct {
	Path  string        `rb:"path"`
	Bytes int64         `rb:"bytes"`
	Age   time.Duration `rb:"age"` // since it was written
	at    time.Time
	id    fileID
}

func (x *plugin) largest(ctx context.Context, a largestArgs) ([]file, error) {
	root := filepath.Clean(a.Root)
	if a.Count < 1 || a.Count > 1000 {
		return nil, problem.New(problem.Argument, "count: %d is not 1 to 1000", a.Count)
	}
	if !slices.ContainsFunc(x.config.Roots, func(r string) bool { return below(root, r) }) {
		return nil, problem.New(problem.Argument, "root: the connection does not allow to look below %.200q", a.Root).
			WithHint("list it in the connection's roots in project.star, which are: %s", strings.Join(x.config.Roots, ", "))
	}
	top, err := os.Lstat(root)
	if err != nil || !top.IsDir() {
		return nil, problem.New(problem.NotFound, "root: %s is not a directory", root)
	}
	device, _ := place(top)
	var found []file
	walked, now := 0, time.Now()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if walked++; walked > maxWalked {
			return problem.New(problem.PluginFailed, "%s has more than %d files", root, maxWalked).WithHint("name a directory below")
		}
		if err != nil && path == root {
			return problem.Wrap(problem.PluginFailed, err, "root")
		}
		if err == nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return nil //nolint:nilerr // what cannot be read, or has gone meanwhile, is not among the largest
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		id, taken := place(info)
		switch {
		case id.dev != device.dev && d.IsDir():
			return filepath.SkipDir
		case !d.IsDir():
			found = keep(found, file{Path: path, Bytes: taken, Age: now.Sub(info.ModTime())}, a.Count)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return first(found, a.Count), nil
}

// keep adds a file, and drops small ones when there are many.
func keep(found []file, f file, count int) []file {
	if found = append(found, f); len(found) > 10*count {
		found = first(found, count)
	}
	return found
}

func first(found []file, count int) []file {
	slices.SortStableFunc(found, func(p, q file) int { return cmp.Compare(q.Bytes, p.Bytes) })
	return found[:min(count, len(found))]
}
