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

// TestReference compares docs/cli.md, docs/guards.md and docs/builtins.md with the lists of commands, guards and functions; make generate writes them.
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
	chapters, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	generated(t, "builtins.md", "<!-- Generated from the tables by which arguments are checked, by make generate; do not edit. -->\n"+markdown(chapters))
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
	b.WriteString(`
## Modes, and approvals

A runbook climbs: shadow only records what it would do; recommend tells its owner; approve asks, and does it once a person has said so; auto does it.
` + "`runbook report`" + ` shows how it did on each step: on how many problems it would have acted, what refused it, what persons answered, and how its
attempts turned out.

In approve a request is recorded only if every other guard would let it act, with all steps that a dry evaluation foresees. ` + "`runbook approve ID`" + ` starts the
runbook for that target at once: whether it is still sick, and every other guard, is judged afresh. What is approved is this source, this target, and
the first action with these arguments: anything else is another request. A no, by ` + "`runbook decline ID`" + `, holds while the problem lasts.

## Who is told

What lifts by itself (busy, settling, cooldown, rate, a window, a disable) is recorded and disturbs nobody. What needs a person is told to the runbook's owner
once for a problem, with a reminder after 24h for as long as it lasts. A guard that has refused a sick target for a day without a break is told of by
itself, whatever its kind: a disable that was forgotten must not be silent. Every change of the breaker is told once.

## What persons set

| command | what it keeps from acting | lifted by |
|---|---|---|
| ` + "`runbook halt`" + ` | everything, on this machine | ` + "`runbook resume`" + `, or --for; nothing else |
| ` + "`runbook disable`" + ` | a runbook, an action, a target, or the targets with a label | ` + "`runbook enable`" + `, --for or --until |
| ` + "`runbook maintenance add`" + ` | the same, or everything, in a window | its end, or ` + "`runbook maintenance remove`" + ` |
| ` + "`runbook breaker open`" + ` | everything, until canaries have helped | ` + "`runbook breaker reset`" + ` |

Each records who (user, host, terminal), when, why and until when, and shows in ` + "`runbook status`" + `. Who may do so is who may write the state directory.
`)
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
