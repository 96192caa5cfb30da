package cli

import (
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/recorded"
)

var rewrite = flag.Bool("rewrite", false, "write what was seen into README.md")

// varying are the parts of an output that differ from one run to the next, and what the README shows in their place.
var varying = []struct{ pattern, shown string }{
	{`\d{8}-\d{6}(\.\d{3})?-[A-Z0-9]{6}`, "20260301-102000.000-K3VQ7A"},
	{`\(action [a-z0-9]{10}\)`, "(action or5kzv5nyj)"},
}

// TestReadme runs the README's runbook with the real program against a worker that is stuck, and compares what it prints
// with what the README says it prints.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme := filepath.Join("..", "..", "..", "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```python\n(.*?)```.*?```\n(\\$ runbook run\n.*?)```").FindSubmatch(text)
	test := regexp.MustCompile("(?s)```python\n(def test_.*?)```").FindSubmatch(text)
	if block == nil || test == nil {
		t.Fatal("the README has no runbook, no test of it, or no output")
	}
	if n := strings.Count(string(block[1]), "\n"); n > 22 {
		t.Errorf("the README's runbook has %d lines: it is to be read at a glance", n)
	}
	dir := t.TempDir()
	acted := filepath.Join(dir, "acted")
	write(t, filepath.Join(dir, "worker.star"), string(block[1]))
	write(t, filepath.Join(dir, "project.star"), fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": %q}),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {"restart-worker": ["/bin/sh", "-c", "echo $RUNBOOK_TARGET >> %s; echo restarted"]}})],
)`, stuckWorker(t), acted))
	t.Cleanup(func() { removeGates(dir) })
	runbook(t, dir, 0, "init", "--state", filepath.Join(dir, "state"))
	write(t, filepath.Join(dir, "worker_test.star"), string(test[1]))
	runbook(t, dir, 0, "test", "--attest")
	got := "$ runbook run\n" + runbook(t, dir, 0, "run")
	for _, v := range varying {
		got = regexp.MustCompile(v.pattern).ReplaceAllString(got, v.shown)
	}
	if *rewrite {
		if err := os.WriteFile(readme, []byte(strings.Replace(string(text), string(block[2]), got, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(block[2]), got); d != "" {
		t.Errorf("README.md shows something else (go test ./cmd/runbook/cli -run TestReadme -rewrite writes it):\n%s", d)
	}
	if b, err := os.ReadFile(acted); err != nil || string(b) != "w3\n" {
		t.Errorf("acted on %q, %v; want w3 once", b, err)
	}
}

// stuckWorker serves the metrics of three workers, of which w3 is stuck and its storage is fast.
func stuckWorker(t *testing.T) string {
	db := recorded.New(recorded.Options{})
	now := time.Now()
	for at := now.Add(-6 * time.Minute); at.Before(now.Add(time.Minute)); at = at.Add(15 * time.Second) {
		for i, depth := range []float64{3, 12, 2210} {
			labels := map[string]string{"job": "worker", "instance": fmt.Sprintf("w%d", i+1), "storage": "s1"}
			for name, v := range map[string]float64{"up": 1, "queue_depth": depth} {
				labels["__name__"] = name
				if err := db.Append(labels, at, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := db.Append(map[string]string{"__name__": "disk_write_latency_seconds", "instance": "s1"}, at, 0.004); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewServer(db.Handler())
	t.Cleanup(s.Close)
	return s.URL
}

// runbook runs this test binary as the program, in dir, and returns its stdout. An exit code of -1 is any.
func runbook(t *testing.T, dir string, exit int, args ...string) string {
	t.Helper()
	exe, err := exec.LookPath("runbook") // put there by testscript.Main
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Dir, cmd.Env = dir, append(cmd.Environ(), "TZ=UTC")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || exit >= 0 && cmd.ProcessState.ExitCode() != exit {
		t.Fatalf("runbook %s: %v, want exit %d\n%s%s", strings.Join(args, " "), err, exit, out.String(), errs.String())
	}
	return out.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The alert rules about runbook itself pass their tests.
func TestShippedAlertRules(t *testing.T) {
	t.Parallel()
	file, err := filepath.Abs(filepath.Join("..", "..", "..", "docs", "monitoring", "runbook.rules.test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if out := runbook(t, t.TempDir(), 0, "test", file); !strings.Contains(out, "5 passed, 0 failed") {
		t.Error(out)
	}
}
