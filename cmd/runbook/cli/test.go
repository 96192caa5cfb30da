package cli

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/declared"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

func testCommand() spec {
	return spec{
		name: "test", group: "Run", summary: "run the tests of runbooks, and unit tests of Prometheus rules",
		about: `The engine itself, with its guards, over recorded metrics and under a clock that only the test moves:
no network, no plugin. PATH is a _test.star, a runbook, a directory, or a file as promtool reads.`,
		args: "[PATH...]", max: many, takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "run", Usage: "only tests whose name matches `REGEX`"},
			&cli.BoolFlag{Name: "coverage", Usage: "show what of the runbooks no test has covered"},
			&cli.IntFlag{Name: "min", Usage: "with --coverage: fail if less than `N` percent of a runbook is covered"},
			&cli.StringFlag{Name: "html", Usage: "write what is covered to `FILE`, too, as one page with the runbooks' text"},
			&cli.BoolFlag{Name: "watch", Usage: "run them again whenever a file of the project changes"},
			&cli.BoolFlag{Name: "attest", Usage: "if all pass: write what they cover beside each runbook, so that it may act"},
			&cli.BoolFlag{Name: "verify", Usage: "with --attest: write nothing, and fail if something would be written"},
			&cli.IntFlag{Name: "parallel", Usage: "run `N` tests of a file at once", Value: runtime.NumCPU()},
			&cli.StringFlag{Name: "from-run", Usage: "write a test of what `RUN` decided, with a recording from Prometheus"},
			&cli.StringFlag{Name: "junit", Usage: "write the results to `FILE` as JUnit XML, too"},
		},
		example: "runbook test worker_test.star --coverage",
		run:     runTest,
	}
}

type testResult struct {
	Tests    []testrun.Result   `json:"tests"`
	Passed   int                `json:"passed"`
	Failed   int                `json:"failed"`
	Coverage []runbookCoverage  `json:"coverage,omitempty"`
	Attested []testrun.Attested `json:"attested,omitempty"`
	project  *testrun.Project
}

// runbookCoverage is what the tests covered of one file.
type runbookCoverage struct {
	File    string        `json:"file"`
	Percent float64       `json:"percent"`
	Gaps    []testrun.Gap `json:"gaps,omitempty"`
}

func runTest(ctx context.Context, c *call) (result, error) {
	if c.IsSet("from-run") {
		for _, other := range []string{"run", "coverage", "html", "watch", "attest", "junit"} {
			if c.IsSet(other) {
				return nil, problem.New(problem.Usage, "--%s has no place beside --from-run, which runs no test", other)
			}
		}
		return runFromRun(ctx, c)
	}
	if c.Bool("watch") {
		if c.Bool("json") {
			return nil, problem.New(problem.Usage, "--json has no place beside --watch, which never ends with one document")
		}
		return watchTests(ctx, c)
	}
	return testOnce(ctx, c)
}

