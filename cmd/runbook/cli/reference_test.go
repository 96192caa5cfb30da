package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/guard"
)

var update = flag.Bool("update", false, "write the generated pages instead of comparing them")

const docs = "../../../docs/"

// TestReference compares docs/cli.md and docs/guards.md with the lists of commands and guards; make generate writes them.
func TestReference(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the list of commands by `make generate`; do not edit.\n")
	fmt.Fprintf(&b, "\n```\n%s```\n", helpFor(commands(), line{}))
	var walk func(path []string, s spec)
	walk = func(path []string, s spec) {
		if s.hidden {
			return
		}
		path = append(path, s.name)
		l := line{path: path, cmd: s}
		fmt.Fprintf(&b, "\n## %s\n\n```\n%s```\n", l.name(), helpFor(nil, l))
		for _, sub := range s.sub {
			walk(path, sub)
		}
	}
	for _, s := range commands() {
		walk(nil, s)
	}
	generated(t, "cli.md", b.String())
	generated(t, "guards.md", guardsPage())
}

// guardsPage is the list of guards, in its order.
func guardsPage() string {
	var b strings.Builder
	b.WriteString("# Guards\n\nGenerated from the list of guards by `make generate`; do not edit.\n\n" +
		"Every action passes all of them, and all are asked each time: `runbook run --dry-run` and `runbook explain` show what each measured, its\n" +
		"limit, and when it lifts. All are on. A runbook may be stricter than project.star with `runbook(policy = policy(...))`, never looser: that is an\n" +
		"error when it is loaded. Percentages round down. What a guard lacks to judge, it refuses.\n\n" +
		"An attempt is all that one evaluation does to one target. Some guards are judged once an attempt, at its first step, the others at every step.\n")
	judged := map[guard.Scope]string{guard.PerAttempt: "once an attempt, at its first step", guard.PerStep: "at every step"}
	for _, g := range guard.All() {
		fmt.Fprintf(&b, "\n## %s\n\nJudged %s. %s\n\n%s\n", g.Name, judged[g.Scope], g.Doc, g.Set)
	}
	return b.String()
}

// generated compares a page with what is generated, or writes it.
func generated(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(docs+name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(docs + name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/%s is not what make generate writes (-want +got):\n%s", name, diff)
	}
}

// TestErrorPages: each code has a page that says its title and exit code, shows an error, and says what to do; and each
// page has a code.
func TestErrorPages(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"README.md": true}
	index, err := os.ReadFile(docs + "errors/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range problem.All() {
		name := string(i.Code) + ".md"
		known[name] = true
		page, err := os.ReadFile(docs + "errors/" + name)
		if err != nil {
			t.Errorf("%s has no page: %v", i.Code, err)
			continue
		}
		head := fmt.Sprintf("# %s\n\n%s. Exit code %d.\n", i.Code, strings.ToUpper(i.Title[:1])+i.Title[1:], i.Exit)
		if !strings.HasPrefix(string(page), head) {
			t.Errorf("docs/errors/%s does not begin with:\n%s", name, head)
		}
		for _, part := range []string{"\nrunbook: error: ", "\n## What to do\n"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("docs/errors/%s lacks %q", name, strings.TrimSpace(part))
			}
		}
		if row := fmt.Sprintf("| [%s](%s) | %d | %s |", i.Code, name, i.Exit, i.Title); !strings.Contains(string(index), row) {
			t.Errorf("docs/errors/README.md lacks the row\n%s", row)
		}
	}
	pages, err := os.ReadDir(docs + "errors")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if !known[p.Name()] {
			t.Errorf("docs/errors/%s is for no code", p.Name())
		}
	}
}
