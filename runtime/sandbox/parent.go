package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// worker is the engine's side of a worker process.
type worker struct {
	limits  Limits
	cmd     *exec.Cmd
	in, out *os.File
	frames  *bufio.Reader // of out
	shared  *sharedPage
	words   tail
	gone    chan struct{} // closed when the process has ended; then waitErr is set
	waitErr error
	closing sync.Once
	dead    atomic.Bool

	vocab Vocabulary        // that the worker knows
	told  bool              // it knows one
	texts map[string]string // every file that was handed out, for the life of the worker
}

var _ Worker = (*worker)(nil)

// errUnsendable is about the engine's own message: the worker has not seen any of it.
var errUnsendable = errors.New("a message to the worker cannot be sent")

func (w *worker) send(m wire.ToWorker) error {
	frame, err := wire.Encode(m)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnsendable, err)
	}
	_, err = w.in.Write(frame)
	return err
}

// kill ends the process. A process that was waited for is left alone: its number may be another's by now.
func (w *worker) kill() {
	w.dead.Store(true)
	select {
	case <-w.gone:
	default:
		kill(w.cmd.Process)
		<-w.gone
	}
}

// Dead implements Worker.
func (w *worker) Dead() bool {
	select {
	case <-w.gone:
		return true
	default:
		return w.dead.Load()
	}
}

// Close implements Worker.
func (w *worker) Close() {
	w.closing.Do(func() {
		w.kill()
		w.release()
	})
}

func (w *worker) release() {
	_ = w.in.Close()
	_ = w.out.Close()
	w.shared.release()
}

// end says how a worker ended that has closed its pipe.
func (w *worker) end() end {
	w.dead.Store(true)
	select {
	case <-w.gone:
	case <-time.After(2 * time.Second):
		w.kill()
		return end{status: "it closed its pipe and went on"}
	}
	e := end{cause: w.shared.reason.Load(), words: clean(w.words.String(), 4096)}
	state := w.cmd.ProcessState
	if state == nil {
		return e
	}
	e.status = state.String()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.signal = ws.Signal().String()
	}
	return e
}

