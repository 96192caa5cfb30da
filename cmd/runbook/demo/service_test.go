//go:build unix

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// deadline bounds every wait of these tests; a wait that works takes a fraction of it.
const deadline = 20 * time.Second

// eventually polls until ok returns "", which otherwise says what is missing.
func eventually(t *testing.T, ok func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		missing := ok()
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s: %s", deadline, missing)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func alive(pid int) bool { return pid != 0 && syscall.Kill(pid, 0) == nil }

// service is a running supervisor.
type service struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	in  io.Closer // the life-line
	api promapi.API
}

func start(t *testing.T, args ...string) *service {
	t.Helper()
	s := &service{t: t, dir: filepath.Join(t.TempDir(), "service")}
	s.cmd = exec.Command(os.Args[0], append([]string{ServiceCommand, "supervise", "--dir", s.dir, "--lifeline"}, args...)...)
	var stderr bytes.Buffer
	s.cmd.Stderr = &stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.in.Close()
		_ = s.cmd.Wait() // how it ends is the test's business
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	line := make([]byte, 200)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatalf("the service did not say where it is: %v\n%s", err, stderr.String())
	}
	address := strings.TrimSpace(string(line[:n]))
	if ports := s.ports(); ports.API != address || ports.Supervisor != s.cmd.Process.Pid {
		t.Fatalf("said %q, wrote %+v", address, ports)
	}
	client, err := api.NewClient(api.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	s.api = promapi.NewAPI(client)
	return s
}

