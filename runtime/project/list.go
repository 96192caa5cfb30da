package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// testSuffix is how the name of a file of tests ends.
const testSuffix = "_test.star"

// maxFiles bounds a walk: a project root is a mistake, such as /, long before it has that many files.
const maxFiles = 100_000

// Runbooks returns the runbook files that the paths name, sorted, relative to the root and with slashes:
// all of them if there are no paths. A path is a file or a directory, from the working directory or, if nothing is there,
// from the project root; ".star" may be left out.
//
// A runbook is every .star file but project.star, topology.star and tests (*_test.star), and but those
// under lib/, in the state directory, in directories whose name begins with a dot, and in other projects
// (directories with a project.star of their own).
func (s *Settings) Runbooks(t *Tree, paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{t.dir}
	}
	var out []string
	for _, given := range paths {
		rel, info, err := s.locate(t, given)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if why := notRunbook(rel); why != "" {
				return nil, problem.New(problem.Usage, "%s is not a runbook: %s", given, why)
			}
			out = append(out, rel)
			continue
		}
		found, err := s.walk(t, rel, notRunbook)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 && rel != "." {
			return nil, problem.New(problem.Usage, "there is no runbook in %s", given)
		}
		out = append(out, found...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Tests returns the files of tests that the paths name, as Runbooks returns runbooks; for a runbook that is the file of its tests, which lies beside it.
func (s *Settings) Tests(t *Tree, paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{t.dir}
	}
	var out []string
	for _, given := range paths {
		rel, info, err := s.locate(t, given)
		if err != nil {
			return nil, err
		}
		switch {
		case info.IsDir():
			found, err := s.walk(t, rel, notTest)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				return nil, problem.New(problem.Usage, "there is no test in %s", given).WithHint("tests are functions test_...(t) in files that end in _test.star")
			}
			out = append(out, found...)
			continue
		case notRunbook(rel) == "":
			rel = strings.TrimSuffix(rel, ".star") + testSuffix
			if _, err := t.root.Stat(filepath.FromSlash(rel)); err != nil {
				return nil, problem.New(problem.Usage, "%s has no tests: there is no file %s", given, rel).WithHint("write def test_something(t): there")
			}
		}
		if why := notTest(rel); why != "" {
			return nil, problem.New(problem.Usage, "%s is no file of tests: %s", given, why)
		}
		out = append(out, rel)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// locate finds what a path on the command line means.
func (s *Settings) locate(t *Tree, given string) (string, fs.FileInfo, error) {
	candidates := []string{filepath.Join(t.dir, given), filepath.Join(t.dir, given+".star")}
	if filepath.IsAbs(given) {
		candidates = []string{given}
	} else if abs, err := filepath.Abs(given); err == nil {
		candidates = append([]string{abs, abs + ".star"}, candidates...)
	}
	for _, c := range candidates {
		rel, ok := t.relative(c)
		if !ok {
			continue
		}
		info, err := t.root.Stat(filepath.FromSlash(rel))
		if err == nil {
			return rel, info, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, problem.Wrap(problem.Usage, err, "open %s", given)
		}
	}
	if _, err := os.Stat(given); err == nil {
		return "", nil, problem.New(problem.Usage, "%s is not in the project %s", given, t.dir)
	}
	all, err := s.walk(t, ".", notRunbook)
	if err != nil {
		return "", nil, err
	}
	known := make([]string, len(all)) // without the common end, which would make any two names look alike
	for i, name := range all {
		known[i] = strings.TrimSuffix(name, ".star")
	}
	p := problem.New(problem.Usage, "there is no runbook %s", given)
	short := strings.TrimSuffix(filepath.ToSlash(given), ".star")
	near := problem.Nearest(short, known)
	if i := slices.IndexFunc(known, func(k string) bool { return path.Base(k) == short }); i >= 0 {
		near = known[i]
	}
	if near != "" {
		p.Message += fmt.Sprintf(" (did you mean %q?)", near+".star")
	}
	if len(all) > 0 && len(all) <= 20 {
		return "", nil, p.WithHint("the runbooks are: %s", strings.Join(all, ", "))
	}
	return "", nil, p
}

// relative maps an absolute path to one below the root. The path may reach the root through symbolic links.
func (t *Tree) relative(abs string) (string, bool) {
	for _, resolve := range []func(string) (string, error){func(p string) (string, error) { return p, nil }, filepath.EvalSymlinks} {
		p, err1 := resolve(abs)
		root, err2 := resolve(t.dir)
		if err1 != nil || err2 != nil {
			continue
		}
		rel, err := filepath.Rel(root, p)
		if rel = filepath.ToSlash(rel); err == nil && fs.ValidPath(rel) {
			return rel, true
		}
	}
	return "", false
}

// walk lists the files in a directory and below that nothing speaks against.
func (s *Settings) walk(t *Tree, dir string, why func(string) string) ([]string, error) {
	var out []string
	seen := 0
	state, _ := t.relative(s.StateDir)
	err := fs.WalkDir(t.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if seen++; seen > maxFiles {
			return problem.New(problem.Project, "%s has more than %d files: is it really the root of a project?", t.dir, maxFiles)
		}
		if d.IsDir() {
			_, nested := fs.Stat(t.root.FS(), path.Join(p, File))
			if p != dir && (skippedDir(d.Name()) || p == state || nested == nil) {
				return fs.SkipDir
			}
			return nil
		}
		if why(p) == "" {
			out = append(out, p)
		}
		return nil
	})
	var p *problem.Problem
	if err != nil && !errors.As(err, &p) {
		return nil, problem.Wrap(problem.Project, err, "list the runbooks in %s", t.dir)
	}
	return out, err
}

func skippedDir(name string) bool { return name == "lib" || strings.HasPrefix(name, ".") }

// notRunbook says why a file of the project is not a runbook, or "".
func notRunbook(p string) string {
	name := path.Base(p)
	switch {
	case path.Ext(name) != ".star":
		return "its name does not end in .star"
	case p == File || p == "topology.star":
		return "it belongs to the project's settings"
	case strings.HasSuffix(name, testSuffix):
		return "it is a test"
	case slices.ContainsFunc(strings.Split(path.Dir(p), "/"), func(d string) bool { return d == "lib" }):
		return "it is in lib/, where runbooks find what they load"
	case strings.HasPrefix(name, "."):
		return "its name begins with a dot"
	}
	return ""
}

// notTest says why a file of the project is not a file of tests, or "".
func notTest(p string) string {
	switch name := path.Base(p); {
	case !strings.HasSuffix(name, testSuffix):
		return "its name does not end in " + testSuffix
	case strings.HasPrefix(name, "."):
		return "its name begins with a dot"
	}
	return ""
}
