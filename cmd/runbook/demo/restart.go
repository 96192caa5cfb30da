package demo

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	restartTimeout = 5 * time.Second
	pollInterval   = 10 * time.Millisecond
	requestTimeout = time.Second
)

// restart is the command that a runbook's action runs: it ends a worker's process and returns when the supervisor has
// put a new one in its place that works.
func restart(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("restart", flag.ContinueOnError)
	dir := f.String("dir", "", "directory of the service")
	names, err := parse(f, args, stderr, "NAME")
	if err != nil {
		return err
	}
	name := names[0]
	ctx, cancel := context.WithTimeout(context.Background(), restartTimeout)
	defer cancel()
	old, err := end(*dir, name)
	if err != nil {
		return err
	}
	for {
		now, err := worker(*dir, name)
		if err != nil {
			return err
		}
		if now.PID != 0 && now.PID != old && healthy(ctx, now) {
			_, err := fmt.Fprintf(stdout, "restarted %s: pid %d -> %d\n", name, old, now.PID)
			return err
		}
		select {
		case <-ctx.Done():
			if now.PID == old && old != 0 {
				return fmt.Errorf("%s still runs as pid %d, %s after SIGTERM", name, old, restartTimeout)
			}
			return fmt.Errorf("%s (pid %d) ended, but no new process was healthy within %s", name, old, restartTimeout)
		case <-time.After(pollInterval):
		}
	}
}

// end sends SIGTERM to a worker's process and returns its pid; 0 if there was none, because the supervisor is about to
// start one.
func end(dir, name string) (int, error) {
	w, err := worker(dir, name)
	if err != nil || w.PID == 0 {
		return 0, err
	}
	p, err := os.FindProcess(w.PID)
	if err != nil {
		return 0, err
	}
	defer func() { _ = p.Release() }() // it only frees the handle
	// The handle is of whatever process has that pid now. Only if the supervisor still says so after it was taken is it of
	// the worker, and not of a stranger that got the pid of a worker that has ended meanwhile.
	again, err := worker(dir, name)
	if err != nil {
		return 0, err
	}
	if again.PID == w.PID {
		if err := terminate(p); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 0, fmt.Errorf("end %s (pid %d): %w", name, w.PID, err)
		}
	}
	return w.PID, nil
}

// terminate asks a process to end; where there is no SIGTERM it ends it.
func terminate(p *os.Process) error {
	err := p.Signal(syscall.SIGTERM)
	if err == nil || errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Kill()
}

// healthy says whether a worker answers as the process that it is thought to be, and has done its first job.
func healthy(ctx context.Context, w Process) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	var says Process
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&says)
	return err == nil && resp.StatusCode == http.StatusOK && says.PID == w.PID
}

// stick is the command that makes a worker get stuck.
func stick(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("stick", flag.ContinueOnError)
	dir := f.String("dir", "", "directory of the service")
	names, err := parse(f, args, stderr, "NAME")
	if err != nil {
		return err
	}
	w, err := worker(*dir, names[0])
	if err != nil {
		return err
	}
	if w.PID == 0 {
		return fmt.Errorf("%s is not running", names[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/stick", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // nothing is read
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s answered %s", w.URL, resp.Status)
	}
	_, err = fmt.Fprintf(stdout, "%s (pid %d) will not do another job\n", names[0], w.PID)
	return err
}
