package pluginhost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketNamesFit: a socket whose name is too long for the kernel would show as a plugin that ends at once without a word.
func TestSocketNamesFit(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("d", 90))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tmp := range []string{"/tmp", deep} {
		t.Setenv("TMPDIR", tmp)
		for _, parent := range []string{"", "/run/runbook", deep} {
			got := shortEnough(parent)
			if len(got)+len("/r1234567890/plugin-dir1234567890/plugin1234567890") > 103 {
				t.Errorf("TMPDIR %q, run directory %q: %q is too long", tmp, parent, got)
			}
			if parent == "/run/runbook" && got != parent {
				t.Errorf("%q is not used", parent)
			}
		}
	}
}
