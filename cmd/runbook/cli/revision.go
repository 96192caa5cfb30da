package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/project"
)

// atRevision is the project as it was at a revision of its git repository, in a directory of its own that done removes.
func atRevision(ctx context.Context, tree *project.Tree, rev string) (at *project.Tree, done func(), err error) {
	commit, err := git(ctx, tree.Root(), "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		return nil, nil, problem.Wrap(problem.Usage, err, "%q is no revision of the project's git repository", rev).
			WithHint("name a commit, a branch or a tag: git log --oneline")
	}
	archive, err := git(ctx, tree.Root(), "archive", "--format=tar", strings.TrimSpace(string(commit)))
	if err != nil {
		return nil, nil, problem.Wrap(problem.Usage, err, "read the project at %s", rev)
	}
	dir, err := os.MkdirTemp("", "runbook-revision-")
	if err != nil {
		return nil, nil, problem.Wrap(problem.Internal, err, "make a directory for the project at %s", rev)
	}
	remove := func() { _ = os.RemoveAll(dir) }
	if err = unpack(archive, dir); err == nil {
		at, err = project.Open(dir)
	}
	if err != nil {
		remove()
		return nil, nil, problem.Wrap(problem.Internal, err, "unpack the project at %s", rev)
	}
	return at, func() { _ = at.Close(); remove() }, nil
}

// git runs git in a directory and returns what it prints.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "--no-pager"}, args...)...)
	out, err := cmd.Output()
	if x, ok := errors.AsType[*exec.ExitError](err); ok && len(x.Stderr) > 0 {
		return nil, errors.New(strings.TrimSpace(string(x.Stderr)))
	}
	return out, err
}

// unpack writes the files and directories of an archive below dir, and nothing beside it.
func unpack(archive []byte, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
		case tar.TypeReg:
			err = errors.Join(root.MkdirAll(path.Dir(name), 0o700), writeFile(root, name, r))
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r) //nolint:gosec // its size is that of the project's own files
	return errors.Join(err, f.Close())
}
