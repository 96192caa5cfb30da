package pluginhost

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/proc"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/pipes"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

// leftOpen is how long after a plugin's end something that it left behind may hold its output open.
const leftOpen = 200 * time.Millisecond

// group is go-plugin's runner over a process group of our own. go-plugin's own passes this process's standard input and has
// no bound on stopping: https://github.com/hashicorp/go-plugin/issues/136.
type group struct {
	cmd     *exec.Cmd
	spare   *spare.Spare // the process that only has to be told what to be; nil: cmd is to be started
	plugin  string
	ours    bool // it is part of this program
	pipes   *pipes.Pipes
	stdout  *pipe
	stderr  *pipe
	confine *proc.Confine

	done  chan struct{}    // closed once the plugin has ended and was reaped, or could not be started
	state *os.ProcessState // after done

	mu       sync.Mutex
	proc     *proc.Process // nil: not started
	startErr error
	doomed   bool // to be killed, also if it starts only now
	killed   bool // by us, before it ended by itself
}

// oneProcessor is how a bundled plugin starts. Most live for some milliseconds, beside others that need the processors as much, and what Go does to use all
// of them costs more than it brings. One that lives longer takes them: see the command that serves it. It reads this when it starts, so that a spare process,
// which is a source that answers many questions at once, has its own number.
const oneProcessor = "GOMAXPROCS=1"

// newGroup makes the group of a program's process, or of the spare one that becomes this plugin.
func newGroup(pr program, s *spare.Spare, plugin string, env []string) (*group, error) {
	env = append(env, sdk.EnvLifeline+"=1", sdk.EnvHost+"="+strconv.Itoa(os.Getpid()))
	if pr.ours && s == nil {
		env = append(env, oneProcessor)
	}
	g := &group{spare: s, plugin: plugin, ours: pr.ours, done: make(chan struct{})}
	if s != nil {
		g.pipes = s.Pipes
	} else {
		var err error
		if g.pipes, err = pipes.Open(); err != nil {
			return nil, err
		}
	}
	g.cmd = &exec.Cmd{Path: pr.path, Args: append([]string{pr.name}, pr.args...), Dir: string(os.PathSeparator), Env: env}
	if pr.file != nil {
		g.cmd.ExtraFiles = []*os.File{pr.file}
	}
	g.stdout, g.stderr = newPipe(g.pipes.Stdout), newPipe(g.pipes.Stderr)
	return g, nil
}

// Start implements runner.Runner.
func (g *group) Start(context.Context) error {
	p, err := g.begin()
	g.mu.Lock()
	g.proc, g.startErr = p, err
	doomed := g.doomed
	g.mu.Unlock()
	if err != nil {
		g.pipes.Close()
		close(g.done)
		return err
	}
	limit(p.PID())
	if doomed {
		p.Kill()
	}
	go g.watch(p)
	return nil
}

// begin starts the process, or tells the one that waits what it is.
func (g *group) begin() (*proc.Process, error) {
	if g.spare != nil {
		_ = g.spare.Become(g.plugin, g.cmd.Env) // if it has ended, the handshake says so
		return proc.Adopt(g.spare.Process, g.spare.Exited), nil
	}
	g.cmd.Stdin, g.cmd.Stdout, g.cmd.Stderr = g.pipes.Theirs[0], g.pipes.Theirs[1], g.pipes.Theirs[2]
	p, err := proc.Start(g.cmd, proc.Options{NoNewPrivs: true, Confine: g.confine, Patient: g.ours})
	g.pipes.Started()
	return p, err
}

// watch reaps the plugin, kills what it left in its group, and bounds how long that may hold the pipes.
func (g *group) watch(p *proc.Process) {
	<-p.Exited()
	p.Kill()
	g.state, _ = p.Wait()
	close(g.done)
	_ = g.pipes.Lifeline.Close()
	time.AfterFunc(leftOpen, func() { _, _ = g.stdout.Close(), g.stderr.Close() })
}

// kill ends the group at once.
func (g *group) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.doomed = true
	if g.proc == nil {
		return
	}
	select {
	case <-g.proc.Exited():
	default:
		g.killed = true
	}
	g.proc.Kill()
}

// process is nil unless it was started.
func (g *group) process() (p *proc.Process, killed bool, startErr error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.proc, g.killed, g.startErr
}

// Wait implements runner.AttachedRunner.
func (g *group) Wait(context.Context) error { <-g.done; return nil }

// Kill implements runner.AttachedRunner. go-plugin calls it when the handshake went wrong, often a moment before the exit
// that explains it: a plugin that closed its output gets that moment.
func (g *group) Kill(context.Context) error {
	select {
	case <-g.stdout.eof:
		select {
		case <-g.done:
		case <-time.After(100 * time.Millisecond):
		}
	default:
	}
	g.kill()
	return nil
}

// Stdout implements runner.Runner.
func (g *group) Stdout() io.ReadCloser { return g.stdout }

// Stderr implements runner.Runner.
func (g *group) Stderr() io.ReadCloser { return g.stderr }

// Name implements runner.Runner.
func (g *group) Name() string { return g.cmd.Path }

// ID implements runner.AttachedRunner.
func (g *group) ID() string {
	p, _, _ := g.process()
	if p == nil {
		return ""
	}
	return strconv.Itoa(p.PID())
}

// Diagnose implements runner.Runner. See explainStart instead.
func (g *group) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator.
func (g *group) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

// HostToPlugin implements runner.AddrTranslator.
func (g *group) HostToPlugin(network, addr string) (string, string, error) { return network, addr, nil }

var _ runner.Runner = (*group)(nil)

// pipe remembers the beginning of what is read, for the error when it is not the handshake, and when it ended.
type pipe struct {
	*os.File
	eof  chan struct{}
	mu   sync.Mutex
	head []byte
	once sync.Once
}

func newPipe(f *os.File) *pipe { return &pipe{File: f, eof: make(chan struct{})} }

// Read implements io.Reader.
func (f *pipe) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.head) < 200 {
		f.head = append(f.head, p[:min(n, 200-len(f.head))]...)
	}
	if err != nil {
		f.once.Do(func() { close(f.eof) })
	}
	return n, err
}

// first is the first line, cut to a length that a person reads.
func (f *pipe) first() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	line, _, _ := bytes.Cut(f.head, []byte("\n"))
	return string(line[:min(len(line), 80)])
}