// Load implements Worker.
func (w *worker) Load(ctx context.Context, path string, vocab Vocabulary, src Source) (Module, error) {
	r := newRun(w, vocab, src, nil)
	done, err := r.run(ctx, wire.Run{Path: path})
	if err != nil {
		return Module{}, r.explain(err)
	}
	m := Module{Path: path, Doc: done.Doc, Records: done.Records, Defs: done.Defs, Coverage: coverage(done.Coverage)}
	for p := range r.read {
		sum := sha256.Sum256([]byte(w.texts[p]))
		m.Closure = append(m.Closure, File{Path: p, SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(m.Closure, func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	return m, nil
}

// Evaluate implements Worker.
func (w *worker) Evaluate(ctx context.Context, path, fn string, vocab Vocabulary, src Source, c Context, caller kit.Caller) (Result, error) {
	if fn == "" {
		return Result{}, problem.New(problem.Internal, "evaluate %s: no function", path)
	}
	r := newRun(w, vocab, src, caller)
	done, err := r.run(ctx, wire.Run{Path: path, Fn: fn, Context: &wire.Context{
		Bare: c.Bare, Now: c.Now, Target: c.Target, Params: c.Params, Attempt: c.Attempt, Steps: c.Steps,
	}})
	result := Result{Outcome: done.Outcome, Steps: done.Steps, Events: r.events, Dropped: r.dropped, Coverage: coverage(done.Coverage)}
	if err != nil {
		result.Outcome = nil
		return result, r.explain(err)
	}
	return result, nil
}

func coverage(list []wire.Coverage) []Coverage {
	out := make([]Coverage, len(list))
	for i, c := range list {
		out[i] = Coverage{Path: c.Path, Statements: c.Statements, Ran: c.Ran}
		for _, a := range c.Conditions {
			out[i].Conditions = append(out[i].Conditions, Arm(a))
		}
	}
	return out
}

// run is one Load or Evaluate.
type run struct {
	w      *worker
	vocab  Vocabulary
	src    Source
	caller kit.Caller
	guard  *watchdog

	read    map[string]bool // files of this run
	paths   []string        // the same, in order: what the worker's page refers to
	total   int64           // bytes of them
	events  []Event
	told    int // of them, to a Watcher
	dropped int
	reports int // events that the worker sent; the others are the engine's own
	calls   int
	stop    error // why the engine ended it
	foreign bool  // stop came from the caller: it goes back unchanged
}

func newRun(w *worker, vocab Vocabulary, src Source, caller kit.Caller) *run {
	return &run{w: w, vocab: vocab, src: src, caller: caller, read: map[string]bool{}}
}

// run sends the Run and answers the worker until it is done.
func (r *run) run(ctx context.Context, m wire.Run) (done wire.Done, err error) {
	if r.w.Dead() {
		return done, problem.New(problem.Sandbox, "the worker has ended")
	}
	if why := badPath(m.Path); why != "" {
		return done, problem.New(problem.Load, "%q: %s", clip(m.Path, 100), why)
	}
	if !r.w.told || !r.w.vocab.Same(r.vocab) {
		v := wire.Vocabulary(r.vocab)
		m.Vocabulary = &v
		r.w.told = false
	}
	r.w.shared.reset()
	r.guard = r.w.guard(ctx)
	defer func() { _ = r.guard.stop() }()
	if err := r.answer(wire.ToWorker{Run: &m}); err != nil {
		return done, err
	}
	r.w.vocab, r.w.told = r.vocab, true
	for {
		f, err := r.next()
		if err != nil {
			return done, r.instead(err)
		}
		switch {
		case f.Done != nil:
			return r.done(m, *f.Done)
		case f.Events != nil:
			err = r.take(*f.Events)
		case f.Load != nil && r.stop == nil:
			err = r.load(*f.Load)
		case f.Call != nil && r.stop == nil && m.Fn != "":
			err = r.call(ctx, *f.Call)
		default:
			err = r.refuse("it sent a frame that does not belong here")
		}
		if err != nil {
			return done, r.instead(err)
		}
	}
}

// instead is err, unless the engine had already ended the run for its own reason.
func (r *run) instead(err error) error {
	if r.stop != nil {
		return r.stop
	}
	return err
}

// next waits for the worker.
func (r *run) next() (m wire.FromWorker, err error) {
	r.guard.began()
	err = wire.Read(r.w.frames, &m)
	r.guard.ended()
	if err != nil {
		return m, r.lost(err)
	}
	return m, nil
}

// fail gives a problem the code of what ended its context, if something did.
func fail(ctx context.Context, p *problem.Problem) *problem.Problem {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		p.Code = problem.Deadline
	case ctx.Err() != nil:
		p.Code = problem.Interrupted
	}
	return p
}

// here is the place where the worker was last.
func (r *run) here() value.Pos { return r.known(r.w.shared.pos(r.paths)) }

// lost says why the worker cannot be heard any more.
func (r *run) lost(err error) error {
	if why := r.guard.stop(); why != nil {
		return why.At(r.here())
	}
	if isEnd(err) {
		return r.w.end().problem(r.w.limits, r.here())
	}
	return r.refuse("%v", err)
}

// refuse ends a worker that cannot be trusted.
func (r *run) refuse(format string, args ...any) error {
	p := problem.New(problem.Sandbox, "the worker cannot be trusted: "+format, args...)
	p.Message = clean(p.Message, 500)
	at := r.here()
	r.w.kill()
	return p.At(at)
}

// load hands out the text of a file.
func (r *run) load(l wire.Load) error {
	text, err := r.text(l)
	if err != nil {
		r.stop = err
		return r.answer(wire.ToWorker{Source: &wire.Source{Stop: true}})
	}
	return r.answer(wire.ToWorker{Source: &wire.Source{Text: text}})
}

// answer waits until the worker has taken m.
func (r *run) answer(m wire.ToWorker) error {
	r.guard.began()
	err := r.w.send(m)
	r.guard.ended()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errUnsendable):
		return problem.Wrap(problem.Internal, err, "evaluate")
	}
	return r.lost(err)
}

// text reads a file, once in the life of the worker: what was checked is what is evaluated.
func (r *run) text(l wire.Load) (string, error) {
	if why := badPath(l.Path); why != "" {
		return "", problem.New(problem.Load, "load %q: %s", clean(l.Path, 100), why)
	}
	at := r.known(l.Pos)
	if r.read[l.Path] || len(r.paths) >= maxFiles {
		return "", r.refuse("it asked for %s again, or for too many files", l.Path)
	}
	text, ok := r.w.texts[l.Path]
	if !ok {
		data, err := r.src.Read(l.Path)
		if err != nil {
			return "", unreadable(l.Path, at, err)
		}
		here := value.Pos{File: l.Path}
		if int64(len(data)) > r.w.limits.SourceFile {
			return "", overFile(r.w.limits.SourceFile).At(here)
		}
		if err := NotText(data); err != nil {
			return "", err.At(here)
		}
		text = string(data)
		r.w.texts[l.Path] = text
	}
	// What other runs of this worker have read does not count: a project may have any number of runbooks.
	if r.total += int64(len(text)); r.total > r.w.limits.SourceAll {
		return "", overSource(r.w.limits.SourceAll).At(value.Pos{File: l.Path})
	}
	r.read[l.Path] = true
	r.paths = append(r.paths, l.Path)
	return text, nil
}

// NotText says why a file is no text, nil if it is. The scanner takes a NUL for the end of the file: what stands behind
// one is seen by whoever reviews the file, and never run.
func NotText(data []byte) *problem.Problem {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return problem.New(problem.Syntax, "the file begins with a byte order mark").WithHint("save it as UTF-8 without one")
	case !utf8.Valid(data):
		return problem.New(problem.Syntax, "the file is not UTF-8 text").WithHint("save it as UTF-8")
	case bytes.IndexByte(data, 0) >= 0:
		return problem.New(problem.Syntax, "the file holds a NUL character").WithHint("save it as UTF-8; it may be UTF-16, or damaged")
	}
	return nil
}

