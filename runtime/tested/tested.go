// Package tested keeps what passing tests have covered of a runbook, in a file beside it, and says whether the way to an action is covered by it.
//
// The file (worker.tested beside worker.star) is written by `runbook test --attest` and committed. It holds for exactly one source, with everything that it loads, for
// exactly the parameters that this resolves to, and for the schemas of the plugins that it names: if any of that changes, nothing is covered until it was
// tested again. A version of a plugin whose functions are the same is the same.
//
// An action is covered if a passing test has carried it out at this place of the source, and if a passing test has gone each way that was
// taken on the way to it: each leaf condition true or false as it was, each earlier action ok or not ok as it ended. A cleanup is judged as a whole, before the first
// action: it runs when something has gone wrong already, which is too late to find out that nobody has ever tried it.
package tested

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Version is the version of the file. Fields are only ever added.
const Version = 1

// Covered is File.Cleanup where the tests cover all of it.
const Covered = "covered"

// maxFile bounds a file that is read, in bytes.
const maxFile = 4 << 20

// File is what passing tests have covered of one runbook.
type File struct {
	V       int               `json:"v"`
	Source  string            `json:"source"`            // digest of the file and all that it loads
	Params  string            `json:"params"`            // digest of the parameters
	Plugins map[string]string `json:"plugins"`           // digests of the schemas, by plugin
	Cleanup string            `json:"cleanup,omitempty"` // Covered, or what is not; empty if there is none
	Arms    []string          `json:"arms"`              // as Arm writes them, sorted
	Actions []string          `json:"actions"`           // as Action writes them, sorted
}

// Path is where the file about a runbook is kept.
func Path(runbook string) string { return strings.TrimSuffix(runbook, ".star") + ".tested" }

// Arm is one way of a leaf condition.
func Arm(pos value.Pos, way bool) string { return fmt.Sprintf("%s %v", pos, way) }

// Action is an action at a place of the source that ended ok, or not.
func Action(pos value.Pos, name string, ok bool) string {
	if ok {
		return fmt.Sprintf("%s %s ok", pos, name)
	}
	return fmt.Sprintf("%s %s not ok", pos, name)
}

// New is the file about a runbook of which nothing is covered yet.
func New(rb *project.Runbook, src sandbox.Source, manifests []sdk.Manifest) (*File, error) {
	f := &File{V: Version, Source: rb.Digest, Plugins: map[string]string{}, Arms: []string{}, Actions: []string{}}
	params, err := value.Marshal(rb.Params)
	if err != nil {
		return nil, fmt.Errorf("parameters of %s: %w", rb.Path, err)
	}
	f.Params = digest(params)
	for _, m := range manifests {
		used, err := names(rb, src, m.Name)
		if err != nil {
			return nil, err
		}
		if used {
			f.Plugins[m.Name] = Schema(m)
		}
	}
	return f, nil
}

// names says whether the text of a runbook mentions a plugin. One that it does not mention it cannot call.
func names(rb *project.Runbook, src sandbox.Source, plugin string) (bool, error) {
	for _, file := range rb.Closure {
		text, err := src.Read(file.Path)
		if err != nil {
			return false, err
		}
		if bytes.Contains(text, []byte("."+plugin)) {
			return true, nil
		}
	}
	return false, nil
}

