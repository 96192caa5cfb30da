//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/cmd/runbook/demo"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
)

// The bounds of what is waited for, and how often it is looked at.
const (
	aWhile = 60 * time.Second
	poll   = 20 * time.Millisecond
)

// stuck is the worker that is made to get stuck.
const stuck = "w2"

// condition is that w2 has been stuck for so long that a run sees it at each second of the last two: longer than any
// runbook here asks for.
const condition = `min_over_time(queue_depth{instance="w2"}[4s]) > 100 and on(instance) rate(jobs_done_total{instance="w2"}[4s]) == 0`

// lab is the demo's service, supervised, with three workers, and a Prometheus that scrapes them.
type lab struct {
	t          *testing.T
	dir        string
	service    string // directory of the service
	prometheus string // address of its API
	// alertmanagers are the addresses to which it sends alerts.
	alertmanagers []string
}

const prometheusConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
%[3]s
scrape_configs:
  - job_name: worker
    honor_labels: true
    static_configs:
      - {targets: [%[2]q], labels: {instance: w1, __metrics_path__: /worker/w1/metrics}}
      - {targets: [%[2]q], labels: {instance: w2, __metrics_path__: /worker/w2/metrics}}
      - {targets: [%[2]q], labels: {instance: w3, __metrics_path__: /worker/w3/metrics}}
`

const prometheusRules = `
groups:
  - name: worker
    rules:
      - alert: WorkerQueueStuck
        expr: queue_depth{job="worker"} > 100
        for: 2s
        labels: {severity: warning}
