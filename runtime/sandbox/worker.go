package sandbox

import (
	"bufio"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// WorkerCommand is the hidden command that makes the binary a worker.
const WorkerCommand = "__worker"

// The descriptors that a worker is given.
const (
	fdIn = 3 + iota
	fdOut
	fdPage
)

// The exit codes of a worker.
const (
	exitDone  = 0
	exitBad   = 70 // the engine said something that is not understood
	exitLimit = 71 // the cause is in the page
)

// ServeWorker is the worker: it reads Runs from the engine and answers them until the engine closes the pipe. It is
// to be called in a process that a Spawner started and that has not done anything else; its result is the exit code.
func ServeWorker() int {
	in, out := os.NewFile(fdIn, "in"), os.NewFile(fdOut, "out")
	if in == nil || out == nil {
		return exitBad
	}
	w := &served{in: bufio.NewReader(in), out: out}
	first := w.next()
	if first.Hello == nil {
		return exitBad
	}
	w.hello = *first.Hello
	if err := w.confine(); err != nil {
		// Whether the engine hears it or not, nothing is evaluated.
		_ = w.send(wire.FromWorker{Ready: &wire.Ready{Error: err.Error()}})
		return exitLimit
	}
	if w.send(wire.FromWorker{Ready: &wire.Ready{}}) != nil {
		return exitBad
	}
	for {
		m := w.next()
		if m.Run == nil || m.Run.Vocabulary == nil && w.vocab == nil {
			return exitBad
		}
		if m.Run.Vocabulary != nil {
			w.vocab, w.kept = m.Run.Vocabulary, nil
		}
		if err := w.run(m.Run); err != nil {
			return exitBad
		}
	}
}

// served is the worker's side of the pipes.
type served struct {
	hello wire.Hello
	in    *bufio.Reader
	out   *os.File
	vocab *wire.Vocabulary
	kept  map[string]*program // compiled in the last run, with this vocabulary
	page  *page
	base  uint64 // bytes of heap before any script
	busy  atomic.Bool
}

// confine sets every limit of the process. It runs before any script is read.
func (w *served) confine() error {
	debug.SetTraceback("none")
	debug.SetMaxStack(maxStack)
	w.base = heap()
	debug.SetMemoryLimit(int64(w.base) + w.hello.Memory*3/4)
	p, err := confineProcess(w.hello)
	if err != nil {
		return err
	}
	w.page = p
	go w.watch()
	return nil
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// watch ends the process when its heap is over the limit. What grows faster than it looks meets RLIMIT_DATA and RLIMIT_AS.
func (w *served) watch() {
	limit := w.base + uint64(w.hello.Memory)
	for range time.Tick(time.Millisecond) {
		if !w.busy.Load() || heap() <= limit {
			continue
		}
		runtime.GC() // only what is in use counts
		if heap() > limit {
			w.page.cause(causeMemory)
			quit(exitLimit)
		}
	}
}

// quit ends the process at once: a script may be inside of a builtin, and nothing else stops that.
func quit(code int) { os.Exit(code) } //nolint:forbidigo // see above

// next waits for the engine. When it is gone there is nothing left to do; while a script runs the system (Linux) or the limits see to that.
func (w *served) next() (m wire.ToWorker) {
	err := wire.Read(w.in, &m)
	switch {
	case errors.Is(err, io.EOF):
		quit(exitDone)
	case err != nil:
		quit(exitBad)
	}
	return m
}

func (w *served) send(m wire.FromWorker) error { return wire.Write(w.out, m) }

// run answers one Run. An error means that the pipes are of no use any more.
func (w *served) run(r *wire.Run) error {
	renewTime(w.hello)
	w.busy.Store(true)
	defer w.busy.Store(false)
	s := newSession(w, w.vocab, w.hello.Steps, w.kept)
	done := w.evaluate(s, r)
	if w.kept = nil; done.Problem == nil {
		w.kept = s.programs(w.hello.Memory)
	}
	done.Steps = s.thread.ExecutionSteps()
	done.Events = s.tracer.take()
	done.Coverage = s.tracer.coverage(s.paths)
	err := w.send(wire.FromWorker{Done: &done})
	if err == nil {
		return nil
	}
	// Too large.
	p := problem.New(problem.Limit, "what %s declares or reports is larger than %s", r.Path, size(wire.MaxFrame)).At(value.Pos{File: r.Path})
	return w.send(wire.FromWorker{Done: &wire.Done{Problem: p, Steps: done.Steps}})
}

func (w *served) evaluate(s *session, r *wire.Run) (done wire.Done) {
	defer func() {
		if x := recover(); x != nil {
			done = wire.Done{Problem: panicProblem(x, w.hello.Memory).At(w.page.pos(s.paths))}
		}
	}()
	done, err := s.run(r)
	if errors.Is(err, errStopped) {
		return wire.Done{Stopped: true}
	}
	if err != nil {
		return wire.Done{Problem: s.explain(err)}
	}
	return done
}

// load implements engine.
func (w *served) load(path string, pos value.Pos) (string, error) {
	if err := w.send(wire.FromWorker{Load: &wire.Load{Path: path, Pos: pos}}); err != nil {
		return "", err
	}
	m := w.next()
	if m.Source == nil {
		quit(exitBad)
	}
	if m.Source.Stop {
		return "", errStopped
	}
	return m.Source.Text, nil
}

// call implements engine.
func (w *served) call(c wire.Call) (value.Value, error) {
	if err := w.send(wire.FromWorker{Call: &c}); err != nil {
		return nil, problem.New(problem.Limit, "%s.%s: the arguments are too large: %v", c.Family, c.Function, err).At(c.Pos)
	}
	m := w.next()
	if m.Answer == nil {
		quit(exitBad)
	}
	if m.Answer.Stop {
		return nil, errStopped
	}
	return m.Answer.Value.Value, nil
}

// events implements engine.
func (w *served) events(e wire.Events) error {
	return w.send(wire.FromWorker{Events: &e})
}

// note implements engine: it leaves the place, or with a negative file only a sign of life, where the engine can see it.
func (w *served) note(file, line int) { w.page.note(file, line) }
