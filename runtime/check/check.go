// Package check reads runbooks and says what is wrong with them, or likely to be, without a network, a plugin or a state.
//
// A file is first loaded in a worker, as every run does: what that refuses is the finding, and nothing else is said about the file, because the
// rest may follow from it. What loads is then read as text, by one rule after another. A rule is sure of what it says: where only a run could tell,
// it says nothing.
package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Project is what is looked at.
type Project struct {
	Tree      *project.Tree
	Settings  *project.Settings
	Families  []kit.Family
	Manifests []sdk.Manifest
	Spawn     func(ctx context.Context) (sandbox.Worker, error)
	// Tests is what files of tests may name.
	Tests sandbox.Vocabulary
}

// Files looks at runbooks and at files of tests, and returns the findings in the order of the files and of their lines. An error is that of the
// context, or of a worker that cannot be had.
func Files(ctx context.Context, p *Project, runbooks, tests []string) ([]*problem.Problem, error) {
	c := &checker{Project: p, vocab: project.RunbookVocabulary(p.Families), libraries: map[string]bool{}}
	defer c.close()
	for _, file := range runbooks {
		if err := c.runbook(ctx, file); err != nil {
			return nil, err
		}
	}
	for _, file := range tests {
		if err := c.test(ctx, file); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(c.found, func(a, b *problem.Problem) int {
		if n := strings.Compare(a.Pos.File, b.Pos.File); n != 0 {
			return n
		}
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Col - b.Pos.Col
	})
	return c.found, nil
}

type checker struct {
	*Project
	vocab     sandbox.Vocabulary
	worker    sandbox.Worker
	libraries map[string]bool // files that are loaded, and have been looked at
	found     []*problem.Problem
}

func (c *checker) close() {
	if c.worker != nil {
		c.worker.Close()
	}
}

// live is a worker that can be used.
func (c *checker) live(ctx context.Context) (sandbox.Worker, error) {
	if c.worker != nil && !c.worker.Dead() {
		return c.worker, nil
	}
	c.close()
	var err error
	c.worker, err = c.Spawn(ctx)
	return c.worker, err
}

// refused keeps why a file does not load.
func (c *checker) refused(ctx context.Context, file string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok {
		p = problem.Wrap(problem.Load, err, "load")
	}
	if p.Pos.File == "" {
		q := *p
		p = q.At(value.Pos{File: file})
	}
	p = c.forgotten(p)
	if !slices.ContainsFunc(c.found, func(o *problem.Problem) bool { return o.Pos == p.Pos && o.Message == p.Message }) { // a library that several load
		c.found = append(c.found, p)
	}
	return nil
}

var undefined = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^undefined: (\w+)`) })

// forgotten adds to a name that is not defined from where it could be loaded.
func (c *checker) forgotten(p *problem.Problem) *problem.Problem {
	m := undefined().FindStringSubmatch(p.Message)
	if m == nil || p.Hint != "" {
		return p
	}
	root := c.Tree.Root()
	var from []string
	_ = filepath.WalkDir(filepath.Join(root, "lib"), func(name string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(root, name)
		if err != nil || rerr != nil || d.IsDir() || filepath.Ext(name) != ".star" {
			return nil //nolint:nilerr // it is only for a hint
		}
		text, err := c.Tree.Read(filepath.ToSlash(rel))
		if err == nil && regexp.MustCompile(`(?m)^(def `+m[1]+`\(|`+m[1]+`\s*=)`).Match(text) {
			from = append(from, filepath.ToSlash(rel))
		}
		return nil
	})
	if len(from) == 0 {
		return p
	}
	q := *p
	q.Message = m[0]
	return q.WithHint("load(%q, %q)", "//"+from[0], m[1])
}

func (c *checker) runbook(ctx context.Context, file string) error {
	w, err := c.live(ctx)
	if err != nil {
		return err
	}
	rb, err := project.LoadRunbook(ctx, w, c.Tree, c.Settings, file, c.vocab)
	if err != nil {
		return c.refused(ctx, file, err)
	}
	for _, f := range rb.Closure {
		if f.Path != file && c.libraries[f.Path] {
			continue
		}
		c.libraries[f.Path] = true
		l := &linter{checker: c, rb: rb, main: f.Path == file, path: f.Path}
		if err := l.lint(); err != nil {
			return err
		}
	}
	return nil
}

// test looks at a file of tests: does it load?
func (c *checker) test(ctx context.Context, file string) error {
	w, err := c.live(ctx)
	if err != nil {
		return err
	}
	if _, err := w.Load(ctx, file, c.Tests, c.Tree); err != nil {
		return c.refused(ctx, file, err)
	}
	return nil
}

// linter applies the rules to one file.
type linter struct {
	*checker
	rb   *project.Runbook
	main bool // it is the runbook, and not what that loads
	path string
	text string
	tree *syntax.File
}

// lint reads the file, which a worker has read already within its limits.
func (l *linter) lint() error {
	text, err := l.Tree.Read(l.path)
	if err != nil {
		return err
	}
	l.text = string(text)
	l.tree, err = (&syntax.FileOptions{Set: true}).Parse(l.path, text, 0)
	if err != nil {
		return fmt.Errorf("parse %s again: %w", l.path, err)
	}
	l.loads()
	for _, stmt := range l.tree.Stmts {
		if def, ok := stmt.(*syntax.DefStmt); ok {
			l.function(def)
		}
	}
	return nil
}

// find adds a finding, with the line that it is about.
func (l *linter) find(code problem.Code, at syntax.Position, format string, args ...any) *problem.Problem {
	pos := value.Pos{File: l.path, Line: int(at.Line), Col: int(at.Col)}
	p := problem.New(code, format, args...).At(pos)
	p.Detail = sandbox.Caret(l.text, pos)
	l.found = append(l.found, p)
	return p
}

func start(n syntax.Node) syntax.Position {
	from, _ := n.Span()
	return from
}

// loads finds names that are loaded and never used.
func (l *linter) loads() {
	used := map[string]bool{}
	for _, stmt := range l.tree.Stmts {
		if _, ok := stmt.(*syntax.LoadStmt); ok {
			continue
		}
		syntax.Walk(stmt, func(n syntax.Node) bool {
			if id, ok := n.(*syntax.Ident); ok {
				used[id.Name] = true
			}
			return true
		})
	}
	for _, stmt := range l.tree.Stmts {
		load, ok := stmt.(*syntax.LoadStmt)
		if !ok {
			continue
		}
		for _, to := range load.To {
			if !used[to.Name] && (l.main || !strings.HasPrefix(to.Name, "_")) {
				l.find(problem.DeadLoad, to.NamePos, "%s is loaded and never used", to.Name).WithHint("leave it out of load(...)")
			}
		}
	}
}

// contextName is what a function calls its ctx, "" if it is given none: the one argument of run and cleanup, and in other functions an argument of that name.
func (l *linter) contextName(def *syntax.DefStmt) string {
	name := "ctx"
	for i, p := range def.Params {
		id, ok := p.(*syntax.Ident)
		if !ok {
			continue
		}
		if l.main && i == 0 && (def.Name.Name == "run" || def.Name.Name == "cleanup") {
			return id.Name
		}
		if id.Name == name {
			return name
		}
	}
	return ""
}
