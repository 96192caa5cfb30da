package project

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// maxSource is the largest file that is read at all; limits(source_file=) is at most that.
const maxSource = 4 * mib

// Find walks up from a file or directory to the directory that has project.star.
func Find(start string) (string, error) {
	abs, err := filepath.Abs(start)
	if err != nil {
		return "", problem.Wrap(problem.Project, err, "find the project of %s", start)
	}
	for dir := abs; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(filepath.Join(dir, File))
		switch {
		case err == nil && info.Mode().IsRegular():
			return dir, nil
		case err == nil:
			return "", problem.New(problem.Project, "%s is not a regular file", filepath.Join(dir, File))
		case !errors.Is(err, fs.ErrNotExist) && !isNotDir(dir):
			return "", problem.Wrap(problem.Project, err, "find the project of %s", start)
		}
		if dir == filepath.Dir(dir) {
			return "", problem.New(problem.Project, "there is no %s in %s or above", File, abs).
				WithHint("make a project: runbook init DIR")
		}
	}
}

// isNotDir says whether a path is something else than a directory, so that nothing can be below it.
func isNotDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// Tree hands out the files of a project. Nothing outside of its root can be read through it, whatever
// path or symbolic link is followed.
type Tree struct {
	dir  string
	root *os.Root
}

var _ sandbox.Source = (*Tree)(nil)

// Open opens the project at root. The caller closes it.
func Open(root string) (*Tree, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, problem.Wrap(problem.Project, err, "open project %s", root)
	}
	r, err := os.OpenRoot(abs)
	if err != nil {
		return nil, problem.Wrap(problem.Project, err, "open project %s", root)
	}
	return &Tree{dir: abs, root: r}, nil
}

// Root is the absolute path of the project.
func (t *Tree) Root() string { return t.dir }

// Close releases the root.
func (t *Tree) Close() error { return t.root.Close() }

// Frozen hands out the same files, each as it was when it was first asked for: what a run has read once is what it goes by until it
// ends. It is safe for concurrent use.
func (t *Tree) Frozen() sandbox.Source { return &frozen{tree: t, texts: map[string][]byte{}} }

type frozen struct {
	tree  *Tree
	mu    sync.Mutex
	texts map[string][]byte
}

// Read implements sandbox.Source.
func (f *frozen) Read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text, ok := f.texts[name]; ok {
		return text, nil
	}
	text, err := f.tree.Read(name)
	if err == nil {
		f.texts[name] = text
	}
	return text, err
}

// Read implements sandbox.Source.
func (t *Tree) Read(name string) ([]byte, error) {
	bad := func(format string, args ...any) error {
		return problem.New(problem.Load, "%s: %s", name, fmt.Sprintf(format, args...))
	}
	if !fs.ValidPath(name) || name == "." || path.Ext(name) != ".star" {
		return nil, bad("not the path of a .star file below the project root")
	}
	local := filepath.FromSlash(name)
	// A look before opening, because opening a named pipe waits for somebody to write.
	if info, err := t.root.Stat(local); err != nil {
		return nil, t.notReadable(name, err)
	} else if !info.Mode().IsRegular() {
		return nil, bad("not a regular file")
	}
	f, err := t.root.Open(local)
	if err != nil {
		return nil, t.notReadable(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, t.notReadable(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, bad("not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, t.notReadable(name, err)
	}
	if int64(len(text)) > maxSource {
		return nil, bad("more than %s", formatSize(maxSource))
	}
	return text, nil
}

// Data opens a file of any kind, such as a recording for a test. name is relative to the project, as for Read.
func (t *Tree) Data(name string) (io.ReadCloser, error) {
	local := filepath.FromSlash(name)
	if !fs.ValidPath(name) || name == "." {
		return nil, problem.New(problem.Load, "%s: not the path of a file below the project root", name)
	}
	if info, err := t.root.Stat(local); err != nil {
		return nil, t.notReadable(name, err)
	} else if !info.Mode().IsRegular() {
		return nil, problem.New(problem.Load, "%s: not a regular file", name)
	}
	f, err := t.root.Open(local)
	if err != nil {
		return nil, t.notReadable(name, err)
	}
	return f, nil
}

func (t *Tree) notReadable(name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	p := problem.Wrap(problem.Load, err, "open %s", name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The common end would make any two names look alike.
		near := problem.Nearest(strings.TrimSuffix(name, ".star"), t.starFiles())
		p = problem.New(problem.Load, "there is no file %s", name).Because(err)
		if near != "" {
			p.Message += fmt.Sprintf(" (did you mean %q?)", near+".star")
		}
	case strings.Contains(err.Error(), "escapes"):
		p = problem.New(problem.Load, "%s is a link that leads out of the project", name).
			WithHint("copy the file into the project")
	}
	return p.At(value.Pos{})
}

// starFiles lists the .star files below the root without their ending, for hints; what cannot be read is left out.
func (t *Tree) starFiles() []string {
	var out []string
	_ = fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || len(out) >= 1000 {
			return fs.SkipAll
		}
		if d.IsDir() && p != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if short, ok := strings.CutSuffix(p, ".star"); ok {
			out = append(out, short)
		}
		return nil
	})
	return out
}