`

// newLab starts both, and returns when Prometheus has seen three workers at work.
func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabThatAlerts(t, 0)
}

// newLabThatAlerts has so many Alertmanagers besides, which do not know of each other.
func newLabThatAlerts(t *testing.T, alertmanagers int) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	for i := range alertmanagers {
		l.startAlertmanager(i)
	}
	l.service = filepath.Join(l.dir, "service")
	up := l.start(binary, demo.ServiceCommand, "supervise", "--dir", l.service, "--lifeline")
	ready := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(up).ReadString('\n')
		ready <- err
	}()
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("the service did not start: %v", err)
		}
	case <-time.After(aWhile):
		t.Fatalf("the service did not start within %s", aWhile)
	}
	l.startPrometheus()
	l.wait("three workers at work", func() (bool, string, error) {
		up, err := l.query(`up{job="worker"} == 1 and on(instance) rate(jobs_done_total[5s]) > 0 and on(instance) queue_depth <= 100`)
		return len(up) == 3, fmt.Sprint(up), err
	})
	return l
}

// start starts a process that ends with the test, whichever way that ends.
func (l *lab) start(name string, args ...string) *os.File {
	l.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	said := &output{}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.dir, w, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lifeline, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	_ = w.Close()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = lifeline.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // we ended it
		kill.Stop()
		_ = r.Close()
		if l.t.Failed() {
			l.t.Logf("%s said:\n%s", filepath.Base(name), said)
		}
	})
	return r
}

// output keeps what a process says while it runs.
type output = sdktest.Output

// startPrometheus starts one that scrapes the workers and sends alerts to the Alertmanagers.
func (l *lab) startPrometheus() {
	l.t.Helper()
	ports, err := demo.ReadPorts(l.service)
	if err != nil {
		l.t.Fatal(err)
	}
	api, err := url.Parse(ports.API)
	if err != nil {
		l.t.Fatal(err)
	}
	rules := filepath.Join(l.dir, "rules.yml")
	write(l.t, rules, prometheusRules)
	alerting := ""
	for _, a := range l.alertmanagers {
		alerting += fmt.Sprintf("    - {static_configs: [{targets: [%q]}]}\n", strings.TrimPrefix(a, "http://"))
	}
	if alerting != "" {
		alerting = "alerting:\n  alertmanagers:\n" + alerting
	}
	l.servePrometheus(fmt.Sprintf(prometheusConfig, rules, api.Host, alerting))
}

// servePrometheus starts the real one, with its own data, on a port that is free.
func (l *lab) servePrometheus(settings string) {
	l.t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		l.t.Fatalf("these tests need a Prometheus, which .ci/run installs: %v", err)
	}
	config := filepath.Join(l.dir, "prometheus.yml")
	write(l.t, config, settings)
	address := l.free()
	l.prometheus = "http://" + address
	l.start(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(l.dir, "tsdb"), "--web.listen-address="+address, "--log.level=warn")
	l.wait("Prometheus to be ready", func() (bool, string, error) {
		resp, err := http.Get(l.prometheus + "/-/ready") //nolint:noctx // polled, and bounded by wait
		if err != nil {
			return false, "", err
		}
		return resp.StatusCode == http.StatusOK, resp.Status, resp.Body.Close()
	})
}

// free is an address that nobody listens on. These servers cannot be told to choose a port and say which; whoever takes this one in between makes
// them end, which is seen.
func (l *lab) free() string {
	l.t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	defer free.Close()
	return free.Addr().String()
}

const alertmanagerConfig = "route: {receiver: nobody, group_wait: 0s, group_interval: 1s}\nreceivers: [{name: nobody}]\n"

// startAlertmanager starts a real one that stands alone.
func (l *lab) startAlertmanager(i int) {
	l.t.Helper()
	var program string
	var err error
	for _, name := range []string{"prometheus-alertmanager", "alertmanager"} { // Debian's name, and its own
		if program, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if err != nil {
		l.t.Fatalf("this test needs an Alertmanager, which .ci/run installs: %v", err)
	}
	config := filepath.Join(l.dir, fmt.Sprintf("alertmanager%d.yml", i))
	write(l.t, config, alertmanagerConfig)
	address := l.free()
	l.alertmanagers = append(l.alertmanagers, "http://"+address)
	l.start(program, "--config.file="+config, "--storage.path="+filepath.Join(l.dir, fmt.Sprintf("alertmanager%d", i)), "--web.listen-address="+address, "--cluster.listen-address=", "--log.level=warn")
	l.wait("Alertmanager to be ready", func() (bool, string, error) {
		resp, err := http.Get("http://" + address + "/-/ready") //nolint:noctx // polled, and bounded by wait
		if err != nil {
			return false, "", err
		}
		return resp.StatusCode == http.StatusOK, resp.Status, resp.Body.Close()
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wait polls until done says so.
func (l *lab) wait(what string, done func() (ok bool, seen string, err error)) {
	waitFor(l.t, what, done)
}

func waitFor(t *testing.T, what string, done func() (ok bool, seen string, err error)) {
	t.Helper()
	waitAtMost(t, aWhile, what, done)
}

func waitAtMost(t *testing.T, bound time.Duration, what string, done func() (ok bool, seen string, err error)) {
	t.Helper()
	for deadline := time.Now().Add(bound); ; <-time.After(poll) {
		ok, seen, err := done()
		if ok && err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s; %s %v", bound, what, seen, err)
		}
	}
}

// get asks Prometheus' API.
func (l *lab) get(path string, data any) error {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.prometheus+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// query returns the values of a vector by instance.
func (l *lab) query(expr string) (map[string]float64, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := l.get("/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for _, s := range data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		out[s.Metric["instance"]] = v
	}
	return out, nil
}

// stick makes w2 get stuck, and returns when Prometheus' own alert fires and the condition has held.
func (l *lab) stick() {
	l.t.Helper()
	if out, err := exec.CommandContext(l.t.Context(), binary, demo.ServiceCommand, "stick", "--dir", l.service, stuck).CombinedOutput(); err != nil {
		l.t.Fatalf("stick: %v\n%s", err, out)
	}
	l.wait("the alert to fire", func() (bool, string, error) {
		var data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
		err := l.get("/api/v1/alerts", &data)
		for _, a := range data.Alerts {
			if a.State == "firing" && a.Labels["alertname"] == "WorkerQueueStuck" && a.Labels["instance"] == stuck {
				return true, "", err
			}
		}
		return false, fmt.Sprint(data.Alerts), err
	})
	l.wait("the condition to hold", func() (bool, string, error) {
		v, err := l.query(condition)
		return len(v) == 1, fmt.Sprint(v), err
	})
}

// facts are what is known of the workers without runbook and without Prometheus.
type facts struct {
	pids   map[string]int
	starts map[string]float64
}

func (l *lab) facts() facts {
	l.t.Helper()
	f := facts{pids: map[string]int{}, starts: map[string]float64{}}
	ports, err := demo.ReadPorts(l.service)
	if err != nil {
		l.t.Fatal(err)
	}
	for name, w := range ports.Workers {
		f.pids[name] = w.PID
		resp, err := http.Get(w.URL + "/metrics") //nolint:noctx // of this machine
		if err != nil {
			l.t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "demo_worker_starts_total{"); ok {
				_, text, _ = strings.Cut(text, "} ")
				if f.starts[name], err = strconv.ParseFloat(text, 64); err != nil {
					l.t.Fatal(err)
				}
			}
		}
		if err := errors.Join(lines.Err(), resp.Body.Close()); err != nil || f.starts[name] == 0 {
			l.t.Fatalf("%s: %v starts, %v", name, f.starts[name], err)
		}
	}
	return f
}
