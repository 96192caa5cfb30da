package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/engine"
)

// What a run leaves for the next one is read by it; where nothing can be left, or nothing sensible is found, nothing is expected.
func TestRemembersWhatWasNeeded(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	want := lastRun{"/srv/shop", engine.Expected{Worker: true, Connections: []string{"exec", "shop"}}}
	if err := remember(state, lastRun{}, want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, recall(state)); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(lastRunFile(state), []byte(`{"worker":true,"connec`), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(lastRun{}, recall(state)); d != "" {
		t.Error(d)
	}
	// What has not changed is not written again.
	if err := remember(state, want, want); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(lastRunFile(state)); err != nil || string(text) != `{"worker":true,"connec` {
		t.Errorf("%q, %v", text, err)
	}
	none := filepath.Join(state, "none")
	if d := cmp.Diff(lastRun{}, recall(none)); d != "" {
		t.Error(d)
	}
	if err := remember(none, lastRun{}, want); err == nil {
		t.Error("a state directory came of it")
	}
}
