package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// Spawner starts workers.
type Spawner struct {
	// Exe is the binary that calls ServeWorker for Args. "" is this binary, also after its file was replaced.
	Exe string
	// Args are its arguments; nil is the hidden worker command.
	Args   []string
	Limits Limits
}

// Start starts a worker and waits until its limits are set. An error is a *problem.Problem with code sandbox. The
// context concerns the start only.
func (s Spawner) Start(ctx context.Context) (Worker, error) {
	w, err := s.start(ctx)
	if err != nil {
		return nil, fail(ctx, problem.Wrap(problem.Sandbox, err, "start a worker"))
	}
	return w, nil
}

func (s Spawner) start(ctx context.Context) (*worker, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, childOut, err := blockingPipe()
	if err != nil {
		return nil, errors.Join(err, childIn.Close(), in.Close())
	}
	shared, err := newSharedPage()
	if err != nil {
		return nil, errors.Join(err, childIn.Close(), in.Close(), out.Close(), childOut.Close())
	}
	w := &worker{
		limits: s.Limits.withDefaults(), in: in, out: out, frames: bufio.NewReader(out), shared: shared,
		gone: make(chan struct{}), texts: map[string]string{},
	}
	exe, args := s.Exe, s.Args
	if exe == "" {
		if exe, err = ownExecutable(); err != nil {
			w.release()
			return nil, errors.Join(err, childIn.Close(), childOut.Close())
		}
	}
	if args == nil {
		args = []string{WorkerCommand}
	}
	w.cmd = exec.Command(exe, args...)
	w.cmd.Args[0] = "runbook"
	w.cmd.Env = []string{} // nil would be ours
	w.cmd.Dir = "/"
	w.cmd.Stderr = &w.words
	w.cmd.WaitDelay = time.Second
	w.cmd.ExtraFiles = append([]*os.File{childIn, childOut}, shared.files()...)
	w.cmd.SysProcAttr = processAttributes()

	started := make(chan error, 1)
	onOwnThread(func() {
		patience()
		err := noNewPrivileges()
		if err == nil {
			err = w.cmd.Start()
		}
		started <- err
		if err == nil {
			w.waitErr = w.cmd.Wait()
			close(w.gone)
		}
	})
	err = errors.Join(<-started, childIn.Close(), childOut.Close())
	if err != nil {
		w.release()
		return nil, err
	}
	if err := w.hello(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// hello sends the limits, which the pipe holds whether or not the worker reads them, and waits for it to say that they are set.
func (w *worker) hello(ctx context.Context) error {
	err := w.send(wire.ToWorker{Hello: &wire.Hello{Steps: w.limits.Steps, Time: w.limits.Time.Nanoseconds(), Memory: w.limits.Memory}})
	if err != nil {
		return err
	}
	starting, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it did not answer within %s", startTime))
	defer cancel()
	defer context.AfterFunc(starting, w.kill)() // then the pipe ends
	var m wire.FromWorker
	err = wire.Read(w.frames, &m)
	switch {
	case starting.Err() != nil:
		return context.Cause(starting)
	case err != nil:
		return errors.New(strings.TrimSpace("it ended at once: " + w.end().words))
	case m.Ready == nil:
		return errors.New("it is not a worker")
	case m.Ready.Error != "":
		return fmt.Errorf("a limit cannot be set: %s", clean(m.Ready.Error, 300))
	}
	return nil
}

// onOwnThread runs f on an operating system thread that lives as long as f and is not the main one: the kernel ends a
// worker when the thread that started it ends, and other goroutines' threads come and go.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if onMainThread() {
			locked := make(chan struct{})
			go func() {
				runtime.LockOSThread()
				close(locked)
				f()
			}()
			<-locked // while this goroutine holds the main thread, the other one gets another
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
}

// tail keeps the beginning of what is written to it, and swallows the rest.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

var _ io.Writer = (*tail)(nil)

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p[:min(len(p), 4096-len(t.kept))]...)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
