package heartbeat

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "runbook.prom")
	start := time.Unix(1000, 0)
	r := &trace.Run{
		Started: start, Ended: start.Add(1500 * time.Millisecond), Exit: problem.ExitRefused,
		InDoubt: []trace.Doubt{{Step: "x"}},
		Runbooks: []*trace.Runbook{
			{Name: "a", Due: true, Targets: []*trace.Target{{Condition: trace.Sick}, {Condition: trace.Healthy}}},
			{Name: "b", Problem: problem.New(problem.Syntax, "no")},
		},
	}
	for range 2 { // the second time replaces the file
		if err := Write(path, r, ledger.Totals{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"runbook_last_run_completed_timestamp_seconds 1001.5\n", "runbook_last_run_exit_code 4\n", "runbook_actions_in_doubt 1\n",
		"runbook_last_run_runbooks_evaluated 1\n", "runbook_last_run_runbook_failures 1\n", "runbook_last_run_targets_sick 1\n", "runbook_halted 0\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".heartbeat-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWriteToNowhere(t *testing.T) {
	t.Parallel()
	err := Write(filepath.Join(t.TempDir(), "absent", "x.prom"), &trace.Run{}, ledger.Totals{})
	if err == nil || !strings.Contains(err.Error(), "write the heartbeat") {
		t.Fatalf("got %v", err)
	}
}

func TestPingKeepsTheSecret(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			http.Error(w, "no", http.StatusTeapot)
		}
	}))
	defer s.Close()
	if err := Ping(context.Background(), s.URL+"/good"); err != nil {
		t.Fatal(err)
	}
	err := Ping(context.Background(), s.URL+"/s3cret")
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "418") {
		t.Fatalf("got %v", err)
	}
	s.Close()
	if err := Ping(context.Background(), s.URL+"/s3cret"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("got %v", err)
	}
}
