//go:build e2e

package recorded

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const generatedRules = `groups:
- name: recorded
  rules:
  - record: job:depth:sum
    expr: sum by (job) (depth)
    labels: {kind: "sum"}
- name: alerts
  rules:
  - alert: Stuck
    expr: depth > 5
    for: %s
    labels: {severity: warning, what: "{{ $labels.job }} {{ $value | humanize }}"}
    annotations: {text: "{{ $labels.instance }} has {{ $value }}"}
  - alert: Wide
    expr: job:depth:sum > 12
    keep_firing_for: %s
  - alert: Gone
    expr: absent(depth{instance="w1"})
    for: 1m
  - alert: Several
    expr: count(ALERTS{alertname="Stuck", alertstate="firing"}) >= 2
`

// For generated series and rules the real promtool expects exactly the alerts that fire here, and nothing else.
func TestE2EPromtoolAgrees(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 5 {
		dir := t.TempDir()
		rules := fmt.Sprintf(generatedRules, []string{"0s", "1m", "3m", "10m"}[rnd.IntN(4)], []string{"1m", "2m", "7m"}[rnd.IntN(3)])
		if err := os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		series := generatedSeries(rnd)
		text, firing := expectations(t, dir, rules, series)
		if firing == 0 {
			t.Fatal("nothing fires in the generated case")
		}
		verdict := func(name, text string, want bool) {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput()
			if (err == nil) != want {
				t.Errorf("promtool: %v, want success %v\n%s\n%s\n%s", err, want, out, rules, text)
			}
			failures, err := runUnitTests(t, file, nil, true)
			if err != nil || (len(failures) == 0) != want {
				t.Errorf("ours: %v, %v, want success %v\n%s", failures, err, want, text)
			}
		}
		verdict("agree.yml", text, true)
		verdict("differ.yml", strings.Replace(text, "has ", "had ", 1), !strings.Contains(text, "has "))
	}
}

// generatedSeries are three instances with breaks, ends and jumps, one of them now and then written twice. No break is as long as the lookback, whose end belongs to it in
// Prometheus 2, which may be the one that is installed, and not in 3.
func generatedSeries(rnd *rand.Rand) string {
	var b strings.Builder
	if rnd.IntN(2) == 0 { // written again below, which counts
		b.WriteString("  - series: 'depth{job=\"worker\", instance=\"w2\"}'\n    values: '9x40'\n")
	}
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&b, "  - series: 'depth{instance=\"w%d\", job=\"worker\"}'\n    values: '", i)
		for range 12 {
			switch rnd.IntN(8) {
			case 0:
				b.WriteString("_ 3 ")
			case 1:
				b.WriteString("stale ")
			case 2:
				b.WriteString("NaN ")
			default:
				fmt.Fprintf(&b, "%dx%d ", rnd.IntN(10), rnd.IntN(4))
			}
		}
		b.WriteString("8x30'\n")
	}
	return b.String()
}

// expectations is a unit test file that expects at each minute what fires here, and how many alerts that are.
func expectations(t *testing.T, dir, rules, series string) (string, int) {
	t.Helper()
	head := "rule_files: [rules.yml]\nevaluation_interval: 1m\ngroup_eval_order: [recorded, alerts]\ntests:\n- interval: 1m\n  input_series:\n" + series
	u, err := ParseUnitTests(filepath.Join(dir, "x.yml"), []byte(head))
	if err != nil {
		t.Fatal(err)
	}
	db, err := u.Groups[0].Load()
	if err != nil {
		t.Fatal(err)
	}
	r, err := db.LoadRules([]RuleFile{{Name: "rules.yml", Text: []byte(rules)}}, RuleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(head + "  alert_rule_test:\n")
	firing := 0
	for minute := range 30 {
		if err := r.Eval(t.Context(), time.Unix(int64(minute)*60, 0)); err != nil {
			t.Fatal(err)
		}
		for _, name := range r.Alerts() {
			fmt.Fprintf(&b, "  - eval_time: %dm\n    alertname: %s\n    exp_alerts:\n", minute, name)
			for _, a := range r.Firing(name) {
				firing++
				fmt.Fprintf(&b, "    - exp_labels: %s\n      exp_annotations: %s\n", yamlMap(a.Labels), yamlMap(a.Annotations))
			}
		}
	}
	return b.String(), firing
}

func yamlMap(m map[string]string) string {
	var parts []string
	for k, v := range m {
		if k != "alertname" {
			parts = append(parts, fmt.Sprintf("%s: %q", k, v))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// The rules that we ship pass their tests in the real promtool, too.
func TestE2EPromtoolShippedRules(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "docs", "monitoring", "runbook.rules.test.yml")
	if out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
