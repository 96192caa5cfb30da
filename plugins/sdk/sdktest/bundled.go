package sdktest

import (
	"path/filepath"
	"testing"
)

// Bundled is how a plugin of the program that is shipped is started: make build has made it.
func Bundled(t testing.TB, name string) (argv []string) {
	t.Helper()
	exe, err := filepath.Abs("../../bin/runbook")
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe, "plugin", "serve", name}
}