func testOnce(ctx context.Context, c *call) (result, error) {
	o := testrun.Options{Parallel: c.Int("parallel")}
	if s := c.String("run"); s != "" {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, problem.New(problem.Usage, "--run: %v", err)
		}
		o.Run = re
	}
	if n := c.Int("min"); n < 0 || n > 100 || n > 0 && !c.Bool("coverage") {
		return nil, problem.New(problem.Usage, "--min takes 1 to 100, and needs --coverage")
	}
	if c.Bool("verify") && !c.Bool("attest") {
		return nil, problem.New(problem.Usage, "--verify needs --attest")
	}
	if c.Bool("attest") && c.String("run") != "" {
		return nil, problem.New(problem.Usage, "--attest needs all tests of a file, so --run has no place beside it")
	}
	r := testResult{Tests: []testrun.Result{}}
	errs, err := c.runTests(ctx, o, &r)
	if err != nil {
		return r, err
	}
	covered := testrun.Coverage{}
	for _, t := range r.Tests {
		for _, x := range t.Covered {
			covered.Merge(x.Coverage)
		}
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
	if c.Bool("coverage") {
		r.Coverage = coverageOf(covered)
	}
	if file := c.String("html"); file != "" && r.project != nil {
		if err := writeCoverage(file, covered, r.project.Tree); err != nil {
			return r, problem.Wrap(problem.Usage, err, "--html")
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
	for _, f := range r.Coverage {
		if f.Percent < float64(c.Int("min")) {
			return r, problem.New(problem.TestFailed, "%.0f%% of %s is covered, less than --min %d", f.Percent, f.File, c.Int("min"))
		}
	}
	if c.Bool("attest") && r.project != nil {
		return r.attest(c.Bool("verify"))
	}
	return r, nil
}

// attest writes down what the tests cover, or compares it with what is written.
func (r testResult) attest(verify bool) (testResult, error) {
	var err error
	if r.Attested, err = testrun.Attest(r.project, r.Tests, verify); err != nil {
		return r, err
	}
	for _, a := range r.Attested {
		if a.State == testrun.Differs {
			return r, problem.New(problem.TestFailed, "%s is not what the tests cover: %s", a.File, a.Detail).WithHint("runbook test --attest, and commit what it writes")
		}
	}
	return r, nil
}

// runTests runs what the paths name. The errors are of files that could not be run; the other error ends everything.
func (c *call) runTests(ctx context.Context, o testrun.Options, r *testResult) (errs []error, err error) {
	rules, scripts := []string{}, []string{}
	for _, path := range c.args {
		if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
			rules = append(rules, path)
		} else {
			scripts = append(scripts, path)
		}
	}
	add := func(found []testrun.Result, err error) error {
		r.Tests = append(r.Tests, found...)
		if ctx.Err() == nil && err != nil {
			errs = append(errs, err)
		}
		return ctx.Err()
	}
	for _, file := range rules {
		if err := add(testrun.File(ctx, file, o)); err != nil {
			return nil, err
		}
	}
	if len(rules) > 0 && len(scripts) == 0 {
		return errs, nil
	}
	p, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	p.close()
	files, err := p.settings.Tests(p.tree, scripts)
	if err != nil {
		return nil, err
	}
	r.project = p.testProject()
	for _, file := range files {
		if err := add(testrun.Script(ctx, r.project, file, o)); err != nil {
			return nil, err
		}
	}
	return errs, nil
}

// testProject is what tests need of a project.
func (o *opened) testProject() *testrun.Project {
	s := *o.settings
	s.Env = nil                        // a test needs no secret
	memory := declared.Open("", o.exe) // of this process only
	return &testrun.Project{
		Tree: o.tree, Settings: &s, Families: o.families, Manifests: o.manifests, Version: version,
		Spawn: func(context.Context) (sandbox.Worker, error) {
			return memory.Worker(s.Limits, sandbox.Spawner{Exe: o.exe, Limits: s.Limits}.Start), nil
		},
	}
}

// writeCoverage writes the page of --html.
func writeCoverage(file string, c testrun.Coverage, tree *project.Tree) error {
	var page bytes.Buffer
	if err := c.Page(&page, tree.Read); err != nil {
		return err
	}
	return os.WriteFile(file, page.Bytes(), 0o644)
}

func coverageOf(c testrun.Coverage) []runbookCoverage {
	out := []runbookCoverage{}
	for _, file := range c.Files() {
		f := runbookCoverage{File: file, Percent: c[file].Percent(), Gaps: c.Gaps(file)}
		out = append(out, f)
	}
	return out
}

func (r testResult) text(u *ui) {
	for _, t := range r.Tests {
		j := passed
		if t.Verdict != testrun.Passed {
			j = refused
		}
		u.Verdict(j, t.File, t.Name)
		for _, w := range t.Warnings {
			u.Printf("    warning: %s\n", w)
		}
		for _, f := range t.Failures {
			u.Printf("    %s\n", strings.ReplaceAll(f, "\n", "\n    "))
		}
		if t.Problem != nil {
			u.Printf("    could not be run: %s\n", t.Problem.Message)
		}
		for _, n := range t.Explained {
			u.tree(n, "    ")
		}
	}
	for _, f := range r.Coverage {
		u.Printf("%s: %.0f%% covered\n", f.File, f.Percent)
		for _, g := range f.Gaps {
			u.Printf("  %s: %s\n", g.Pos, g.What)
		}
	}
	for _, a := range r.Attested {
		u.Printf("%s: %s\n", a.File, a.State)
	}
	if r.Passed+r.Failed > 0 { // none if the project could not be read, which is said
		u.Printf("%d passed, %d failed\n", r.Passed, r.Failed)
	}
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
