package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A week at one minute.
const weekMinutes = 7 * 24 * 60

// promtool measures `runbook test` against `promtool test rules` on the same file: a week at one minute of 1,000 series, two recording and two alerting rules
// that the tests need. Before it is timed, each must find the one expectation that is wrong in another such file.
func promtool(ctx context.Context, exe, root string, rounds int, peers []string) error {
	if err := os.WriteFile(filepath.Join(root, "rules.yml"), []byte(weekRules), 0o600); err != nil {
		return err
	}
	right, wrong := filepath.Join(root, "right.yml"), filepath.Join(root, "wrong.yml")
	text := weekTests()
	if err := os.WriteFile(right, []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(wrong, []byte(strings.Replace(text, "value: 499", "value: 500", 1)), 0o600); err != nil {
		return err
	}
	type rival struct {
		name string
		argv []string
		took []time.Duration
		kib  int64 // the most memory that a run had
	}
	all := []*rival{{name: "`runbook test`", argv: []string{exe, "test"}}}
	for _, p := range peers {
		out, err := exec.CommandContext(ctx, p, "--version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s --version: %w", p, err)
		}
		version, _, _ := strings.Cut(strings.TrimPrefix(string(out), "promtool, version "), " ")
		all = append(all, &rival{name: "`promtool test rules` " + version, argv: []string{p, "test", "rules"}})
	}
	for round := range rounds + 1 {
		for _, r := range all {
			file := right
			if round == 0 {
				file = wrong
			}
			cmd := exec.CommandContext(ctx, r.argv[0], append(r.argv[1:], file)...)
			cmd.Dir = root
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			began := time.Now()
			err := cmd.Run()
			if (err == nil) != (round > 0) {
				return fmt.Errorf("%s %s exits with %d\n%s", r.name, filepath.Base(file), cmd.ProcessState.ExitCode(), out.String())
			}
			if round == 0 {
				continue
			}
			r.took = append(r.took, time.Since(began))
			r.kib = max(r.kib, memoryOf(cmd.ProcessState))
		}
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round, rounds)
	}
	fmt.Fprintln(os.Stderr)
	fmt.Printf("%s\n\n| command | median | memory at most | times as long as ours (goal: at least 10) |\n|---|---|---|---|\n", machine(root))
	for _, r := range all {
		fmt.Printf("| %s | %.1f s | %d MB | %.1f |\n", r.name, at(r.took, 50).Seconds(), r.kib>>10, float64(at(r.took, 50))/float64(at(all[0].took, 50)))
	}
	fmt.Printf("\n%d interleaved runs of each.\n", rounds)
	return nil
}

const weekRules = `groups:
- name: workers
  rules:
  - record: job:jobs_done:rate5m
    expr: sum by (job) (rate(jobs_done_total[5m]))
  - record: instance:queue_depth:avg10m
    expr: avg_over_time(queue_depth[10m])
  - alert: QueueStuck
    expr: instance:queue_depth:avg10m > 90 and on (instance) rate(jobs_done_total[5m]) == 0
    for: 10m
    annotations: {summary: "{{ $labels.instance }} has {{ $value }} jobs waiting"}
  - alert: NothingDone
    expr: job:jobs_done:rate5m == 0
`

// weekTests are 500 workers, of which one is stuck for two hundred minutes in the middle of the week.
func weekTests() string {
	const workers, stuck, stuckAt, stuckFor = 500, 7, 5000, 200
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n")
	for i := range workers {
		depth, done := fmt.Sprintf("%dx%d", i%10, weekMinutes), fmt.Sprintf("0+60x%d", weekMinutes)
		if i == stuck {
			rest := weekMinutes - stuckAt - stuckFor
			depth = fmt.Sprintf("5x%d 100x%d 5x%d", stuckAt, stuckFor, rest)
			done = fmt.Sprintf("0+60x%d %dx%d %d+60x%d", stuckAt, stuckAt*60, stuckFor, stuckAt*60, rest)
		}
		fmt.Fprintf(&b, "  - {series: 'queue_depth{job=\"worker\", instance=\"w%d\"}', values: '%s'}\n", i, depth)
		fmt.Fprintf(&b, "  - {series: 'jobs_done_total{job=\"worker\", instance=\"w%d\"}', values: '%s'}\n", i, done)
	}
	b.WriteString("  alert_rule_test:\n")
	for _, minute := range []int{1440, stuckAt, stuckAt + stuckFor - 10, weekMinutes} {
		fmt.Fprintf(&b, "  - eval_time: %dm\n    alertname: QueueStuck\n    exp_alerts:\n", minute)
		if minute == stuckAt+stuckFor-10 {
			fmt.Fprintf(&b, "    - {exp_labels: {instance: w%d, job: worker}, exp_annotations: {summary: w%d has 100 jobs waiting}}\n", stuck, stuck)
		}
		fmt.Fprintf(&b, "  - {eval_time: %dm, alertname: NothingDone}\n", minute)
	}
	fmt.Fprintf(&b, "  promql_expr_test:\n  - expr: job:jobs_done:rate5m\n    eval_time: %dm\n    exp_samples: [{labels: 'job:jobs_done:rate5m{job=\"worker\"}', value: 499}]\n", stuckAt+stuckFor-10)
	return b.String()
}
