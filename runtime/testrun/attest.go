package testrun

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/tested"
)

// Attested is what tests say about one runbook, and what became of the file that says so.
type Attested struct {
	Runbook string `json:"runbook"`
	File    string `json:"file"`
	State   string `json:"state"` // one of the states below
	Detail  string `json:"detail,omitempty"`
}

// The states.
const (
	Unchanged = "unchanged"
	Written   = "written"
	Differs   = "differs" // and was not written
)

// Attest writes the file beside each runbook that the tests ran, or, with verify, says which of them would be written. Every result must
// be that of a passing test.
func Attest(p *Project, results []Result, verify bool) ([]Attested, error) {
	all := map[string]*Covered{}
	for _, r := range results {
		if r.Verdict != Passed {
			return nil, problem.New(problem.Internal, "test %s did not pass", r.Name)
		}
		for path, c := range r.Covered {
			if c.Runbook == nil {
				continue
			}
			if all[path] == nil {
				all[path] = &Covered{Runbook: c.Runbook, Coverage: Coverage{}}
			}
			all[path].Coverage.Merge(c.Coverage)
		}
	}
	out := []Attested{}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		a, err := all[path].attest(p, verify)
		if err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (c *Covered) attest(p *Project, verify bool) (Attested, error) {
	name := tested.Path(c.Runbook.Path)
	a := Attested{Runbook: c.Runbook.Path, File: name, State: Unchanged}
	now, err := c.file(p)
	if err != nil {
		return a, err
	}
	old, err := tested.Read(p.Tree.Data, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.Detail = "there is none"
	case err != nil:
		a.Detail = err.Error()
	case !reflect.DeepEqual(old, now):
		if a.Detail = old.Stale(now); a.Detail == "" {
			a.Detail = fmt.Sprintf("it says that %d arms and %d ends of actions are covered, and %d and %d are", len(old.Arms), len(old.Actions), len(now.Arms), len(now.Actions))
		}
	default:
		return a, nil
	}
	if verify {
		a.State = Differs
		return a, nil
	}
	text, err := now.Encode()
	if err != nil {
		return a, err
	}
	if err := replace(filepath.Join(p.Tree.Root(), filepath.FromSlash(name)), text); err != nil {
		return a, problem.Wrap(problem.Usage, err, "write %s", name)
	}
	a.State = Written
	return a, nil
}

// replace writes a file as a whole or not at all.
func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tested-")
	if err != nil {
		return plain(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// file is what is covered of the runbook.
func (c *Covered) file(p *Project) (*tested.File, error) {
	f, err := tested.New(c.Runbook, p.Tree, p.Manifests)
	if err != nil {
		return nil, err
	}
	for name, x := range c.Coverage {
		at := func(l place) value.Pos { return value.Pos{File: name, Line: l.Line, Col: l.Col} }
		for l, a := range x.Conditions {
			if a.True {
				f.Arms = append(f.Arms, tested.Arm(at(l), true))
			}
			if a.False {
				f.Arms = append(f.Arms, tested.Arm(at(l), false))
			}
		}
		for l, a := range x.Actions {
			if a.OK {
				f.Actions = append(f.Actions, tested.Action(at(l), a.Action, true))
			}
			if a.Failed {
				f.Actions = append(f.Actions, tested.Action(at(l), a.Action, false))
			}
		}
	}
	slices.Sort(f.Arms)
	slices.Sort(f.Actions)
	if c.Runbook.HasCleanup {
		if f.Cleanup, err = c.cleanup(p); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// cleanup is tested.Covered, or the first thing in def cleanup(ctx) that no test has covered. That an action in it never failed is no gap.
func (c *Covered) cleanup(p *Project) (string, error) {
	path := c.Runbook.Path
	text, err := p.Tree.Read(path)
	if err != nil {
		return "", err
	}
	tree, err := (&syntax.FileOptions{Set: true}).Parse(path, text, 0)
	if err != nil {
		return "", err
	}
	ran := c.Coverage[path] != nil
	for _, stmt := range tree.Stmts {
		def, ok := stmt.(*syntax.DefStmt)
		if !ok || def.Name.Name != "cleanup" {
			continue
		}
		from, to := def.Span()
		for _, g := range c.Coverage.Gaps(path) {
			if ran && g.Pos.Line > int(from.Line) && g.Pos.Line <= int(to.Line) && !g.NeverFailed {
				return g.Pos.String() + ": " + g.What, nil
			}
		}
	}
	return tested.Covered, nil
}
