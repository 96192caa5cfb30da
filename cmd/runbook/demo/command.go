package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

const (
	commandTime = 30 * time.Second // for one command of the tour
	commandStop = 5 * time.Second  // between SIGTERM and SIGKILL when the demo is interrupted
	waitTime    = 20 * time.Second // for one thing to happen in the service
	waitPoll    = 50 * time.Millisecond
)

// command is the last process that the tour ran.
type command struct {
	line   []string
	exit   int
	stdout []byte
	stderr string
}

// command runs a command of the binary to its end. program is "runbook", or the hidden word of the service.
func (t *tour) command(ctx context.Context, program string, args ...string) error {
	t.last = command{line: append([]string{program}, args...)}
	if program != "runbook" {
		args = append([]string{program}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.exe, args...)
	// SIGTERM, so that an interrupted run records how far it came and ends its own children.
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = commandStop
	cmd.SysProcAttr = tied()
	cmd.Dir = t.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	t.last.stdout, t.last.stderr = out.Bytes(), errs.String()
	if cmd.ProcessState != nil {
		t.last.exit = cmd.ProcessState.ExitCode()
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || ctx.Err() != nil {
		return t.wrong("%v", errors.Join(err, ctx.Err()))
	}
	return nil
}

// expectExit compares the exit code of the last command.
func (t *tour) expectExit(want int) error {
	if t.last.exit != want {
		return t.wrong("exit code %d, want %d", t.last.exit, want)
	}
	return nil
}

// run is one tick, as cron would start it, and its record. A runbook is due once a second, so it waits for the next.
func (t *tour) run(ctx context.Context, exit int) (*trace.Run, error) {
	next := t.lastRun.Truncate(time.Second).Add(time.Second)
	select {
	case <-time.After(time.Until(next)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := t.command(ctx, "runbook", "run", "--project", t.dir, "--state", t.stateDir(), "--json"); err != nil {
		return nil, err
	}
	t.lastRun = time.Now()
	r, err := trace.Decode(t.last.stdout)
	if err != nil {
		return nil, t.wrong("%v", err)
	}
	if err := t.expectExit(exit); err != nil {
		return nil, err
	}
	if len(r.Runbooks) != 1 || !r.Runbooks[0].Due || r.Runbooks[0].Problem != nil || int(r.Exit) != exit {
		return nil, t.wrong("the run says exit %d and does not show one runbook that was due", r.Exit)
	}
	return r, nil
}

// ask asks the service's metrics, and returns the value of each instance.
func (t *tour) ask(ctx context.Context, expr string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.ports.API+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask for %s: %w", expr, err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("ask for %s: %s", expr, answer.Error)
	}
	values := map[string]float64{}
	for _, s := range answer.Data.Result {
		text, _ := s.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("ask for %s: %w", expr, err)
		}
		values[s.Metric["instance"]] = v
	}
	return values, nil
}

// wait polls until done says so.
func (t *tour) wait(ctx context.Context, what string, done func(context.Context) (ok bool, seen string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		ok, seen, err := done(ctx)
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return t.wrong("waited %s for %s; %s %v", waitTime, what, seen, errors.Join(err, ctx.Err()))
		case <-time.After(waitPoll):
		}
	}
}

// wrong says that something was observed that the demo does not promise, with all that helps to find out why.
func (t *tour) wrong(format string, args ...any) *problem.Problem {
	p := problem.New(problem.Internal, "demo: "+format, args...)
	if len(t.last.line) > 0 {
		p.WithDetail(fmt.Sprintf("$ %s (exit code %d)", strings.Join(t.last.line, " "), t.last.exit))
	}
	for _, text := range []string{t.last.stderr, t.stderr.text()} {
		if text = strings.TrimSpace(text); text != "" {
			p.WithDetail(strings.Split(tail(text, 2000), "\n")...)
		}
	}
	return p.WithHint("on a very busy machine try again; otherwise this is a bug, please report it with these lines")
}

// logBuffer keeps what a process writes while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tail is the end of a text, at most n bytes.
func tail(s string, n int) string {
	if len(s) > n {
		return "... " + strings.ToValidUTF8(s[len(s)-n:], "")
	}
	return s
}
