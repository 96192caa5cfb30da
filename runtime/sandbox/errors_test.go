package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

// TestErrors compares what a person reads with testdata/errors; -rewrite writes it anew.
//
//	file path=lib/x.star    adds a file to the project
//	run                     evaluates run(ctx) of main.star, which is the input; the project is then empty again
func TestErrors(t *testing.T) {
	t.Parallel()
	files := sandboxtest.Files{}
	caller := callerFunc(func(context.Context, kit.Request) (value.Value, error) { return value.Int(7), nil })
	datadriven.Walk(t, "testdata/errors", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "file" {
				var path string
				d.ScanArgs(t, "path", &path)
				files[path] = d.Input
				return ""
			}
			w := sandboxtest.Worker(t, limitsOfErrors)
			defer w.Close()
			files["main.star"] = d.Input
			got, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), caller)
			clear(files)
			if err == nil {
				return fmt.Sprintf("%s %v", "ok", got.Outcome)
			}
			return show(err)
		})
	})
}

// show writes a problem as the command line does.
func show(err error) string {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return err.Error()
	}
	lines := append([]string{fmt.Sprintf("[%s] %s", p.Code, p.Error())}, p.Detail...)
	if p.Hint != "" {
		lines = append(lines, "hint: "+p.Hint)
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
