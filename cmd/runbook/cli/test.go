package cli

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

func testCommand() spec {
	return spec{
		name: "test", group: "Run", summary: "run unit tests of Prometheus rules, as promtool test rules does",
		about: `Runs the files that promtool test rules reads, as they are: alerts fire here exactly
when Prometheus would have fired them, so what an alert trigger will do can be
known beforehand. Only rules that an expectation depends on are evaluated at every
step, which takes a tenth of the time. No network, no plugin, no state directory.`,
		args: "FILE...", min: 1, max: many,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "run", Usage: "only tests whose name matches `REGEX`"},
			&cli.BoolFlag{Name: "all-rules", Usage: "evaluate every rule at every step"},
			&cli.StringFlag{Name: "junit", Usage: "write the results to `FILE` as JUnit XML, too"},
		},
		example: "runbook test rules_test.yaml --run Stuck",
		run:     runTest,
	}
}

type testResult struct {
	Tests  []testrun.Result `json:"tests"`
	Passed int              `json:"passed"`
	Failed int              `json:"failed"`
}

func runTest(ctx context.Context, c *call) (result, error) {
	o := testrun.Options{AllRules: c.Bool("all-rules")}
	if s := c.String("run"); s != "" {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, problem.New(problem.Usage, "--run: %v", err)
		}
		o.Run = re
	}
	r := testResult{Tests: []testrun.Result{}}
	var errs []error
	for _, file := range c.args {
		if strings.HasSuffix(file, ".star") {
			return nil, problem.New(problem.Usage, "%s is no unit test file of Prometheus rules", file).WithHint("name files that promtool test rules reads: YAML with tests:")
		}
		found, err := testrun.File(ctx, file, o)
		r.Tests = append(r.Tests, found...)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, t := range r.Tests {
		switch t.Verdict {
		case testrun.Passed:
			r.Passed++
		case testrun.Broken:
			r.Failed++
			errs = append(errs, t.Problem)
		case testrun.Failed:
			r.Failed++
		}
	}
	if path := c.String("junit"); path != "" {
		if err := writeJUnit(path, r.Tests); err != nil {
			return r, problem.Wrap(problem.Usage, err, "--junit")
		}
	}
	switch {
	case len(errs) > 0:
		return r, errors.Join(errs...)
	case r.Failed > 0:
		return r, problem.New(problem.TestFailed, "%d of %d tests failed", r.Failed, len(r.Tests))
	case len(r.Tests) == 0:
		return r, problem.New(problem.Usage, "no test was run").WithHint("--run matches none of them")
	}
	return r, nil
}

func (r testResult) text(u *ui) {
	for _, t := range r.Tests {
		j := passed
		if t.Verdict != testrun.Passed {
			j = refused
		}
		u.Verdict(j, t.File, t.Name)
		for _, f := range t.Failures {
			u.Printf("    %s\n", strings.ReplaceAll(f, "\n", "\n    "))
		}
		if t.Problem != nil {
			u.Printf("    could not be run: %s\n", t.Problem.Message)
		}
	}
	u.Printf("%d passed, %d failed\n", r.Passed, r.Failed)
}

// junit is the part of JUnit's XML that continuous integration reads.
type junit struct {
	XMLName xml.Name    `xml:"testsuites"`
	Suites  []testSuite `xml:"testsuite"`
}

type testSuite struct {
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Errors   int        `xml:"errors,attr"`
	Cases    []testCase `xml:"testcase"`
}

type testCase struct {
	Name    string `xml:"name,attr"`
	Failure string `xml:"failure,omitempty"`
	Error   string `xml:"error,omitempty"`
}

func writeJUnit(path string, tests []testrun.Result) error {
	var doc junit
	for _, t := range tests {
		if n := len(doc.Suites); n == 0 || doc.Suites[n-1].Name != t.File {
			doc.Suites = append(doc.Suites, testSuite{Name: t.File})
		}
		s := &doc.Suites[len(doc.Suites)-1]
		tc := testCase{Name: t.Name, Failure: strings.Join(t.Failures, "\n")}
		s.Tests++
		switch t.Verdict {
		case testrun.Failed:
			s.Failures++
		case testrun.Broken:
			s.Errors++
			tc.Error = t.Problem.Error()
		}
		s.Cases = append(s.Cases, tc)
	}
	text, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s\n", xml.Header, text), 0o644)
}
