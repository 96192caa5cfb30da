package heartbeat

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/memory"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// busy is a run in which everything that is counted happened.
func busy() *trace.Run {
	start := time.Unix(1000, 0)
	evaluated := func(as trace.Outcome, actions ...*trace.Action) *trace.Target {
		ev := &trace.Evaluation{Outcome: as}
		for _, a := range actions {
			ev.Events = append(ev.Events, trace.Event{Action: a})
		}
		return &trace.Target{Condition: trace.Sick, Evaluation: ev}
	}
	refused := []guard.Verdict{{Guard: "rate"}, {Guard: "cooldown", Passed: true}, {Guard: "window", Skipped: true}}
	return &trace.Run{
		Started: start, Ended: start.Add(1500 * time.Millisecond), Exit: problem.ExitRefused, Breaker: "half-open: one attempt at a time",
		Runbooks: []*trace.Runbook{
			{Name: "worker", Due: true, Targets: []*trace.Target{
				evaluated(trace.Acted, &trace.Action{Action: "exec.run", State: action.Succeeded}, &trace.Action{Action: "exec.run", State: action.Succeeded}),
				evaluated(trace.Refused, &trace.Action{Action: "exec.run", Verdicts: refused, Refused: true}),
				{Condition: trace.Healthy},
			}},
			{Name: "broken", Problem: problem.New(problem.Syntax, "no")},
		},
		Cleanups: []*trace.Cleanup{{Runbook: "worker", Evaluation: &trace.Evaluation{Outcome: trace.Nothing}}},
	}
}

// counted is the text after n such runs.
func counted(t *testing.T, n int) string {
	t.Helper()
	st := memory.New()
	var totals ledger.Totals
	for range n {
		err := st.Update(t.Context(), []string{ledger.KeyTotals}, func(tx store.Tx) (err error) {
			totals, err = ledger.CountRun(tx, busy())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := render(busy(), totals)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Counters go on from run to run, though no process lives for more than one.
func TestCounters(t *testing.T) {
	t.Parallel()
	got := counted(t, 3)
	for _, want := range []string{
		`runbook_runs_total{exit="4"} 3`, `runbook_run_seconds_total 4.5`, `runbook_runbook_failures_total{runbook="broken"} 3`,
		`runbook_decisions_total{outcome="acted",runbook="worker"} 3`, `runbook_decisions_total{outcome="refused",runbook="worker"} 3`,
		`runbook_decisions_total{outcome="nothing",runbook="worker"} 3`, `runbook_refusals_total{guard="rate",runbook="worker"} 3`,
		`runbook_actions_total{action="exec.run",runbook="worker",state="succeeded"} 6`,
		`runbook_breaker_state{state="closed"} 0`, `runbook_breaker_state{state="half-open"} 1`, `runbook_breaker_state{state="open"} 0`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	for _, not := range []string{`guard="cooldown"`, `guard="window"`} {
		if strings.Contains(got, not) {
			t.Errorf("%s did not refuse", not)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(got))); err != nil {
		t.Errorf("Prometheus cannot read it: %v", err)
	}
}

// Every metric that the alert rules ask for is one that is written, and docs/monitoring.md has all of them.
func TestRulesAskForWhatIsThere(t *testing.T) {
	t.Parallel()
	docs := filepath.Join("..", "..", "docs")
	rules, err := os.ReadFile(filepath.Join(docs, "monitoring", "runbook.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(counted(t, 1), -1) {
		written = append(written, m[1])
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/monitoring.md does not have %s", m[1])
		}
	}
	asked := regexp.MustCompile(`\brunbook_\w+`).FindAllString(string(rules), -1)
	for _, name := range asked {
		if !slices.Contains(written, name) {
			t.Errorf("a rule asks for %s, which is not written", name)
		}
	}
	if len(asked) < 5 || len(written) < 10 {
		t.Errorf("%q, %q", asked, written)
	}
}
