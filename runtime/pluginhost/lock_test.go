package pluginhost_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

func aLock() pluginhost.Lock {
	return pluginhost.Lock{"disk": {SHA256: strings.Repeat("ab", 32), Manifest: sdk.Manifest{
		Name: "disk", Version: "1.2", Doc: "Disks.",
		Config: []sdk.Param{{Name: "token", Type: "string", Required: true, Sensitive: true}},
		Functions: []sdk.Function{{
			Name: "clean", Kind: sdk.Action, Doc: "Clean.", DefaultTimeout: time.Minute, CanPlan: true, Positional: 1, BlastRadius: "node", Capabilities: []string{"net"},
			Params: []sdk.Param{{Name: "glob", Type: "string", Default: value.String("*.log")}, {Name: "most", Type: "int", Default: value.Int(9007199254740993)}},
		}},
	}}}
}

func TestLockRoundTrip(t *testing.T) {
	t.Parallel()
	first, err := aLock().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := pluginhost.DecodeLock(first)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(aLock(), got); d != "" {
		t.Error(d)
	}
	again, err := got.Encode()
	if err != nil || string(again) != string(first) {
		t.Errorf("the same lock is not written in the same way: %v\n%s\n%s", err, first, again)
	}
}

func TestLockRefuses(t *testing.T) {
	t.Parallel()
	text, err := aLock().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	entry := good[strings.Index(good, "[")+1 : strings.LastIndex(good, "]")]
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", "EOF"},
		"no JSON":        {"version: 1", "invalid character"},
		"newer":          {`{"version": 2, "plugins": []}`, "its version is 2"},
		"more":           {good + "{}", fmt.Sprintf("%s: byte %d: invalid character '{' after top-level value", pluginhost.LockFile, len(good))},
		"unknown":        {strings.Replace(good, `"sha256"`, `"evil": 1, "sha256"`, 1), `in "/plugins/0/evil": unknown object member name`},
		"no number":      {strings.Replace(good, `"version": 1`, `"version": "1"`, 1), `"/version" does not belong where it is`},
		"key twice":      {strings.Replace(good, `"sha256"`, `"sha256": "", "sha256"`, 1), `in "/plugins/0/sha256": duplicate object member name`},
		"twice":          {`{"version": 1, "plugins": [` + entry + "," + entry + "]}", "there twice"},
		"no hash":        {strings.Replace(good, strings.Repeat("ab", 32), "", 1), "is not a SHA-256"},
		"upper case":     {strings.Replace(good, "ababab", "ABABAB", 1), "is not a SHA-256"},
		"bad name":       {strings.Replace(good, `"name": "disk"`, `"name": "../disk"`, 1), "cannot be its name"},
		"engine's name":  {strings.Replace(good, `"name": "disk"`, `"name": "target"`, 1), "cannot be its name"},
		"unknown in it":  {strings.Replace(good, `"version": "1.2"`, `"version": "1.2", "evil": true`, 1), "its manifest cannot be read"},
		"bad type":       {strings.Replace(good, `"type": "int"`, `"type": "integer"`, 1), "unknown type"},
		"reserved param": {strings.Replace(good, `"name": "glob"`, `"name": "cooldown"`, 1), "belongs to the engine"},
		"huge":           {strings.Repeat(" ", pluginhost.MaxLock+1), "larger than"},
	} {
		if _, err := pluginhost.DecodeLock([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func FuzzDecodeLock(f *testing.F) {
	text, err := aLock().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"plugins":[{"sha256":"","manifest":null}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := pluginhost.DecodeLock(data)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := pluginhost.DecodeLock(again); err != nil || cmp.Diff(l, back) != "" {
			t.Fatal(err, cmp.Diff(l, back))
		}
	})
}