// Schema is the digest of what a plugin's functions are called and take.
func Schema(m sdk.Manifest) string {
	fns := slices.Clone(m.Functions)
	slices.SortFunc(fns, func(a, b sdk.Function) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.Marshal(fns)
	if err != nil {
		return "none" // nothing is the same as what cannot be written
	}
	return digest(text)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Encode renders the file: one arm a line, so that a change can be read and merged.
func (f *File) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// Decode reads a file.
func Decode(name string, text []byte) (*File, error) {
	var f File
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&f); err != nil {
		return nil, problem.New(problem.Load, "%s cannot be read: %v", name, err).WithHint("runbook test --attest writes it anew")
	}
	if f.V != Version {
		return nil, problem.New(problem.Load, "%s has version %d, this binary knows %d", name, f.V, Version).WithHint("runbook test --attest writes it anew")
	}
	return &f, nil
}

// Stale says what has changed since the file was written, or "".
func (f *File) Stale(now *File) string {
	switch {
	case f.Source != now.Source:
		return "was changed since it was tested"
	case f.Params != now.Params:
		return "has other parameters than those that were tested"
	}
	for plugin, schema := range now.Plugins {
		if f.Plugins[plugin] != schema {
			return "was tested with another plugin " + plugin
		}
	}
	return ""
}

// Way is how an evaluation came to an action.
type Way struct {
	Branches []sandbox.Event // in order; those of kind "branch" count
	Lost     bool            // there were more than are known
	Done     []Done          // the actions before it
	Pos      value.Pos       // of the action
	Action   string
	First    bool // nothing was done before it
}

// Done is an action that was asked for before.
type Done struct {
	Pos    value.Pos
	Action string
	OK     bool
}

// Gap says what of the way no passing test has covered, or "".
func (f *File) Gap(w Way) string {
	if w.First && f.Cleanup != "" && f.Cleanup != Covered {
		return "cleanup: " + f.Cleanup
	}
	if w.Lost {
		return w.Pos.String() + ": there were more branches on the way than are recorded, so that nobody can tell whether each"
	}
	for _, b := range w.Branches {
		if b.Kind == "branch" && !slices.Contains(f.Arms, Arm(b.Pos, b.Result == "true")) {
			return fmt.Sprintf("%s: that %s is %s", b.Pos, b.Source, b.Result)
		}
	}
	for _, d := range w.Done {
		if !slices.Contains(f.Actions, Action(d.Pos, d.Action, d.OK)) {
			if d.OK {
				return fmt.Sprintf("%s: that %s is done", d.Pos, d.Action)
			}
			return fmt.Sprintf("%s: that %s is not done", d.Pos, d.Action)
		}
	}
	if !slices.Contains(f.Actions, Action(w.Pos, w.Action, true)) {
		return fmt.Sprintf("%s: %s", w.Pos, w.Action)
	}
	return ""
}

// Gate judges the ways of one process by the files of a project.
type Gate struct {
	Data      func(name string) (io.ReadCloser, error)
	Source    sandbox.Source
	Manifests []sdk.Manifest

	mu    sync.Mutex
	known map[string]judged // by the digest of the source
}

type judged struct {
	file *File
	why  string // nothing is covered
}

// Judge is what the tested guard is told.
func (g *Gate) Judge(rb *project.Runbook, w Way) guard.Coverage {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := rb.Path + " " + rb.Digest
	j, ok := g.known[key]
	if !ok {
		j = g.read(rb)
		if g.known == nil {
			g.known = map[string]judged{}
		}
		g.known[key] = j
	}
	c := guard.Coverage{Enforced: true, Missing: j.why}
	if j.file == nil {
		return c
	}
	if gap := j.file.Gap(w); gap != "" {
		c.Missing = gap + " was never tested"
		return c
	}
	c.Covered = true
	return c
}

func (g *Gate) read(rb *project.Runbook) judged {
	name := Path(rb.Path)
	f, err := Read(g.Data, name)
	if errors.Is(err, fs.ErrNotExist) {
		return judged{why: fmt.Sprintf("%s was never tested: there is no %s", rb.Path, path.Base(name))}
	}
	if err != nil {
		return judged{why: err.Error()}
	}
	now, err := New(rb, g.Source, g.Manifests)
	if err != nil {
		return judged{why: err.Error()}
	}
	if stale := f.Stale(now); stale != "" {
		return judged{why: rb.Path + " " + stale}
	}
	return judged{file: f}
}

// Read reads a file; fs.ErrNotExist says that there is none.
func Read(data func(name string) (io.ReadCloser, error), name string) (*File, error) {
	r, err := data(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, problem.Wrap(problem.Load, err, "read %s", name)
	}
	if len(text) > maxFile {
		return nil, problem.New(problem.Load, "%s is larger than 4 MiB", name)
	}
	return Decode(name, text)
}
