package control

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// schema is the version of the state directory's own layout.
const schema = 1

// id is the content of the file ID.
type id struct {
	Schema    int    `json:"schema"`
	Namespace string `json:"namespace"`
	GateDir   string `json:"gate_dir"`
}

// Init makes a state directory, once: a run never does. dir must not exist, or be empty, as a fresh mount or a package leaves it. An empty
// gateDir means DefaultGateDir. The store inside is made by the caller.
func Init(dir, gateDir string) (State, error) {
	return InitAs(dir, gateDir, strings.ToLower(rand.Text())[:16])
}

// InitAs is Init for a directory that takes the place of one that was lost, whose records have its namespace.
func InitAs(dir, gateDir, namespace string) (_ State, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return State{}, unusable(err, "state directory")
	}
	s := State{Dir: dir, Namespace: namespace, GateDir: gateDir}
	if gateDir == "" {
		s.GateDir = DefaultGateDir(s.Namespace)
	}
	if s.GateDir, err = filepath.Abs(s.GateDir); err != nil {
		return State{}, unusable(err, "gate directory")
	}
	switch entries, err := os.ReadDir(dir); {
	case err == nil && len(entries) > 0:
		return State{}, problem.New(problem.StateUnusable, "%s exists already and is not empty", dir).
			WithHint("init makes a new directory; look at this one with: runbook status --state %s", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return State{}, unusable(err, "state directory")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return State{}, unusable(err, "state directory")
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return State{}, unusable(err, "state directory")
	}
	if err := refuseNetwork(dir); err != nil {
		return State{}, err
	}
	defer func() {
		if err != nil {
			// The directory was empty, so all of this is ours: the next init must find it empty again.
			for _, name := range []string{"RUN", "ID", "locks", "plugins", "cache"} {
				_ = os.RemoveAll(filepath.Join(dir, name))
			}
		}
	}()
	for _, sub := range []string{"locks", "plugins", "cache"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o750); err != nil {
			return State{}, unusable(err, "state directory")
		}
	}
	content, err := json.Marshal(id{Schema: schema, Namespace: s.Namespace, GateDir: s.GateDir})
	if err != nil {
		return State{}, unusable(err, "ID")
	}
	if err := s.gateReady(); err != nil {
		return State{}, unusable(err, "gate directory")
	}
	// RUN comes last: an init that was cut short leaves a directory in which nothing runs.
	for _, f := range []struct {
		path    string
		content []byte
	}{
		{s.stateGate(), nil},
		{s.path("ID"), append(content, '\n')},
		{s.path("RUN"), []byte(s.Namespace + "\n")},
	} {
		if err := writeSynced(f.path, f.content); err != nil {
			return State{}, unusable(err, "state directory")
		}
	}
	for _, d := range []string{s.path("locks"), dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return State{}, unusable(err, "state directory")
		}
	}
	return s, nil
}

// Open reads a state directory that Init made. With an error the State still holds what is known, so that Halt can be tried with it.
func Open(dir string) (State, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return State{Dir: dir}, unusable(err, "state directory")
	}
	s := State{Dir: abs}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, problem.New(problem.StateMissing, "the state directory %s does not exist: halted", abs).
			WithHint("if its disk is not mounted, mount it; if it is elsewhere, name it with --state DIR; only if this project has never run: runbook init --state %s", dir)
	case err != nil:
		return s, unusable(err, "state directory")
	case !info.IsDir():
		return s, problem.New(problem.StateUnusable, "the state directory %s is not a directory: halted", abs)
	}
	content, err := os.ReadFile(s.path("ID"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, problem.New(problem.StateMissing, "%s was not made by init, or init was cut short: halted", abs).
			WithHint("if it is a file system of its own, mount it; if it is new, empty it and: runbook init --state %s", dir)
	}
	if err != nil {
		return s, unusable(err, "ID")
	}
	var known id
	d := json.NewDecoder(bytes.NewReader(content))
	if err := d.Decode(&known); err != nil {
		return s, unusable(err, "ID")
	}
	switch {
	case known.Schema > schema:
		return s, problem.New(problem.StateUnusable, "%s was made by a newer runbook (schema %d, this one knows %d): halted", abs, known.Schema, schema).
			WithHint("use the newer runbook everywhere")
	case known.Schema < 1 || known.Namespace == "" || !filepath.IsAbs(known.GateDir):
		return s, problem.New(problem.StateUnusable, "%s is incomplete: halted", s.path("ID")).WithHint("restore it from a backup")
	}
	s.Namespace, s.GateDir = known.Namespace, known.GateDir
	return s, refuseNetwork(abs)
}

func (s State) path(name string) string { return filepath.Join(s.Dir, name) }

func unusable(err error, what string) error {
	return problem.Wrap(problem.StateUnusable, err, "%s", what).WithHint("runbook doctor")
}

// refuseNetwork refuses a directory on a network file system: two hosts on it would share no guards, and its locks may be lies.
func refuseNetwork(dir string) error {
	kind, err := networkFileSystem(dir)
	if err != nil {
		return unusable(err, "state directory")
	}
	if kind != "" {
		return problem.New(problem.StateUnusable, "the state directory %s is on a network file system (%s)", dir, kind).
			WithHint("put it on a local disk: --state DIR")
	}
	return nil
}

func writeSynced(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = syncDirectory(d)
	return errors.Join(err, d.Close())
}

// gateReady sees to it that the gate directory exists, which a reboot, a log-out or a container restart takes away, and is ours. Making it
// anew lifts no halt: HALT in the state directory is still there.
func (s State) gateReady() error {
	if s.GateDir == "" {
		return errors.New("the gate directory is not known")
	}
	state, err := os.Stat(s.Dir)
	if err != nil {
		return err
	}
	info, err := os.Lstat(s.GateDir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeGateDir(s.GateDir, state); err != nil {
			return err
		}
		info, err = os.Lstat(s.GateDir)
	}
	if err != nil {
		return err
	}
	parent, err := os.Stat(filepath.Dir(s.GateDir))
	if err != nil {
		return err
	}
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", s.GateDir)
	case !ownedBy(info, state):
		return fmt.Errorf("%s belongs to somebody else", s.GateDir)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s can be written by everybody", s.GateDir)
	case parent.Mode().Perm()&0o002 != 0 && parent.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("%s can be written by everybody", filepath.Dir(s.GateDir))
	}
	return nil
}

// makeGateDir makes the directory and at most its parent, for the owner of the state directory, whoever runs first after a reboot.
func makeGateDir(dir string, state fs.FileInfo) error {
	parent := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		parent = 0o755 // shared by the state directories of several users; it holds nothing itself
	}
	if err := os.Mkdir(filepath.Dir(dir), parent); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return adopt(dir, state)
}
