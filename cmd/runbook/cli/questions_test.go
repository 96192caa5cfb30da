package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// incident is a project in which w3 got stuck while everything was halted, was restarted once the halt was lifted, and recovered.
type incident struct {
	dir string
	// names are what the page calls what has another name each time: the run that was refused, the one that acted, its action, and moments.
	names *strings.Replacer
	shown *strings.Replacer // the other way round, for commands
}

const incidentRunbook = `runbook(
    owner = "team-payments",
    trigger = every("1s"),
    severity = "warning",
    mode = "auto",
    targets = fleet(all = 'up{job="worker"}', sick = 'queue_depth{job="worker"} > $limit', by = "instance", held = "2s"),
    params = {"limit": param.int(1000, doc = "jobs that wait, above which a worker is stuck")},
)

def run(ctx):
    up = ctx.metrics.value('count(up{job="worker"} == 1)')
    if up < 2:
        return escalate("only %d workers are up" % up)
    ctx.exec.run("restart-worker", reason = "its queue is stuck", within = "8s")
`

func newIncident(t *testing.T) *incident {
	t.Helper()
	in := &incident{dir: t.TempDir()}
	acted := filepath.Join(in.dir, "acted")
	write(t, filepath.Join(in.dir, "worker.star"), incidentRunbook)
	write(t, filepath.Join(in.dir, "project.star"), fmt.Sprintf(`project(
    metrics = connection("prometheus", config = {"url": %q}),
    sampling = "1s",
    policy = policy(tested = False, mode = "auto", settle = "1ms"),
    connections = [connection("exec", match = {"job": "worker"}, config = {"commands": {"restart-worker": ["/bin/sh", "-c", "echo pid 4711 >> %s; echo restarted"]}})],
)`, recovers(t, acted), acted))
	t.Cleanup(func() { removeGates(in.dir) })
	runbook(t, in.dir, 0, "init", "--state", filepath.Join(in.dir, "state"))
	id := func(out string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^run (\S+)$`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no run in:\n%s", out)
		}
		return m[1]
	}
	runbook(t, in.dir, 0, "halt", "--reason", "payments incident", "--state", filepath.Join(in.dir, "state"))
	refused := id(runbook(t, in.dir, 4, "run"))
	runbook(t, in.dir, 0, "resume", "--reason", "payments are back")
	until := func(what string) string {
		t.Helper()
		out := ""
		for deadline := time.Now().Add(time.Minute); !strings.Contains(out, what); out = runbook(t, in.dir, 0, "run") {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in:\n%s", what, out)
			}
			time.Sleep(200 * time.Millisecond) //nolint:forbidigo // a poll
		}
		return out
	}
	out := until("(action ")
	does, action := id(out), regexp.MustCompile(`\(action (\S+)\)`).FindStringSubmatch(out)
	until("(worker): verified")
	at := func(run string) string { // of a run that is named 20260301-102000.123-...
		began, err := time.Parse("20060102-150405.000", run[:19])
		if err != nil {
			t.Fatal(err)
		}
		return began.Format("2006-01-02T15:04:05.000Z")
	}
	in.names = strings.NewReplacer(refused, "20260301-100500.000-HALTED", does, "20260301-102000.000-K3VQ7A", action[1], "or5kzv5nyj", in.dir, "/etc/runbook", at(refused), "2026-03-01T10:05:00Z", at(does), "2026-03-01T10:20:00Z")
	in.shown = strings.NewReplacer("20260301-100500.000-HALTED", refused, "20260301-102000.000-K3VQ7A", does, "or5kzv5nyj", action[1], "2026-03-01T10:05:00Z", at(refused), "2026-03-01T10:20:00Z", at(does))
	return in
}

// recovers serves the metrics of three workers; w3 is stuck until the file is there.
func recovers(t *testing.T, file string) string {
	t.Helper()
	db := recorded.New(recorded.Options{Now: time.Now})
	api := db.Handler()
	var lock sync.Mutex
	next := time.Now().Add(-time.Minute)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		stuck := 2210.0
		if _, err := os.Stat(file); err == nil {
			stuck = 4
		}
		for ; !next.After(time.Now()); next = next.Add(250 * time.Millisecond) {
			for i, depth := range []float64{3, 12, stuck} {
				for name, v := range map[string]float64{"up": 1, "queue_depth": depth} {
					if err := db.Append(map[string]string{"__name__": name, "job": "worker", "instance": fmt.Sprintf("w%d", i+1)}, next, v); err != nil {
						t.Error(err)
					}
				}
			}
		}
		lock.Unlock()
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// same are parts of outputs that differ each time, and what the page has instead.
var same = []struct{ pattern, shown string }{
	{`\b\d{8}-\d{6}\.\d{3}-[A-Z0-9]{6}\b`, "20260301-102500.000-M2WZ4T"},
	{`\b\d{8}-\d{6}-[A-Z0-9]{6}\b`, "20260301-101500-QK7D3M"},
	{`\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d)`, "2026-03-01 $1"},
	{`\d\d:\d\d:\d\d(\.\d+)?`, "10:20:00"},
	{`(?m) \(took [0-9.]+m?s\)$`, ""}, // said of queries that were slow
	{`\b(took|after|took up to) [0-9.]+m?s\b`, "$1 400ms"},
	{`\S+@\S+\([^)]*\)`, "ann@ops1(pts/0)"},
	{`\bmeasured [0-9.]+m?s ago\b`, "measured 150ms ago"},
	{`\((now|[0-9a-z]+ ago)\) *`, "(5m0s ago)  "},
	{`\bWHEN +`, "WHEN                                   "},
	{`\bSTARTED +`, "STARTED                                "},
	{`\b(attempt +)[a-z0-9]{10}\b`, "${1}h3vq7akd2m"},
	{`\b(key|nonce)( +)[a-z0-9]+`, "${1}${2}or5kzv5nyj..."},
	{`on \S+ \(process \d+\)`, "on ops1 (process 4711)"},
	{`\b(namespace|settings) [a-z0-9]+`, "$1 k3v9qx..."},
	{`\bin \d+ runs\b`, "in 12 runs"},
	{`(?m)^\d+ +(\d{4}-)`, "7      $1"},                  // an entry
	{`(instance="w\d", job="worker"\} )6\d\b`, "${1}61"}, // seconds since it was first seen
	{`\d{4}-\d\d-\d\dT`, "2026-03-01T"},
}

// TestQuestions runs the commands of docs/questions.md after an incident, and compares what they print with what the page says.
func TestQuestions(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "..", "docs", "questions.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	in := newIncident(t)
	asked := 0
	got := regexp.MustCompile("(?ms)^```console\n\\$ runbook .*?^```$").ReplaceAllStringFunc(string(text), func(block string) string {
		asked++
		command, _, _ := strings.Cut(strings.TrimPrefix(block, "```console\n"), "\n")
		args := strings.Fields(strings.TrimPrefix(in.shown.Replace(command), "$ runbook "))
		exit := 0
		if args[0] == "why-not" {
			exit = -1
		}
		out := in.names.Replace(runbook(t, in.dir, exit, args...))
		for _, v := range same {
			out = regexp.MustCompile(v.pattern).ReplaceAllStringFunc(out, func(s string) string {
				if strings.HasPrefix(s, "20260301-") {
					return s
				}
				return regexp.MustCompile(v.pattern).ReplaceAllString(s, v.shown)
			})
		}
		return "```console\n" + command + "\n" + out + "```"
	})
	if asked < 10 {
		t.Fatalf("%d questions", asked)
	}
	if *rewrite {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(text), got); d != "" {
		t.Errorf("docs/questions.md shows something else (go test ./cmd/runbook/cli -run TestQuestions -rewrite writes it):\n%s", d)
	}
}
