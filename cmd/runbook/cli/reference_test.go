package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

var update = flag.Bool("update", false, "write the generated pages instead of comparing them")

const docs = "../../../docs/"

// TestReference compares docs/cli.md with the list of commands; make generate writes it.
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
	if *update {
		if err := os.WriteFile(docs+"cli.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(docs + "cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("docs/cli.md is not what make generate writes (-want +got):\n%s", diff)
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
