package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/check"
	"github.com/seed1de3961f/runbook/runtime/testrun"
)

func checkCommand() spec {
	return spec{
		name: "check", group: "Run", summary: "say what is wrong with runbooks, or likely to be, without running them",
		about: `Reads project.star, runbooks, what they load, and their tests. Asks no network,
starts no plugin and touches no state. Each finding has its place, a code and what to
do; docs/errors has a page for each code. Exits 3 if there is any.`,
		args: "[PATH...]", max: many, takes: takesProject,
		example: "runbook check worker.star",
		run:     runCheck,
	}
}

type checkResult struct {
	Files    int                `json:"files"`
	Findings []*problem.Problem `json:"findings"`
}

func runCheck(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var runbooks, tests []string
	for _, path := range c.args {
		if strings.HasSuffix(path, "_test.star") {
			tests = append(tests, path)
		} else {
			runbooks = append(runbooks, path)
		}
	}
	if len(runbooks) > 0 || len(tests) == 0 {
		if runbooks, err = o.settings.Runbooks(o.tree, runbooks); err != nil {
			return nil, err
		}
	}
	if len(tests) > 0 {
		if tests, err = o.settings.Tests(o.tree, tests); err != nil {
			return nil, err
		}
	}
	if len(c.args) == 0 {
		if tests, err = o.settings.Tests(o.tree, nil); err != nil {
			tests = nil // there is none, which is for runbook test to say
		}
	}
	found, err := check.Files(ctx, &check.Project{
		Tree: o.tree, Settings: o.settings, Families: o.families, Manifests: o.manifests, Spawn: o.spawn, Tests: testrun.Vocabulary(),
	}, runbooks, tests)
	if err != nil {
		return nil, err
	}
	r := checkResult{Files: len(runbooks) + len(tests), Findings: found}
	if r.Findings == nil {
		r.Findings = []*problem.Problem{}
	}
	if r.Files == 0 {
		return r, problem.New(problem.Usage, "there is no runbook in %s", filepath.Base(o.tree.Root()))
	}
	if len(found) > 0 {
		return r, exitWith(problem.ExitFindings)
	}
	return r, nil
}

func (r checkResult) text(u *ui) {
	for _, p := range r.Findings {
		u.Printf("%s [%s]\n", p.Error(), p.Code)
		for _, line := range p.Detail {
			u.Printf("      %s\n", line)
		}
		if p.Hint != "" {
			u.Printf("  hint: %s\n", p.Hint)
		}
	}
	files := map[string]bool{}
	for _, p := range r.Findings {
		files[p.Pos.File] = true
	}
	if len(files) == 0 {
		u.Printf("%d files, nothing found\n", r.Files)
		return
	}
	u.Printf("%s in %s\n", plural(len(r.Findings), "finding"), plural(len(files), "file"))
}

func plural(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
