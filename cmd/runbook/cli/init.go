package cli

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runbooks"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

//go:embed templates
var templates embed.FS

// projectFiles are what init writes: where, and from what.
var projectFiles = []struct {
	path string
	from embed.FS
	name string
}{
	{"README.md", templates, "templates/README.md"},
	{".gitignore", templates, "templates/gitignore"},
	{"runbooks/worker.star", runbooks.Files, "queue/worker.star"},
	{"runbooks/worker_test.star", runbooks.Files, "queue/worker_test.star"},
	{"runbooks/worker.tested", templates, "templates/worker.tested"},
	{"project.star", templates, "templates/project.star"}, // last: with it the directory is a project
}

func initCommand() spec {
	return spec{
		name: "init", group: "Start",
		summary: "make a project, and the state directory that remembers what was done",
		about: `With DIR: writes project.star, one runbook with its tests and a README there, and makes the
state directory DIR/state, or the one that --state names. With --state alone: makes
only the state directory, for a project that is there already. What exists is never
overwritten, and nothing else ever makes a state directory: a missing one means halted.`,
		args: "[DIR]", max: 1, takes: takesState,
		flags:   []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "show what would be made; make nothing"}},
		example: "runbook init my-runbooks",
		run:     runInit,
	}
}

// initResult says what was made.
type initResult struct {
	Project   string   `json:"project,omitempty"` // absolute
	Files     []string `json:"files,omitempty"`   // relative to it
	State     string   `json:"state"`             // absolute
	Namespace string   `json:"namespace,omitempty"`
	DryRun    bool     `json:"dry_run,omitempty"`
}

func runInit(_ context.Context, c *call) (result, error) {
	state, err := c.givenState()
	if err != nil {
		return nil, err
	}
	if len(c.args) == 0 {
		if state == "" {
			return nil, problem.New(problem.Usage, "runbook init needs DIR or --state").WithHint("for example: runbook init my-runbooks")
		}
		if c.Bool("dry-run") {
			return initResult{State: state, DryRun: true}, nil
		}
		s, err := makeState(state)
		return initResult{State: s.Dir, Namespace: s.Namespace}.unless(err), err
	}
	dir, err := filepath.Abs(c.args[0])
	if err != nil {
		return nil, problem.Wrap(problem.Project, err, "directory %s", c.args[0])
	}
	written := "state" // as project.star has it
	if state == "" {
		state = filepath.Join(dir, written)
	} else {
		written = state
	}
	if err := vacant(dir); err != nil {
		return nil, err
	}
	if c.Bool("dry-run") {
		r := initResult{Project: dir, State: state, DryRun: true}
		for _, f := range projectFiles {
			r.Files = append(r.Files, f.path)
		}
		return r, nil
	}
	s, err := makeState(state)
	if err != nil {
		return nil, err
	}
	files, err := writeProject(dir, written)
	if err != nil {
		return nil, problem.Wrap(problem.Project, err, "write the project").
			WithHint("the state directory %s was made already; remove it before you repeat this", s.Dir)
	}
	return initResult{Project: dir, Files: files, State: s.Dir, Namespace: s.Namespace}, nil
}

// unless drops a result beside an error.
func (r initResult) unless(err error) result {
	if err != nil {
		return nil
	}
	return r
}

// vacant refuses a directory that has any of the files that would be written.
func vacant(dir string) error {
	var there []string
	for _, f := range projectFiles {
		_, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(f.path)))
		switch {
		case err == nil:
			there = append(there, f.path)
		case !errors.Is(err, fs.ErrNotExist):
			return problem.Wrap(problem.Project, err, "look at %s", dir)
		}
	}
	if len(there) == 0 {
		return nil
	}
	return problem.New(problem.Usage, "%s has %s already, and init overwrites nothing", dir, strings.Join(there, ", ")).
		WithHint("name a directory that does not exist, or, for the state directory of this project only: runbook init --state DIR")
}

// makeState makes the state directory with an empty store in it.
func makeState(dir string) (control.State, error) {
	s, err := control.Init(dir, "")
	if err != nil {
		return s, err
	}
	if err := pebble.Create(filepath.Join(s.Dir, "store")); err != nil {
		return s, fmt.Errorf("%s is incomplete, remove it before you repeat this: %w", s.Dir, err)
	}
	return s, nil
}

// writeProject writes the templates. A file that has come into being meanwhile is not overwritten.
func writeProject(dir, state string) ([]string, error) {
	var files []string
	for _, f := range projectFiles {
		text, err := f.from.ReadFile(f.name)
		if err != nil {
			return nil, err
		}
		text = []byte(strings.ReplaceAll(string(text), "STATE", fmt.Sprintf("%q", state)))
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return nil, err
		}
		_, err = out.Write(text)
		if err := errors.Join(err, out.Close()); err != nil {
			return nil, err
		}
		files = append(files, f.path)
	}
	return files, nil
}

func (r initResult) text(u *ui) {
	if r.Project != "" {
		u.Printf("project %s\n", r.Project)
		for _, f := range r.Files {
			u.Printf("  %s\n", f)
		}
	}
	u.Printf("state   %s\n", r.State)
	if r.DryRun {
		u.Printf("dry run: nothing was made\n")
		return
	}
	if r.Project != "" {
		u.Printf("\nnext: put the address of your Prometheus into project.star, then\n  %s\n",
			quoteLine([]string{"runbook", "run", "--dry-run", "--project", r.Project}))
	}
}
