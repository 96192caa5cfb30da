package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// readLock reads the lock of a project; one without a file is empty.
func readLock(tree *project.Tree) (pluginhost.Lock, error) {
	f, err := tree.Data(pluginhost.LockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return pluginhost.Lock{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, pluginhost.MaxLock+1))
	if err != nil {
		return nil, problem.Wrap(problem.Project, err, "read %s", pluginhost.LockFile)
	}
	return pluginhost.DecodeLock(data)
}

// lockChange is what became of one plugin of the lock.
type lockChange struct {
	Name    string   `json:"name"`
	Version string   `json:"version,omitempty"`
	Word    string   `json:"word"`              // added, changed, unchanged or removed
	Details []string `json:"details,omitempty"` // what changed
}

type pluginLockResult struct {
	Path    string       `json:"path"`
	DryRun  bool         `json:"dry_run,omitempty"`
	Plugins []lockChange `json:"plugins"`
}

func runPluginLock(ctx context.Context, c *call) (result, error) {
	o, err := c.readProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	old, err := readLock(o.tree)
	if err != nil {
		c.ui.Warn("%v; it is made anew", err)
		old = pluginhost.Lock{}
	}
	declared := map[string]project.Plugin{}
	var names []string
	for _, p := range o.settings.Plugins {
		declared[p.Name] = p
		names = append(names, p.Name)
	}
	for _, name := range c.args {
		if _, ok := declared[name]; !ok {
			return nil, problem.New(problem.NotFound, "project.star names no plugin %q%s", name, problem.DidYouMean(name, names)).
				WithHint(`add to plugins in project.star: plugin(%q, path = "bin/%s")`, name, name)
		}
	}
	r := pluginLockResult{Path: filepath.Join(o.tree.Root(), pluginhost.LockFile), DryRun: c.Bool("dry-run"), Plugins: []lockChange{}}
	lock := pluginhost.Lock{}
	for _, name := range names {
		locked, had := old[name]
		if len(c.args) > 0 && !slices.Contains(c.args, name) {
			if had {
				lock[name] = locked
			}
			continue
		}
		fresh, err := askPlugin(ctx, o, declared[name])
		if err != nil {
			return nil, err
		}
		lock[name] = fresh
		change := lockChange{Name: name, Version: fresh.Manifest.Version, Word: "added"}
		if had {
			change.Word, change.Details = "unchanged", lockDifferences(locked, fresh)
			if len(change.Details) > 0 {
				change.Word = "changed"
			}
		}
		r.Plugins = append(r.Plugins, change)
	}
	for name := range old {
		if _, ok := declared[name]; !ok {
			r.Plugins = append(r.Plugins, lockChange{Name: name, Word: "removed"})
		}
	}
	slices.SortFunc(r.Plugins, func(a, b lockChange) int { return strings.Compare(a.Name, b.Name) })
	text, err := lock.Encode()
	if err != nil {
		return nil, err
	}
	if r.DryRun {
		return r, nil
	}
	if err := replaceFile(r.Path, text, 0o644); err != nil {
		return nil, problem.Wrap(problem.Project, err, "write %s", r.Path)
	}
	return r, nil
}

// askPlugin starts a plugin to hear what it says about itself: the file that was hashed, and no other.
func askPlugin(ctx context.Context, o *opened, p project.Plugin) (pluginhost.Locked, error) {
	bundled, err := plugins.Manifests()
	if err != nil {
		return pluginhost.Locked{}, err
	}
	if err := checkPluginName(p, bundled); err != nil {
		return pluginhost.Locked{}, err
	}
	sum, err := pluginhost.Hash(p.Path)
	if err != nil {
		return pluginhost.Locked{}, problem.Wrap(problem.PluginMissing, err, "plugin %s", p.Name).At(p.Pos).
			WithHint("install the plugin there, or correct its path in project.star")
	}
	dir, err := os.MkdirTemp("", "runbook-")
	if err != nil {
		return pluginhost.Locked{}, problem.Wrap(problem.Internal, err, "make a directory for the plugin's socket")
	}
	defer func() { _ = os.RemoveAll(dir) }()
	host, err := pluginhost.New(pluginhost.Config{Exe: o.exe, RunDir: dir, External: map[string]pluginhost.External{p.Name: {Path: p.Path, SHA256: sum}}})
	if err != nil {
		return pluginhost.Locked{}, err
	}
	defer host.Close()
	m, err := host.Manifest(ctx, p.Name)
	return pluginhost.Locked{SHA256: sum, Manifest: m}, err
}

