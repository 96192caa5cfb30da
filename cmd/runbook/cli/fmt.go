package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/check"
)

// maxFormat bounds a file that is formatted, in bytes: no larger one can be loaded.
const maxFormat = 4 << 20

func fmtCommand() spec {
	return spec{
		name: "fmt", group: "Run", summary: "write runbooks in the one form",
		about: `Formats .star files, as Bazel's buildifier does, and nothing else: what it writes is
parsed again, and where it would not say the same the file is left as it was. A
directory means all .star files below it; no PATH means the working directory.`,
		args: "[PATH...]", max: many,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "check", Usage: "write nothing; exit 3 if a file would be written"},
			&cli.BoolFlag{Name: "dry-run", Usage: "the same as --check"},
		},
		example: "runbook fmt --check",
		run:     runFmt,
	}
}

type fmtResult struct {
	Files   int      `json:"files"`
	Changed []string `json:"changed"` // written, or with --check to be written
	Check   bool     `json:"check"`
}

func runFmt(ctx context.Context, c *call) (result, error) {
	r := fmtResult{Changed: []string{}, Check: c.Bool("check") || c.Bool("dry-run")}
	paths := c.args
	if len(paths) == 0 {
		paths = []string{"."}
	}
	files, err := starFiles(paths)
	if err != nil {
		return nil, err
	}
	r.Files = len(files)
	if len(files) == 0 {
		return r, problem.New(problem.Usage, "there is no .star file in %s", strings.Join(paths, ", "))
	}
	var errs []error
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		changed, err := formatFile(file, !r.Check)
		if err != nil {
			errs = append(errs, err)
		}
		if changed {
			r.Changed = append(r.Changed, file)
		}
	}
	if len(errs) > 0 {
		return r, errors.Join(errs...)
	}
	if r.Check && len(r.Changed) > 0 {
		return r, problem.New(problem.NotFormatted, "%s not as runbook fmt writes them", are(len(r.Changed))).WithHint("type: runbook fmt")
	}
	return r, nil
}

func are(n int) string {
	if n == 1 {
		return "1 file is"
	}
	return fmt.Sprintf("%d files are", n)
}

// starFiles are the files that the paths name, sorted. Directories whose name begins with a dot are left out, unless they are named.
func starFiles(paths []string) ([]string, error) {
	var out []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, problem.New(problem.Usage, "there is no file %s", path)
		}
		if !info.IsDir() {
			if filepath.Ext(path) != ".star" {
				return nil, problem.New(problem.Usage, "%s is no .star file", path)
			}
			out = append(out, path)
			continue
		}
		err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && p != path && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			case filepath.Ext(p) == ".star" && d.Type().IsRegular():
				out = append(out, p)
			}
			return nil
		})
		if err != nil {
			return nil, problem.Wrap(problem.Usage, err, "list %s", path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// formatFile says whether a file is not in form, and with write brings it there, as a whole or not at all, with the mode that it had.
func formatFile(name string, write bool) (changed bool, err error) {
	info, err := os.Lstat(name)
	if err != nil {
		return false, problem.Wrap(problem.Usage, err, "format")
	}
	if !info.Mode().IsRegular() {
		return false, problem.New(problem.Usage, "%s is a link or no regular file: format what it leads to", name)
	}
	if info.Size() > maxFormat {
		return false, problem.New(problem.Limit, "%s is larger than %d MiB", name, maxFormat>>20)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return false, problem.Wrap(problem.Usage, err, "format")
	}
	out, err := check.Format(name, text)
	if err != nil || bytes.Equal(out, text) {
		return false, err
	}
	if !write {
		return true, nil
	}
	if err := replaceFile(name, out, info.Mode().Perm()); err != nil {
		return false, problem.Wrap(problem.Usage, err, "write %s", name)
	}
	return true, nil
}

// replaceFile writes a file as a whole or not at all.
func replaceFile(name string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (r fmtResult) text(u *ui) {
	for _, f := range r.Changed {
		u.Printf("%s\n", f)
	}
}
