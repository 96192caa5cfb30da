package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

// The runbooks that come with the project are tested against what the plugin says about itself: their lock has just that.
func TestLock(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("..", "..", "runbooks", pluginhost.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := pluginhost.DecodeLock(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newPlugin().Manifest()
	if err != nil {
		t.Fatal(err)
	}
	wire, err := sdk.EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = sdk.DecodeManifest(wire); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(lock[m.Name].Manifest, m) {
		t.Errorf("runbooks/%s has another manifest: make kubernetes, and runbook plugin lock --project runbooks", pluginhost.LockFile)
	}
}
