package recorded

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// runUnitTests runs a unit test file with the rule files that it names, as promtool test rules does.
func runUnitTests(t *testing.T, file string, run *regexp.Regexp, all bool) (failures []string, err error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseUnitTests(file, text)
	if err != nil {
		return nil, err
	}
	var files []RuleFile
	for _, pattern := range u.RuleFiles {
		names, err := filepath.Glob(filepath.Join(filepath.Dir(file), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, RuleFile{Name: name, Text: text})
		}
	}
	for _, g := range u.Selected(run) {
		f, err := g.Run(t.Context(), files, all)
		failures = append(failures, f...)
		if err != nil {
			return failures, err
		}
	}
	return failures, nil
}

// Prometheus' own files have the verdict that its own test expects of them.
func TestPrometheusOwnUnitTests(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "cmd", "promtool", "testdata")
	const (
		passes = iota
		fails
		broken
	)
	for _, c := range []struct {
		file, run string
		want      int
	}{
		{"unittest.yml", "", passes},
		{"long-period.yml", "", passes},
		{"bad-input-series.yml", "", broken},
		{"bad-promql.yml", "", fails},
		{"bad-rules-syntax-test.yml", "", broken},
		{"bad-rules-error-test.yml", "", broken},
		{"failing.yml", "", fails},
		{"at-modifier-test.yml", "", passes},
		{"negative-offset-test.yml", "", passes},
		{"no-test-group-interval.yml", "", passes},
		{"start-time-test.yml", "", passes},
		{"rules_run.yml", "", fails},
		{"rules_run.yml", "correct", passes},
		{"rules_run.yml", "wrong", fails},
		{"rules_run_extrafields.yml", "", broken},
		{"rules_run_no_fuzzy.yml", "", fails},
		{"rules_run_fuzzy.yml", "correct", passes},
		{"rules_run_fuzzy.yml", "wrong", fails},
	} {
		t.Run(c.file+" "+c.run, func(t *testing.T) {
			t.Parallel()
			for _, all := range []bool{true, false} {
				failures, err := runUnitTests(t, filepath.Join(dir, c.file), regexp.MustCompile(c.run), all)
				got := passes
				switch {
				case err != nil:
					got = broken
				case len(failures) > 0:
					got = fails
				}
				if got != c.want {
					t.Errorf("all %v: verdict %d, want %d: %v\n%s", all, got, c.want, err, strings.Join(failures, "\n"))
				}
			}
		})
	}
}

// Of a series that is written twice the last counts, as for promtool, and it is said. What is wrong with the other is an error all the same.
func TestSeriesAgain(t *testing.T) {
	t.Parallel()
	const head = "tests:\n- name: a\n  input_series:\n  - {series: 'm{a=\"1\", b=\"2\"}', values: '%s'}\n  - {series: 'm{b=\"2\", a=\"1\"}', values: '7'}\n"
	const expected = "  promql_expr_test:\n  - {expr: m, eval_time: 0, exp_samples: [{labels: 'm{a=\"1\", b=\"2\"}', value: 7}]}\n"
	u, err := ParseUnitTests("x.yml", fmt.Appendf(nil, head+expected, "1 2 3"))
	if err != nil {
		t.Fatal(err)
	}
	if failures, err := u.Groups[0].Run(t.Context(), nil, true); err != nil || len(failures) > 0 {
		t.Errorf("%v, %v", failures, err)
	}
	want := []string{`x.yml: group a: series m{a="1", b="2"} is written more than once; as for promtool, only the last of them counts`}
	if got := u.Groups[0].Warnings(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	u, err = ParseUnitTests("x.yml", fmt.Appendf(nil, head+expected, "1 x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Groups[0].Run(t.Context(), nil, true); err == nil {
		t.Error("values that cannot be read are no error")
	}
}
