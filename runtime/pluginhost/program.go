package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// program is what is executed for a plugin.
type program struct {
	path string
	name string // as which it runs
	args []string
	ours bool     // it is part of this program
	file *os.File // what path names in the process to be: the very file that was hashed; nil: path is one of the file system
}

// fileOf is where a process finds the first file that it is handed beside its standard ones.
const fileOf = "/proc/self/fd/3"

// program finds what is to be executed and, for a plugin that is locked, proves that it is what was locked.
func (h *Plugins) program(name string) (program, error) {
	if _, ok := h.bundled[name]; ok {
		return program{path: h.config.Exe, name: h.config.Exe, args: []string{"plugin", "serve", name}, ours: true}, nil
	}
	e, ok := h.config.External[name]
	if !ok {
		return program{}, h.unknown(name)
	}
	pr := program{path: e.Path, name: e.Path, args: e.Args}
	if e.SHA256 == "" {
		return pr, nil
	}
	f, sum, err := open(e.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return program{}, missing(name, e.Path)
	case err != nil:
		return program{}, problem.Wrap(problem.PluginFailed, err, "plugin %s", name)
	case sum != e.SHA256:
		_ = f.Close()
		return program{}, changed(name, e.Path, sum, e.SHA256)
	}
	if runtime.GOOS != "linux" { // it can only be named by its path again
		return pr, f.Close()
	}
	pr.file, pr.path = f, fileOf
	return pr, nil
}

func missing(name, path string) *problem.Problem {
	return problem.New(problem.PluginMissing, "plugin %s (%s): there is no such file, or the interpreter it names is missing", name, path).
		WithHint("install the plugin, or correct its path in project.star")
}

func changed(name, path, is, locked string) *problem.Problem {
	return problem.New(problem.PluginChanged, "plugin %s (%s) is not the file that %s was made for", name, path, LockFile).
		WithHint("if the change is wanted: runbook plugin lock, look at what it changes, and commit %s", LockFile).
		WithDetail("the file's SHA-256 is "+is, LockFile+" has        "+locked)
}

// open opens a program and returns the SHA-256 of all that is in it.
func open(path string) (*os.File, string, error) {
	// A look before opening, because opening a named pipe waits for somebody to write.
	if st, err := os.Stat(path); err != nil {
		return nil, "", err
	} else if !st.Mode().IsRegular() {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, hex.EncodeToString(h.Sum(nil)), nil
}

// Hash is the SHA-256 of a plugin's file, as a lock has it.
func Hash(path string) (string, error) {
	f, sum, err := open(path)
	if err != nil {
		return "", err
	}
	return sum, f.Close()
}

// Verify says whether a plugin's file is the one that was locked, without starting it.
func (l Lock) Verify(name, path string) error {
	locked, ok := l[name]
	if !ok {
		return Unlocked(name)
	}
	sum, err := Hash(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing(name, path)
	case err != nil:
		return problem.Wrap(problem.PluginFailed, err, "plugin %s", name)
	case sum != locked.SHA256:
		return changed(name, path, sum, locked.SHA256)
	}
	return nil
}

// Unlocked is the error of a plugin that the lock does not have.
func Unlocked(name string) *problem.Problem {
	return problem.New(problem.PluginChanged, "plugin %s is not in %s, so nobody has looked at it", name, LockFile).
		WithHint("runbook plugin lock, look at what it writes, and commit %s", LockFile)
}
