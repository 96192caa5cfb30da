package cli

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/engine"
)

// What a run leaves for the next one is read by it; where nothing can be left, or nothing sensible is found, nothing is expected.
func TestRemembersWhatWasNeeded(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	want := lastRun{"/srv/shop", engine.Expected{Runbook: "a.star", Connections: []string{"exec", "shop"}, Started: time.Unix(1_800_000_000, 5).UTC()}}
	if err := remember(state, want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, recall(state)); d != "" {
		t.Error(d)
	}
	less := lastRun{Project: "/srv/shop"} // and nothing of the longer one before it
	if err := remember(state, less); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(less, recall(state)); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(lastRunFile(state), []byte(`{"runbook":"a.star","connec`), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(lastRun{}, recall(state)); d != "" {
		t.Error(d)
	}
	none := filepath.Join(state, "none")
	if d := cmp.Diff(lastRun{}, recall(none)); d != "" {
		t.Error(d)
	}
	if err := remember(none, want); err == nil {
		t.Error("a state directory came of it")
	}
}
