package cli

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The tests are run again when a file of the project changes, also one that is new, until they are interrupted; what they write themselves is no change.
func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const works = "def test_adds(t):\n    t.expect(1 + 1).equal(2)\n"
	write("project.star", `project(metrics = connection("prometheus", config = {"url": "http://localhost:9"}))`+"\n")
	write("a_test.star", works)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "test", "--project", dir, "--watch", "--junit", filepath.Join(dir, "report.xml"))
	cmd.Args[0] = "runbook"
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out, said := bufio.NewReader(stdout), child{cmd, bufio.NewReader(stderr)}
	until := func(pattern string) {
		t.Helper()
		for re := regexp.MustCompile(pattern); ; {
			line, err := out.ReadString('\n')
			if err != nil {
				t.Fatalf("it ended before it said %s: %v", pattern, err)
			}
			if re.MatchString(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
	until("^1 passed, 0 failed$")
	said.expect(t, "runbook: waiting for a change in ")
	write("a_test.star", strings.Replace(works, "1 + 1", "1 + 2", 1))
	until("^0 passed, 1 failed$")
	said.expect(t, "runbook: error: 1 of 1 tests failed")
	said.expect(t, "runbook: waiting for a change in ")
	write("a_test.star", works)
	until("^1 passed, 0 failed$")
	said.expect(t, "runbook: waiting for a change in ")
	write("b_test.star", "def test_bad(t:\n") // in the middle of writing
	until("^1 passed, 0 failed$")
	said.expect(t, "runbook: error: b_test.star:1:")
	for line := ""; !strings.HasPrefix(line, "runbook: waiting for a change in "); {
		if line, err = said.lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	said.signal(t, os.Interrupt)
	if rest, _ := out.ReadString('\n'); rest != "" { // it has not run them again by itself
		t.Errorf("it said %q", rest)
	}
	said.exits(t, 130)
}
