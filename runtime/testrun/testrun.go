// Package testrun runs tests over recorded metrics: unit test files of Prometheus rules, as promtool reads them, and tests of runbooks,
// which are functions test_...(t) in files that end in _test.star.
//
// Promise: nothing here asks a network, starts a plugin or touches the project's state; the same files give the same verdicts. A test that could not be
// run is no test that passed, and neither is one that expects nothing.
//
// A test of a runbook is a simulation: the engine itself runs, with its guards, records and explanation, on a store in memory and under a clock that only the
// test moves. What stands in for the world is the metric source, which answers from what the test has recorded or written down, with Prometheus' own
// engine, and the plugins, whose actions end as the test says (well, if it says nothing) and change nothing.
//
//	Script     finds and runs the tests of a file
//	world      one test's clock, metrics, records, and what people were told; a run of the engine in it
//	host       stands in for every plugin
//	memo       answers a backtest's queries, each evaluated once for many ticks
//	foresight  knows at which ticks of a backtest a whole fleet is healthy, and nothing comes of a look at it
//	expect     compares, and says what differs
package testrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Options say which tests are run, and how.
type Options struct {
	// Run selects tests by name; nil means all.
	Run *regexp.Regexp
	// Parallel is how many tests of a file run at once; less than 1 means 1.
	Parallel int
}

// Verdict is how a test ended.
type Verdict string

// The verdicts.
const (
	Passed Verdict = "passed"
	Failed Verdict = "failed"
	Broken Verdict = "broken" // it could not be run
)

// Result is what became of one test.
type Result struct {
	File     string           `json:"file"`
	Name     string           `json:"name"`
	Verdict  Verdict          `json:"verdict"`
	Failures []string         `json:"failures,omitempty"` // what was not as expected
	Problem  *problem.Problem `json:"problem,omitempty"`  // why it could not be run
	Warnings []string         `json:"warnings,omitempty"` // about its recordings
	// Explained are the runs of a test that did not pass: what was seen, and which way every branch went.
	Explained []*trace.Node `json:"explained,omitempty"`
	// Covered is what the test executed, by runbook.
	Covered map[string]*Covered `json:"-"`
}

// File runs the tests of a file. The error is that of a file that could not be read, or of the context.
func File(ctx context.Context, path string, o Options) ([]Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, problem.Wrap(problem.Usage, plain(err), "read %s", path)
	}
	u, err := recorded.ParseUnitTests(path, text)
	if err != nil {
		return nil, err
	}
	files, err := ruleFiles(path, u.RuleFiles)
	if err != nil {
		return nil, err
	}
	var out []Result
	for _, g := range u.Selected(o.Run) {
		r := Result{File: path, Name: g.Name, Verdict: Passed, Warnings: g.Warnings()}
		r.Failures, err = g.Run(ctx, files, false)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		switch {
		case err != nil:
			r.Verdict, r.Problem = Broken, asProblem(path, err)
		case len(r.Failures) > 0:
			r.Verdict = Failed
		}
		out = append(out, r)
	}
	return out, nil
}

// ruleFiles reads the files that patterns name, which are relative to the test file. A pattern that names nothing is a mistake: all tests would run
// over no rules.
func ruleFiles(path string, patterns []string) ([]recorded.RuleFile, error) {
	var out []recorded.RuleFile
	for _, pattern := range patterns {
		full := pattern
		if !filepath.IsAbs(full) {
			full = filepath.Join(filepath.Dir(path), pattern)
		}
		names, err := filepath.Glob(full)
		if err != nil || len(names) == 0 {
			return nil, problem.New(problem.Recording, "rule_files: no file is %s", full).At(value.Pos{File: path})
		}
		slices.Sort(names)
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, problem.Wrap(problem.Recording, plain(err), "read %s", name).At(value.Pos{File: path})
			}
			out = append(out, recorded.RuleFile{Name: name, Text: text})
		}
	}
	return out, nil
}

// plain is the cause of a failed file operation, without the path, which is said already.
func plain(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// asProblem is the first of what went wrong, with the others as its details.
func asProblem(path string, err error) *problem.Problem {
	all := []error{err}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		all = j.Unwrap()
	}
	first, ok := errors.AsType[*problem.Problem](all[0])
	if !ok {
		first = problem.Wrap(problem.Recording, all[0], "%s", path)
	}
	p := *first
	const most = 10
	for i, e := range all[1:] {
		if i == most {
			p.Detail = append(p.Detail, fmt.Sprintf("and %d more", len(all)-1-most))
			break
		}
		p.Detail = append(p.Detail, e.Error())
	}
	return &p
}
