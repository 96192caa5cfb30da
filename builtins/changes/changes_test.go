package changes_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/changes"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestLast(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	h := &kittest.Host{At: now, Changed: map[string]*kit.Change{
		"":      {Component: "web", Version: "v7", Started: now.Add(-time.Hour), Ended: now.Add(-50 * time.Minute)},
		"db":    {Component: "db", Going: true, Started: now.Add(-time.Minute)},
		"cache": {Component: "cache", Started: now.Add(-time.Hour)},
		"ahead": {Component: "ahead", Started: now, Ended: now.Add(time.Minute)},
	}}
	for component, want := range map[string]time.Duration{"": 50 * time.Minute, "db": 0, "cache": time.Hour, "ahead": 0} {
		args := kit.Args{}
		if component != "" {
			args["component"] = value.String(component)
		}
		got, err := kittest.Call(t, changes.Family(), "last", h, args)
		if err != nil {
			t.Fatal(err)
		}
		d := got.(value.Dict)
		age, _ := d.Get("age")
		going, _ := d.Get("going")
		if age != value.Value(value.Duration(want)) || going != value.Value(value.Bool(component == "db")) {
			t.Errorf("%q: %v", component, got)
		}
	}
	if got, err := kittest.Call(t, changes.Family(), "last", h, kit.Args{"component": value.String("disk")}); err != nil || !cmp.Equal(got, value.Value(value.Null{})) {
		t.Errorf("none on record: %v, %v", got, err)
	}
	h.Err = errors.New("the store is locked")
	if _, err := kittest.Call(t, changes.Family(), "last", h, nil); !errors.Is(err, h.Err) {
		t.Errorf("%v", err)
	}
}
