// Package declared remembers what files declare, so that a run in which nothing has changed and nothing is sick starts no worker.
//
// Promise: what is remembered is what a worker said of exactly these files, with exactly this vocabulary, under exactly this
// binary and limits, and was checked then; anything else, a file that cannot be read as well, is a reason to ask a worker. The files are
// read each time and compared by their hash. A failure is not remembered. The memory may be lost at any time.
package declared

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

const (
	version = 1
	// most bounds the memory; a project with more files asks a worker for the rest.
	most = 5000
)

// Memory is what is remembered of one project. It is safe for concurrent use.
type Memory struct {
	file  string
	build string

	mu      sync.Mutex
	entries map[string]entry // by path
	changed bool
	last    vocabulary
}

// entry is what a worker said of a file.
type entry struct {
	vocabulary string // digest, and the limits
	closure    []sandbox.File
	doc        string
	defs       []string
	records    []*value.Record
}

// vocabulary is one whose digest is known.
type vocabulary struct {
	v      sandbox.Vocabulary
	digest string
}

// Open reads the memory in a file. What cannot be read, or is another binary's, is forgotten.
func Open(file, exe string) *Memory {
	m := &Memory{file: file, build: identity(exe), entries: map[string]entry{}}
	data, err := os.ReadFile(file)
	if err != nil {
		return m
	}
	if head, body, ok := split(data); ok && head == m.head(body) {
		if all, err := (&reader{in: body}).entries(); err == nil {
			m.entries = all
		}
	}
	return m
}

// identity names a binary by its file, as it changes with every build.
func identity(exe string) string {
	info, err := os.Stat(exe)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %d", exe, info.Size(), info.ModTime().UnixNano())
}

// head is the first line of the file: it has to fit the rest.
func (m *Memory) head(body []byte) string {
	return fmt.Sprintf("runbook-declared %d %s %x", version, m.build, sha256.Sum256(body))
}

func split(data []byte) (head string, body []byte, ok bool) {
	i := slices.Index(data, '\n')
	if i < 0 {
		return "", nil, false
	}
	return string(data[:i]), data[i+1:], true
}

// Save writes the memory if it has changed. It makes the directory of the file, but not the one above: no state directory comes of it.
// Two processes that write at once leave the memory of one of them.
func (m *Memory) Save() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.changed || m.build == "" {
		return nil
	}
	w := writer{texts: map[string]uint64{}}
	w.entries(m.entries)
	body := w.out
	if err := os.Mkdir(filepath.Dir(m.file), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(m.file), ".declared-*")
	if err != nil {
		return err
	}
	_, err = f.Write(slices.Concat([]byte(m.head(body)+"\n"), body))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), m.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	m.changed = false
	return nil
}

// digest is that of a vocabulary. Runbooks are read one after the other with the same one.
func (m *Memory) digest(v sandbox.Vocabulary) (string, error) {
	if m.last.digest != "" && m.last.v.Same(v) {
		return m.last.digest, nil
	}
	text, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return "", err
	}
	m.last = vocabulary{v, hash(text)}
	return m.last.digest, nil
}

func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// find is what is remembered of a file, if it and all that it loads are still what they were.
func (m *Memory) find(path string, v sandbox.Vocabulary, limits string, src sandbox.Source) (sandbox.Module, bool) {
	m.mu.Lock()
	e, ok := m.entries[path]
	digest, err := m.digest(v)
	m.mu.Unlock()
	if !ok || err != nil || e.vocabulary != digest+limits {
		return sandbox.Module{}, false
	}
	for _, f := range e.closure {
		text, err := src.Read(f.Path)
		if err != nil {
			return sandbox.Module{}, false
		}
		if hash(text) != f.SHA256 {
			return sandbox.Module{}, false
		}
	}
	return sandbox.Module{Path: path, Doc: e.doc, Defs: e.defs, Records: e.records, Closure: e.closure}, len(e.closure) > 0
}

