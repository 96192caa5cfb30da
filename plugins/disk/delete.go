package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// pattern is an absolute path in which names may have * and ?. root is what stands before the first of them.
type pattern struct {
	root  string
	names []string
}

func parsePattern(text string) (pattern, error) {
	switch {
	case !path.IsAbs(text) || path.Clean(text) != text:
		return pattern{}, fmt.Errorf("%q is not a clean absolute path", text)
	case strings.Contains(text, "**"):
		return pattern{}, fmt.Errorf("%q: ** is not known; each * is within one name", text)
	}
	if _, err := path.Match(text, ""); err != nil {
		return pattern{}, fmt.Errorf("%q is not a pattern", text)
	}
	names := strings.Split(strings.TrimPrefix(text, "/"), "/")
	fixed := slices.IndexFunc(names, func(n string) bool { return strings.ContainsAny(n, `*?[\`) })
	if fixed < 0 {
		return pattern{}, fmt.Errorf("%q has no * or ?", text)
	}
	if fixed == 0 {
		return pattern{}, fmt.Errorf("%q: the first name must be without * and ?", text)
	}
	return pattern{root: "/" + path.Join(names[:fixed]...), names: names[fixed:]}, nil
}

// find lists the regular files that fit and were last written before a moment, the oldest first. Directories are opened below the root, so that no symbolic link leads out of it.
func (p pattern) find(ctx context.Context, root *os.Root, before time.Time) ([]file, error) {
	dirs := []string{"."}
	for _, name := range p.names[:len(p.names)-1] {
		var next []string
		for _, dir := range dirs {
			entries, err := p.read(root, dir)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if ok, _ := path.Match(name, e.Name()); ok && e.IsDir() {
					next = append(next, path.Join(dir, e.Name()))
				}
			}
		}
		dirs = next
	}
	var found []file
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		entries, err := p.read(root, dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if ok, _ := path.Match(p.names[len(p.names)-1], e.Name()); !ok || !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if err != nil || !info.ModTime().Before(before) {
				continue // it has gone meanwhile, or is too young
			}
			id, taken := place(info)
			if found = append(found, file{Path: path.Join(dir, e.Name()), Bytes: taken, at: info.ModTime(), id: id}); len(found) > maxWalked {
				return nil, problem.New(problem.PluginFailed, "more than %d files fit", maxWalked)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b file) int { return a.at.Compare(b.at) })
	return found, nil
}

// read lists a directory; one that has gone meanwhile is empty.
func (p pattern) read(root *os.Root, dir string) ([]fs.DirEntry, error) {
	d, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, problem.Wrap(problem.PluginFailed, err, "read %s", path.Join(p.root, dir))
	}
	defer func() { _ = d.Close() }()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, problem.Wrap(problem.PluginFailed, err, "read %s", path.Join(p.root, dir))
	}
	return entries, nil
}

type deleteArgs struct {
	Name  string        `rb:"name,required,positional" doc:"name of a pattern in the connection's deletes"`
	Older time.Duration `rb:"older,required" doc:"only files that were last written longer ago than this; no less than the connection's least_age"`
	Most  int           `rb:"most" default:"1000" doc:"how many files at most, the oldest first; 1 to 100,000"`
}

// candidates opens the root of a pattern and finds what may go. close closes the root.
func (x *plugin) candidates(ctx context.Context, a deleteArgs, before time.Time) (root *os.Root, found []file, err error) {
	p, ok := x.deletes[a.Name]
	names := slices.Sorted(maps.Keys(x.deletes))
	switch {
	case !ok:
		return nil, nil, problem.New(problem.Argument, "name: the connection's deletes have no %.80q%s", a.Name, problem.DidYouMean(a.Name, names)).
			WithHint("list it in the connection in project.star, or use one of: %s", strings.Join(names, ", "))
	case a.Older < x.config.LeastAge:
		return nil, nil, problem.New(problem.Argument, "older: %s is less than the connection's least_age, %s", a.Older, x.config.LeastAge)
	case a.Most < 1 || a.Most > 100_000:
		return nil, nil, problem.New(problem.Argument, "most: %d is not 1 to 100000", a.Most)
	}
	root, err = os.OpenRoot(p.root)
	if err != nil {
		return nil, nil, problem.Wrap(problem.PluginFailed, err, "open %s", p.root)
	}
	found, err = p.find(ctx, root, before)
	if err != nil {
		_ = root.Close()
		return nil, nil, err
	}
	return root, found, nil
}

// amount is how many files, and what they take.
type amount struct {
	Files  int           `rb:"files"`
	Bytes  int64         `rb:"bytes"`
	Oldest time.Duration `rb:"oldest"` // age of the oldest
}

func total(found []file, now time.Time) amount {
	a := amount{Files: len(found)}
	for _, f := range found {
		a.Bytes += f.Bytes
		a.Oldest = max(a.Oldest, now.Sub(f.at))
	}
	return a
}

func (x *plugin) old(ctx context.Context, a deleteArgs) (amount, error) {
	now := time.Now()
	root, found, err := x.candidates(ctx, a, now.Add(-a.Older))
	if err != nil {
		return amount{}, err
	}
	_ = root.Close()
	return total(found[:min(a.Most, len(found))], now), nil
}

// receipt is what a probe needs to count again.
type receipt struct {
	Name   string    `json:"name"`
	Before time.Time `json:"before"`
	Fit    int       `json:"fit"`    // files that fitted
	Delete int       `json:"delete"` // and how many of them were to go
}

// deleted is what has gone.
type deleted struct {
	Files int   `rb:"files"`
	Bytes int64 `rb:"bytes"`
}

func (x *plugin) delete(call *sdk.Call, a deleteArgs) (deleted, error) {
	var done deleted
	before := time.Now().Add(-a.Older)
	root, found, err := x.candidates(call, a, before)
	if err != nil {
		return done, err
	}
	defer func() { _ = root.Close() }()
	if len(found) == 0 {
		return done, sdk.NoChange("no file of %s is older than %s", a.Name, a.Older)
	}
	n := min(a.Most, len(found))
	r, err := json.Marshal(receipt{a.Name, before, len(found), n})
	if err != nil {
		return done, err
	}
	if err := call.Begin(r); err != nil {
		return done, err
	}
	var failed []error
	for i, f := range found[:n] {
		if call.Err() != nil {
			return done, sdk.Unknown(fmt.Errorf("%d of %d files were deleted: %w", done.Files, n, context.Cause(call)))
		}
		// Looked at again: another may have taken its place, or somebody may write to it again.
		info, err := root.Lstat(f.Path)
		if err == nil {
			if id, _ := place(info); !info.Mode().IsRegular() || id != f.id || !info.ModTime().Equal(f.at) {
				continue
			}
			err = root.Remove(f.Path)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // somebody else was faster
		case err != nil:
			failed = append(failed, err)
		default:
			done.Files++
			done.Bytes += f.Bytes
		}
		if (i+1)%1000 == 0 {
			call.Progress("%d of %d files", i+1, n)
		}
	}
	if len(failed) > 0 {
		return done, problem.New(problem.ActionFailed, "%d files (%s) were deleted, %d could not be, the first because: %v", done.Files, bytes(done.Bytes), len(failed), failed[0])
	}
	return done, nil
}

func (x *plugin) planDelete(ctx context.Context, _ sdk.Target, a deleteArgs) (sdk.Plan, error) {
	n, err := x.old(ctx, a)
	if err != nil {
		return sdk.Plan{}, err
	}
	what := fmt.Sprintf("delete %d files of %s (%s), the oldest from %s ago", n.Files, a.Name, bytes(n.Bytes), n.Oldest.Round(time.Minute))
	return sdk.Plan{NoChange: n.Files == 0, Changes: []sdk.PlannedChange{{What: what}}}, nil
}

// probeDelete counts the files that were old then. None of those that were to go: done. All of them: not done. In between a person is asked, and so when there are more.
func (x *plugin) probeDelete(ctx context.Context, p sdk.Probe, a deleteArgs) (sdk.ProbeAnswer, error) {
	var r receipt
	if err := json.Unmarshal(p.Receipt, &r); err != nil || r.Name != a.Name || r.Delete < 1 {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this pattern"}, nil
	}
	root, found, err := x.candidates(ctx, a, r.Before)
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	_ = root.Close()
	said := fmt.Sprintf("%d of the %d files are left, %d were to go", len(found), r.Fit, r.Delete)
	switch len(found) {
	case r.Fit - r.Delete:
		return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: said}, nil
	case r.Fit:
		return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: said}, nil
	}
	return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: said}, nil
}
