package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed1de3961f/runbook/runtime/recorded"
)

const (
	restartDelay   = 20 * time.Millisecond
	scrapeInterval = 200 * time.Millisecond
	// A scrape may take longer than its interval, so that a busy machine does not look like a target that is down.
	scrapeTimeout = time.Second
	keepSamples   = 15 * time.Minute
	stopTime      = time.Second // between SIGTERM and SIGKILL when the service ends
)

// supervisor keeps one process per worker running, and scrapes them.
type supervisor struct {
	exe, dir, workersListen string
	workerArgs              []string
	stderr                  io.Writer
	db                      *recorded.DB

	mu    sync.Mutex
	ports Ports
}

// supervise is the command that is the service. It prints its API's address when every worker has been reached once.
func supervise(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("supervise", flag.ContinueOnError)
	dir := f.String("dir", "", "directory of the service; ports.json in it says where everything is")
	listen := f.String("listen", "127.0.0.1:0", "address to serve the Prometheus API and /worker/NAME/metrics on")
	names := f.String("workers", "w1,w2,w3", "names of the workers")
	workersListen := f.String("workers-listen", "127.0.0.1:0", "address that each worker listens on; port 0 is chosen by the system")
	rate := f.Float64("rate", 200, "jobs that arrive per second and worker")
	lifeline := f.Bool("lifeline", false, "end when standard input ends")
	if _, err := parse(f, args, stderr); err != nil {
		return err
	}
	if *dir == "" {
		return usagef("--dir is needed")
	}
	s := &supervisor{
		dir: *dir, workersListen: *workersListen, workerArgs: []string{"--rate", fmt.Sprint(*rate)}, stderr: &lockedWriter{w: stderr},
		db:    recorded.New(recorded.Options{Retention: keepSamples, Now: time.Now}),
		ports: Ports{Supervisor: os.Getpid(), Workers: map[string]Process{}},
	}
	for name := range strings.SplitSeq(*names, ",") {
		if _, twice := s.ports.Workers[name]; twice || !validName(name) {
			return usagef("--workers: %q is not a name, or is there twice", name)
		}
		s.ports.Workers[name] = Process{}
	}
	var err error
	if s.exe, err = os.Executable(); err != nil {
		return err
	}
	if err = os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *lifeline {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it, the parent is gone
			stop()
		}()
	}
	return s.run(ctx, *listen, stdout)
}

// run serves until ctx ends, and returns when every worker has ended.
func (s *supervisor) run(ctx context.Context, listen string, stdout io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s.ports.API = "http://" + l.Addr().String()
	if err := s.update(func(*Ports) {}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2+len(s.ports.Workers)) // room for all who may fail
	fail := func(err error) {
		if err != nil {
			failed <- err
			cancel()
		}
	}
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Second}
	var wg, up sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fail(err)
		}
	})
	for name := range maps.Clone(s.ports.Workers) {
		up.Add(1)
		reached := sync.OnceFunc(up.Done)
		wg.Go(func() { fail(s.keep(ctx, name, reached)); reached() })
		wg.Go(func() { s.scrape(ctx, name) })
	}
	up.Wait()
	if ctx.Err() == nil {
		_, err := fmt.Fprintln(stdout, s.ports.API)
		fail(err)
	}
	<-ctx.Done()
	err = srv.Close()
	wg.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// keep starts a worker again and again until ctx ends.
func (s *supervisor) keep(ctx context.Context, name string, reached func()) error {
	// On Linux a worker dies with the thread that started it, so that kill -9 of this process ends the workers too. The
	// thread must therefore live as long as the worker: this goroutine keeps it.
	runtime.LockOSThread()
	for ctx.Err() == nil {
		if err := s.once(ctx, name, reached); err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(s.stderr, "worker %s: %v\n", name, err)
		}
		if err := s.update(func(p *Ports) { p.Workers[name] = Process{} }); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartDelay):
		}
	}
	return nil
}

// once runs one worker process to its end.
func (s *supervisor) once(ctx context.Context, name string, reached func()) error {
	args := append([]string{ServiceCommand, "work", "--dir", s.dir, "--name", name, "--listen", s.workersListen, "--lifeline"}, s.workerArgs...)
	cmd := exec.CommandContext(ctx, s.exe, args...)
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = stopTime
	cmd.Stderr = s.stderr
	cmd.SysProcAttr = tied()
	stdin, err := cmd.StdinPipe() // the life-line: the system closes it when this process ends in any way
	if err != nil {
		return err
	}
	defer func() { _ = stdin.Close() }() // Wait has closed it
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	out := bufio.NewReader(stdout)
	if line, readErr := out.ReadBytes('\n'); readErr == nil {
		var p Process
		if err = json.Unmarshal(line, &p); err == nil {
			err = s.update(func(ports *Ports) { ports.Workers[name] = p })
		}
		reached()
	}
	if err != nil { // nobody could find it
		err = errors.Join(err, cmd.Cancel())
	}
	_, _ = io.Copy(io.Discard, out) // until the process ends
	return errors.Join(err, cmd.Wait())
}

// update changes what is known and writes it down.
func (s *supervisor) update(change func(*Ports)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.ports)
	b, err := json.MarshalIndent(s.ports, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(portsFile(s.dir), append(b, '\n'))
}

func (s *supervisor) process(name string) (Process, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.ports.Workers[name]
	return p, ok
}

// scrape reads a worker's metrics over and over, as Prometheus would: stamped with the time at which a scrape began.
func (s *supervisor) scrape(ctx context.Context, name string) {
	target := &recorded.Target{Labels: map[string]string{"job": "worker", "instance": name}, HonorLabels: true}
	tick := time.NewTicker(scrapeInterval)
	defer tick.Stop()
	for {
		if p, _ := s.process(name); p.URL != "" {
			target.URL = p.URL + "/metrics"
		}
		if target.URL != "" {
			scrapeCtx, cancel := context.WithTimeout(ctx, scrapeTimeout)
			_ = s.db.Scrape(scrapeCtx, target, time.Now()) // up=0 says it
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// handler is the Prometheus API over what was scraped, and each worker's own page at an address that a restart does not
// change. A Prometheus that scrapes those should set honor_labels.
func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.db.Handler())
	mux.HandleFunc("GET /worker/{name}/metrics", func(w http.ResponseWriter, r *http.Request) {
		p, known := s.process(r.PathValue("name"))
		to, err := url.Parse(p.URL + "/metrics")
		switch {
		case !known:
			http.NotFound(w, r)
		case p.URL == "" || err != nil:
			http.Error(w, "the worker is not running", http.StatusBadGateway)
		default:
			proxy := &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) { pr.Out.URL = to }}
			proxy.ServeHTTP(w, r)
		}
	})
	return mux
}

// lockedWriter lets several processes write lines to one place.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