func (m *Memory) keep(path string, v sandbox.Vocabulary, limits string, mod sandbox.Module) {
	m.mu.Lock()
	defer m.mu.Unlock()
	digest, err := m.digest(v)
	if _, known := m.entries[path]; err != nil || !known && len(m.entries) >= most {
		return
	}
	m.entries[path] = entry{vocabulary: digest + limits, closure: mod.Closure, doc: mod.Doc, defs: mod.Defs, records: mod.Records}
	m.changed = true
}

// Worker is a worker that is started, by start and under these limits, when something has to be asked that is not remembered.
func (m *Memory) Worker(limits sandbox.Limits, start func(context.Context) (sandbox.Worker, error)) sandbox.Worker {
	return &worker{memory: m, limits: fmt.Sprintf(" %+v", limits), start: start, end: func() {}, done: make(chan struct{})}
}

type worker struct {
	memory *Memory
	limits string
	start  func(context.Context) (sandbox.Worker, error)
	closed bool

	once sync.Once
	end  context.CancelFunc // of what is done in the background
	done chan struct{}      // closed when the process was started, or could not be
	real sandbox.Worker     // after done
	err  error              // after done
}

var (
	_ sandbox.Worker = (*worker)(nil)
	_ sandbox.Warmer = (*worker)(nil)
)

// Warm implements sandbox.Warmer.
func (w *worker) Warm(ctx context.Context, path string, v sandbox.Vocabulary, src sandbox.Source) {
	w.begin(ctx, func(ctx context.Context) {
		// If the file is at fault the evaluation says so; if the process was, it is not to be without one.
		if _, err := w.real.Load(ctx, path, v, src); err != nil && w.real.Dead() && ctx.Err() == nil {
			w.real.Close()
			w.real, w.err = w.start(ctx)
		}
	})
}

// begin starts the process in the background, and does then with it.
func (w *worker) begin(ctx context.Context, then func(context.Context)) {
	w.once.Do(func() {
		own, end := context.WithCancel(ctx)
		w.end = end
		go func() {
			defer close(w.done)
			if w.real, w.err = w.start(own); w.err == nil {
				then(own)
			}
		}()
	})
}

// started is the process behind it.
func (w *worker) started(ctx context.Context) (sandbox.Worker, error) {
	w.begin(ctx, func(context.Context) {})
	<-w.done
	if w.real == nil && w.err == nil {
		return nil, errors.New("the worker was closed")
	}
	return w.real, w.err
}

// Load implements sandbox.Worker.
func (w *worker) Load(ctx context.Context, path string, v sandbox.Vocabulary, src sandbox.Source) (sandbox.Module, error) {
	if mod, ok := w.memory.find(path, v, w.limits, src); ok {
		return mod, nil
	}
	process, err := w.started(ctx)
	if err != nil {
		return sandbox.Module{}, err
	}
	mod, err := process.Load(ctx, path, v, src)
	if err == nil {
		w.memory.keep(path, v, w.limits, mod)
	}
	return mod, err
}

// Evaluate implements sandbox.Worker.
func (w *worker) Evaluate(ctx context.Context, path, fn string, v sandbox.Vocabulary, src sandbox.Source, c sandbox.Context, caller kit.Caller) (sandbox.Result, error) {
	process, err := w.started(ctx)
	if err != nil {
		return sandbox.Result{}, err
	}
	return process.Evaluate(ctx, path, fn, v, src, c, caller)
}

// Dead implements sandbox.Worker.
func (w *worker) Dead() bool {
	select {
	case <-w.done:
		return w.closed || w.real == nil || w.real.Dead()
	default:
		return w.closed
	}
}

// Close implements sandbox.Worker.
func (w *worker) Close() {
	w.closed = true
	w.once.Do(func() { close(w.done) }) // never started, and never will be
	w.end()
	<-w.done
	if w.real != nil {
		w.real.Close()
	}
}
