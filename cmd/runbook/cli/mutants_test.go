package cli

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutations are mistakes that a person may make in a runbook: what is looked for in a line, and what stands there instead.
var mutations = []struct {
	name string
	at   *regexp.Regexp
	with string
}{
	{"a comparison is flipped", regexp.MustCompile(` > `), ` <= `},
	{"a comparison is flipped", regexp.MustCompile(` < `), ` >= `},
	{"a comparison is flipped", regexp.MustCompile(` >= `), ` < `},
	{"a comparison is flipped", regexp.MustCompile(` <= `), ` > `},
	{"a comparison is flipped", regexp.MustCompile(` == `), ` != `},
	{"a branch is never taken", regexp.MustCompile(`^(\s+)if .*:$`), `${1}if False:`},
	{"a branch is always taken", regexp.MustCompile(`^(\s+)if .*:$`), `${1}if True:`},
	{"an argument of a guard is gone", regexp.MustCompile(`, (cooldown|within|timeout|expect) = "[^"]*"`), ``},
	{"an argument of a guard is gone", regexp.MustCompile(`^\s+(held|max_bad|cooldown) = [^,]*,.*$`), ``},
	{"an action is gone", regexp.MustCompile(`^(\s+)ctx\.(disk|exec|haproxy|kubernetes|postgres|redis|ssh|systemd)\.[a-z_]+\(.*\)$`), `${1}pass`},
	{"a person is not called", regexp.MustCompile(`return escalate\(.*\)$`), `return nothing("all is well")`},
	{"which series is not said", regexp.MustCompile(`, where = \{[^}]*\}`), ``},
}

// The tests of every runbook that is shown as an example fail when the runbook is changed for the worse, wherever that is.
func TestExamplesAreProved(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"../../../runbooks", "../demo/project"} {
		_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			if d.IsDir() || filepath.Ext(name) != ".star" || strings.HasSuffix(name, "_test.star") || d.Name() == "project.star" {
				return nil
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(rel, func(t *testing.T) { t.Parallel(); proved(t, root, rel) })
			return nil
		})
	}
}

// Nothing is found in the runbooks that come with the project, and what was tested of them is what is there.
func TestExamplesAreAttested(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../../runbooks")
	if err != nil {
		t.Fatal(err)
	}
	if out := runbook(t, root, 0, "check", "--project", root); !strings.Contains(out, "nothing found") {
		t.Error(out)
	}
	runbook(t, root, 0, "test", "--project", root, "--attest", "--verify")
}

// proved runs the tests of one runbook, and then those of each mutant.
func proved(t *testing.T, root, runbook string) {
	text, err := os.ReadFile(filepath.Join(root, runbook))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := testMutant(t, root, runbook, string(text), "--coverage", "--min", "100"); err != nil {
		t.Fatalf("the runbook itself: %v\n%s", err, out)
	}
	lines := strings.Split(string(text), "\n")
	mutants := 0
	doc := false
	for i, line := range lines {
		if strings.Count(line, `"""`) == 1 {
			doc = !doc
		}
		if doc || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, m := range mutations {
			changed := m.at.ReplaceAllString(line, m.with)
			if changed == line {
				continue
			}
			mutants++
			mutant := append(append(append([]string{}, lines[:i]...), changed), lines[i+1:]...)
			if out, err := testMutant(t, root, runbook, strings.Join(mutant, "\n")); err == nil {
				t.Errorf("line %d: %s, and every test passes:\n-%s\n+%s\n%s", i+1, m.name, line, changed, out)
			}
		}
	}
	t.Logf("%d mutants", mutants)
	if mutants < 6 {
		t.Errorf("only %d mutants", mutants)
	}
}

// testMutant runs the tests of a project in which a runbook is another one, as more says.
func testMutant(t *testing.T, root, runbook, text string, more ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, runbook), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The demo gives these to its settings.
	settings, err := os.ReadFile(filepath.Join(dir, "project.star"))
	if err != nil {
		t.Fatal(err)
	}
	const given = "URL, STATE, EXE, SERVICE, DIR = 'http://localhost:9', 'state', '/bin/true', 'service', '/tmp'\n"
	if err := os.WriteFile(filepath.Join(dir, "project.star"), append([]byte(given), settings...), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, append([]string{"test", "--project", dir, filepath.Join(dir, runbook)}, more...)...)
	cmd.Args[0] = "runbook"
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); err != nil && code != 1 && code != 2 {
		t.Fatalf("exit %d:\n%s", code, out)
	}
	return fmt.Sprintf("%.500s", out), err
}
