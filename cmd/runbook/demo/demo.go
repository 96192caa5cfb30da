package demo

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
)

//go:embed project
var projectFiles embed.FS

// Options configure the demo.
type Options struct {
	Exe string // the runbook binary, which is also the service
	Dir string // where a temporary directory is made; "" means the system's place for them
	// Say shows one line to a person, as things happen; nil shows nothing.
	Say func(format string, args ...any)
}

// Report is what the demo observed.
type Report struct {
	OK      bool     `json:"ok"` // everything that the demo is about was really observed
	Dir     string   `json:"dir"`
	Changed []Change `json:"changed"`
	Steps   []Step   `json:"steps"`
	Explain string   `json:"explain,omitempty"` // the output of runbook explain for the run that acted
	TookMS  int64    `json:"took_ms"`
}

// Change is a setting in which the demo differs from what ships, so that it takes seconds and not minutes.
type Change struct {
	Setting string `json:"setting"`
	Demo    string `json:"demo"`
	Ships   string `json:"ships"`
}

// Step is one thing that was done and observed.
type Step struct {
	Name    string   `json:"name"`
	AtMS    int64    `json:"at_ms"` // since the demo began
	Command []string `json:"command,omitempty"`
	Exit    int      `json:"exit"`
	Run     string   `json:"run,omitempty"` // id of the run
	Seen    string   `json:"seen"`          // in words, with the figures
}

func changes() []Change {
	return []Change{
		{"mode", "auto", "recommend"},
		{"severity", "warning", "critical, which nothing acts on automatically"},
		{"max_bad", "1", "a fifth of the fleet, but one always"},
		{"every", "1s", "no default; every minute is usual"},
		{"held", "2s", "0s; some minutes are usual"},
		{"within", "8s", "10m"},
		{"sampling", "1s", "15s"},
	}
}

const (
	totalTime = 2 * time.Minute // a bound; the demo takes a quarter of a minute
	startTime = 15 * time.Second
)

// Run shows the whole cycle with the real binary, as subprocesses, against a service that really gets stuck: healthy, sick,
// acted, verified, refused by the cooldown, halted, explained. Each step is checked against process ids, metrics, exit
// codes and what `runbook run --json` says.
//
// When it returns nothing that it started runs any more and its directory is gone, however it ended. The report is
// returned with an error, too, which then says what was observed instead.
func Run(ctx context.Context, o Options) (rep *Report, err error) {
	// On Linux the children die with the thread that started them: keep it until they have ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, totalTime)
	defer cancel()
	t := &tour{exe: o.Exe, say: o.Say, began: time.Now(), report: &Report{Changed: changes()}}
	if t.say == nil {
		t.say = func(string, ...any) {}
	}
	defer func() {
		t.report.TookMS = time.Since(t.began).Milliseconds()
		if caller.Err() != nil {
			err = problem.New(problem.Interrupted, "the demo was interrupted; nothing of it is left")
		}
		t.report.OK = err == nil
	}()
	if t.dir, err = os.MkdirTemp(o.Dir, "runbook-demo-"); err != nil {
		return t.report, fmt.Errorf("demo: %w", err)
	}
	t.report.Dir = t.dir
	defer func() { err = errors.Join(err, t.cleanUp()) }()
	if err := t.start(ctx); err != nil {
		return t.report, err
	}
	return t.report, t.steps(ctx)
}

// tour is one demo.
type tour struct {
	exe, dir string
	say      func(string, ...any)
	began    time.Time
	report   *Report

	service  *exec.Cmd
	lifeline io.Closer
	stderr   logBuffer // of the service
	ports    Ports
	lastRun  time.Time // end of the last runbook run
	last     command
}

func (t *tour) serviceDir() string { return filepath.Join(t.dir, "service") }
func (t *tour) stateDir() string   { return filepath.Join(t.dir, "state") }

// start starts the service and writes the project.
func (t *tour) start(ctx context.Context) error {
	cmd := exec.Command(t.exe, ServiceCommand, "supervise", "--dir", t.serviceDir(), "--lifeline")
	cmd.Stderr = &t.stderr
	cmd.SysProcAttr = tied()
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("demo: start the service: %w", err)
	}
	t.service, t.lifeline = cmd, in
	up := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n')
		up <- err
	}()
	select {
	case err = <-up:
	case <-time.After(startTime):
		err = fmt.Errorf("it was not up within %s", startTime)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err == nil {
		t.ports, err = ReadPorts(t.serviceDir())
	}
	if err != nil {
		return problem.Wrap(problem.Internal, err, "demo: the service did not start")
	}
	return t.writeProject()
}

// writeProject writes project.star with the addresses of this demo, and its runbook with its tests.
func (t *tour) writeProject() error {
	names := strings.NewReplacer(
		"URL", strconv.Quote(t.ports.API), "STATE", strconv.Quote(t.stateDir()), "EXE", strconv.Quote(t.exe),
		"SERVICE", strconv.Quote(ServiceCommand), "DIR", strconv.Quote(t.serviceDir()),
	)
	for _, name := range []string{"project.star", "worker.star", "worker_test.star", "worker.tested"} {
		text, err := projectFiles.ReadFile("project/" + name)
		if err != nil {
			return err
		}
		if name == "project.star" {
			text = []byte(names.Replace(string(text)))
		}
		if err := os.WriteFile(filepath.Join(t.dir, name), text, 0o600); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

// cleanUp ends the service and removes what the demo made, on the disk and on the memory file system.
func (t *tour) cleanUp() error {
	var errs []error
	if t.service != nil {
		_ = t.lifeline.Close() // a second Close is an error that means nothing
		kill := time.AfterFunc(2*stopTime, func() { _ = t.service.Process.Kill() })
		_ = t.service.Wait() // ended by us
		kill.Stop()
	}
	if s, err := control.Open(t.stateDir()); err == nil && filepath.Base(s.GateDir) == s.Namespace {
		errs = append(errs, os.RemoveAll(s.GateDir)) // not below our directory, but of our state alone
	}
	errs = append(errs, os.RemoveAll(t.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("demo: clean up: %w", err)
	}
	return nil
}