// lockDifferences says what of a plugin is not as it was, in words.
func lockDifferences(old, fresh pluginhost.Locked) []string {
	var out []string
	if old.SHA256 != fresh.SHA256 {
		out = append(out, "another file: sha256 was "+old.SHA256, "               is now "+fresh.SHA256)
	}
	if was, is := old.Manifest.Version, fresh.Manifest.Version; was != is {
		out = append(out, fmt.Sprintf("version was %s, is now %s", was, is))
	}
	was, is := byName(old.Manifest.Functions), byName(fresh.Manifest.Functions)
	for _, f := range old.Manifest.Functions {
		if _, ok := is[f.Name]; !ok {
			out = append(out, fmt.Sprintf("%s %s is gone", f.Kind, f.Name))
		}
	}
	for _, f := range fresh.Manifest.Functions {
		before, ok := was[f.Name]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s %s is new", f.Kind, f.Name))
		case before.Kind != f.Kind:
			out = append(out, fmt.Sprintf("%s was of kind %s, is now of kind %s", f.Name, before.Kind, f.Kind))
		case !reflect.DeepEqual(before, f):
			out = append(out, fmt.Sprintf("%s %s is described differently", f.Kind, f.Name))
		}
	}
	if !reflect.DeepEqual(old.Manifest.Config, fresh.Manifest.Config) {
		out = append(out, "its settings are described differently")
	}
	return out
}

func byName(list []sdk.Function) map[string]sdk.Function {
	out := map[string]sdk.Function{}
	for _, f := range list {
		out[f.Name] = f
	}
	return out
}

func (r pluginLockResult) text(u *ui) {
	for _, p := range r.Plugins {
		u.Printf("%s %s: %s\n", bold(p.Name), p.Version, p.Word)
		for _, d := range p.Details {
			u.Printf("  %s\n", d)
		}
	}
	switch {
	case len(r.Plugins) == 0:
		u.Printf("project.star names no plugin\n")
	case r.DryRun:
		u.Printf("%s was not written\n", r.Path)
	default:
		u.Printf("written: %s\n", r.Path)
	}
}

type pluginVerifyResult struct {
	Plugins  []pluginVerdict    `json:"plugins"`
	Problems []*problem.Problem `json:"problems"`
}

type pluginVerdict struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}

func runPluginVerify(ctx context.Context, c *call) (result, error) {
	o, err := c.readProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	lock, err := readLock(o.tree)
	if err != nil {
		return nil, err
	}
	r := pluginVerifyResult{Plugins: []pluginVerdict{}, Problems: []*problem.Problem{}}
	declared := map[string]bool{}
	for _, p := range o.settings.Plugins {
		declared[p.Name] = true
		v := pluginVerdict{Name: p.Name, Path: p.Path, OK: true}
		if err := lock.Verify(p.Name, p.Path); err != nil {
			found := asProblem(ctx, err).At(p.Pos)
			v.OK, v.Why = false, found.Message
			r.Problems = append(r.Problems, found)
		}
		r.Plugins = append(r.Plugins, v)
	}
	for name := range lock {
		if !declared[name] {
			found := problem.New(problem.PluginChanged, "%s has plugin %s, which project.star does not name", pluginhost.LockFile, name).WithHint("runbook plugin lock")
			r.Plugins = append(r.Plugins, pluginVerdict{Name: name, Why: found.Message})
			r.Problems = append(r.Problems, found)
		}
	}
	slices.SortFunc(r.Plugins, func(a, b pluginVerdict) int { return strings.Compare(a.Name, b.Name) })
	if len(r.Problems) > 0 {
		return r, exitWith(problem.ExitFindings)
	}
	return r, nil
}

func (r pluginVerifyResult) text(u *ui) {
	for _, p := range r.Plugins {
		if p.OK {
			u.Printf("ok    %s  %s\n", p.Name, p.Path)
		} else {
			u.Printf("%s  %s\n", bold("FAIL"), p.Why)
		}
	}
	for _, p := range r.Problems {
		for _, d := range p.Detail {
			u.Printf("      %s\n", d)
		}
		u.Printf("hint: %s\n", p.Hint)
	}
	if len(r.Plugins) == 0 {
		u.Printf("project.star names no plugin: those that are part of this program need no lock\n")
	}
}
