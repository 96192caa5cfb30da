package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMistakes makes the mistakes of somebody's first day, and compares what runbook check says, or runbook test where only a run can know, with what is
// written down: a person must be able to act on it without any documentation.
func TestMistakes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "mistakes")
	files, err := filepath.Glob(filepath.Join(dir, "*.star"))
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, file := range files {
		name := filepath.Base(file)
		if name == "project.star" || strings.HasSuffix(name, "_test.star") {
			continue
		}
		made++
		t.Run(strings.TrimSuffix(name, ".star"), func(t *testing.T) {
			t.Parallel()
			args := []string{"check", name}
			if _, err := os.Stat(strings.TrimSuffix(file, ".star") + "_test.star"); err == nil {
				args = []string{"test", name}
			}
			program, err := exec.LookPath("runbook")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program, args...)
			cmd.Dir, cmd.Env = dir, []string{noRaceSleep, "PATH=/usr/bin:/bin"}
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("it is not found")
			}
			var got strings.Builder
			got.WriteString("$ runbook " + strings.Join(args, " ") + "\n")
			for line := range strings.Lines(string(out)) {
				if args[0] == "test" && strings.HasPrefix(line, "    ") && !strings.Contains(line, ".star:") && !strings.Contains(line, "hint") {
					continue // of the way of the decision, what has a place
				}
				for _, v := range varying {
					line = regexp.MustCompile(v.pattern).ReplaceAllString(line, v.shown)
				}
				got.WriteString(line)
			}
			golden := strings.TrimSuffix(file, ".star") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Error(d)
			}
		})
	}
	if made < 10 {
		t.Errorf("only %d mistakes", made)
	}
}