func (s *service) ports() Ports {
	s.t.Helper()
	p, err := ReadPorts(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// run runs one command of the service as a process.
func (s *service) run(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), os.Args[0], append([]string{ServiceCommand}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// ask returns the value of each instance.
func (s *service) ask(expr string) map[string]float64 {
	s.t.Helper()
	v, _, _, err := s.api.Query(s.t.Context(), expr, time.Time{})
	if err != nil {
		s.t.Fatal(err)
	}
	got := map[string]float64{}
	for _, sample := range v.(model.Vector) {
		got[string(sample.Metric["instance"])] = float64(sample.Value)
	}
	return got
}

func TestServiceGetsStuckAndIsRestarted(t *testing.T) {
	t.Parallel()
	s := start(t)
	eventually(t, func() string {
		if up := s.ask(`up{job="worker"} == 1`); len(up) != 3 {
			return fmt.Sprint("not all workers are up: ", up)
		}
		if done := s.ask(`jobs_done_total{job="worker"} > 10`); len(done) != 3 {
			return fmt.Sprint("not all workers work: ", done)
		}
		return ""
	})
	if deep := s.ask(`queue_depth{job="worker"} > 50`); len(deep) != 0 {
		t.Errorf("a healthy queue is deep: %v", deep)
	}
	starts := s.ask(`demo_worker_starts_total`)
	if starts["w1"] != 1 || starts["w2"] != 1 || starts["w3"] != 1 {
		t.Errorf("starts: %v", starts)
	}

	old := s.ports().Workers["w2"].PID
	if code, _, stderr := s.run("stick", "--dir", s.dir, "w2"); code != 0 {
		t.Fatal(stderr)
	}
	eventually(t, func() string {
		if deep := s.ask(`queue_depth{job="worker"} > 100`); len(deep) != 1 || deep["w2"] == 0 {
			return fmt.Sprint("only w2 should be stuck: ", deep)
		}
		return ""
	})
	first := s.ask(`jobs_done_total{instance="w2"}`)
	depth := s.ask(`queue_depth{instance="w2"}`)
	eventually(t, func() string {
		if now := s.ask(`queue_depth{instance="w2"}`); now["w2"] < depth["w2"]+50 {
			return fmt.Sprint("the queue does not grow: ", depth, now)
		}
		return ""
	})
	if now := s.ask(`jobs_done_total{instance="w2"}`); now["w2"] != first["w2"] {
		t.Errorf("a stuck worker did jobs: %v, then %v", first, now)
	}
	if !healthy(t.Context(), s.ports().Workers["w2"]) {
		t.Error("a stuck worker should look healthy to a health check")
	}

	code, stdout, stderr := s.run("restart", "--dir", s.dir, "w2")
	now := s.ports().Workers["w2"].PID
	if code != 0 || stdout != fmt.Sprintf("restarted w2: pid %d -> %d\n", old, now) || now == old {
		t.Fatalf("code %d, stdout %q, stderr %q; old %d, now %d", code, stdout, stderr, old, now)
	}
	if alive(old) {
		t.Error("the old process is alive")
	}
	if pid, err := os.ReadFile(pidFile(s.dir, "w2")); err != nil || string(pid) != strconv.Itoa(now)+"\n" {
		t.Errorf("pid file: %q, %v", pid, err)
	}
	eventually(t, func() string {
		if starts := s.ask(`demo_worker_starts_total == 2`); len(starts) != 1 || starts["w2"] != 2 {
			return fmt.Sprint("starts: ", starts)
		}
		if deep := s.ask(`queue_depth < 50`); len(deep) != 3 {
			return fmt.Sprint("not all queues are short: ", deep)
		}
		if began := s.ask(`process_start_time_seconds{instance="w2"} > scalar(process_start_time_seconds{instance="w1"})`); len(began) != 1 {
			return "w2 does not seem younger than w1"
		}
		return ""
	})
}

func TestSupervisorRestartsWhatExits(t *testing.T) {
	t.Parallel()
	s := start(t, "--workers", "a")
	old := s.ports().Workers["a"].PID
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var now Process
	eventually(t, func() string {
		if now = s.ports().Workers["a"]; now.PID == old || now.PID == 0 {
			return fmt.Sprintf("no new process: %+v", now)
		}
		return ""
	})
	eventually(t, func() string {
		if !healthy(t.Context(), now) {
			return "the new process is not healthy"
		}
		return ""
	})
}

// A worker that does not run is seen: up is 0, its other series have ended.
func TestDownIsSeen(t *testing.T) {
	t.Parallel()
	s := start(t, "--workers", "a")
	eventually(t, func() string {
		if up := s.ask(`up == 1`); len(up) != 1 {
			return "a is not up"
		}
		return ""
	})
	pid := s.ports().Workers["a"].PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if up, depth := s.ask(`up == 0`), s.ask(`queue_depth`); len(up) != 1 || len(depth) != 0 {
			return fmt.Sprint("up: ", up, ", queue_depth: ", depth)
		}
		return ""
	})
	// A stopped process does not even get SIGTERM: restart says so instead of waiting for ever.
	code, _, stderr := s.run("restart", "--dir", s.dir, "a")
	if code != exitFailed || !strings.Contains(stderr, "still runs as pid "+strconv.Itoa(pid)) {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*service){
		"life-line": func(s *service) { _ = s.in.Close() },
		"SIGTERM":   func(s *service) { _ = s.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGINT":    func(s *service) { _ = s.cmd.Process.Signal(os.Interrupt) },
		"SIGKILL":   func(s *service) { _ = s.cmd.Process.Kill() },
		"SIGKILL with a stopped worker": func(s *service) {
			_ = syscall.Kill(s.ports().Workers["w1"].PID, syscall.SIGSTOP)
			_ = s.cmd.Process.Kill()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			ports := s.ports()
			end(s)
			_ = s.cmd.Wait() // checked below by what is alive
			if code := s.cmd.ProcessState.ExitCode(); !strings.HasPrefix(name, "SIGKILL") && code != 0 {
				t.Errorf("exit code %d", code)
			}
			eventually(t, func() string {
				for name, w := range ports.Workers {
					if alive(w.PID) {
						return fmt.Sprintf("%s (pid %d) is alive", name, w.PID)
					}
				}
				return ""
			})
		})
	}
}

// A Prometheus may scrape the workers at addresses that stay.
func TestPassThrough(t *testing.T) {
	t.Parallel()
	s := start(t, "--workers", "a")
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ports().API+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := get("/worker/a/metrics"); code != 200 || !strings.Contains(body, `queue_depth{instance="a"} `) {
		t.Errorf("code %d\n%s", code, body)
	}
	for path, want := range map[string]int{"/worker/b/metrics": 404, "/worker/a/stick": 404, "/-/ready": 200} {
		if code, _ := get(path); code != want {
			t.Errorf("%s: code %d, want %d", path, code, want)
		}
	}
}

func TestStickAfter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], ServiceCommand, "work", "--dir", dir, "--name", "w", "--stick-after", "50ms")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line := make([]byte, 200)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line[:n]), `"url":"`)
	address, _, _ := strings.Cut(rest, `"`)
	eventually(t, func() string {
		resp, err := http.Get(address + "/metrics")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		_, rest, _ := strings.Cut(string(b), `queue_depth{instance="w"} `)
		depth, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.Atoi(depth); err != nil || n < 100 {
			return "the queue is " + depth + " deep"
		}
		return ""
	})
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := replaceFile(portsFile(dir), []byte(`{"workers":{"w1":{"pid":0}}}`)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", 2, "unknown command"},
		{"nosuch", 2, "unknown command"},
		{"restart", 2, `want the arguments ["NAME"]`},
		{"restart --dir DIR w1 w2", 2, `want the arguments ["NAME"]`},
		{"restart --dir DIR ../w1", 2, `no worker "../w1"`},
		{"restart --nosuch", 2, "nosuch"},
		{"restart --dir DIR/nosuch w1", 1, "no such file"},
		{"restart --help", 0, "usage: runbook __demo-service restart [flags] NAME"},
		{"stick --dir DIR w1", 1, "not running"},
		{"work --dir DIR --name ../x", 2, "name"},
		{"work --dir DIR --name x --rate -1", 2, "rate"},
		{"supervise", 2, "--dir"},
		{"supervise --dir DIR --workers a,a", 2, "twice"},
		{"supervise --dir DIR --workers a,,b", 2, "not a name"},
	} {
		var out, errs bytes.Buffer
		code := ServiceMain(strings.Fields(strings.ReplaceAll(c.args, "DIR", dir)), &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
			t.Errorf("%s: code %d, stdout %q, stderr %q; want %d, %q", c.args, code, out.String(), errs.String(), c.code, c.says)
		}
	}
}