func unreadable(path string, at value.Pos, err error) error {
	var p *problem.Problem
	switch {
	case errors.As(err, &p):
		if q := *p; q.Pos.Line == 0 {
			return q.At(at)
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		return problem.New(problem.Load, "load %q: there is no such file", path).At(at).WithHint("paths are taken from the project's root, where project.star is")
	}
	return problem.Wrap(problem.Load, err, "load %q", path).At(at)
}

// call answers a query or an action. What the worker says about it is checked against the engine's own table.
func (r *run) call(ctx context.Context, c wire.Call) error {
	if err := r.take(c.Events); err != nil {
		return err
	}
	if r.calls++; r.calls > maxCalls {
		r.stop = problem.New(problem.Limit, "more than %d queries and actions in one evaluation", maxCalls).At(r.known(c.Pos))
		return r.answer(wire.ToWorker{Answer: &wire.Answer{Stop: true}})
	}
	req, err := r.request(c)
	if err != nil {
		return err
	}
	if w, ok := r.caller.(Watcher); ok {
		w.Saw(r.events[r.told:], r.reports >= mostEvents)
	}
	r.told = len(r.events) + 1
	r.events = append(r.events, Event{Kind: "call", Pos: req.Pos, Source: req.Family + "." + req.Function})
	v, err := r.caller.Call(ctx, req)
	if err == nil {
		err = r.answer(wire.ToWorker{Answer: &wire.Answer{Value: value.JSON{Value: v}}})
		if !errors.Is(err, errUnsendable) {
			return err
		}
	} else {
		r.foreign = true
	}
	r.stop = err
	return r.answer(wire.ToWorker{Answer: &wire.Answer{Stop: true}})
}
