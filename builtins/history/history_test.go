package history_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/history"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestHistory(t *testing.T) {
	t.Parallel()
	h := &kittest.Host{Before: &kit.Attempt{Runbook: "a", State: "ineffective", Age: time.Hour, Actions: []string{"exec.run", "exec.check"}}, Started: map[string]time.Duration{"exec.run": time.Hour}}
	run, never := kit.Args{"action": value.String("exec.run")}, kit.Args{"action": value.String("exec.other")}
	empty := &kittest.Host{}
	for _, c := range []struct {
		function string
		h        *kittest.Host
		args     kit.Args
		want     value.Value
	}{
		{"last", h, nil, value.Dict{
			{Key: value.String("runbook"), Value: value.String("a")},
			{Key: value.String("state"), Value: value.String("ineffective")},
			{Key: value.String("age"), Value: value.Duration(time.Hour)},
			{Key: value.String("actions"), Value: value.List{value.String("exec.run"), value.String("exec.check")}},
		}},
		{"last", empty, nil, value.Null{}},
		{"since", h, run, value.Duration(time.Hour)},
		{"since", h, never, value.Null{}},
		{"since", empty, run, value.Null{}},
	} {
		if got, err := kittest.Call(t, history.Family(), c.function, c.h, c.args); err != nil || !cmp.Equal(c.want, got) {
			t.Errorf("%s: %v, %v", c.function, got, err)
		}
	}
	// What cannot be read is not what was not done.
	h.Err = errors.New("the store is locked")
	for function, args := range map[string]kit.Args{"last": nil, "since": run} {
		if _, err := kittest.Call(t, history.Family(), function, h, args); !errors.Is(err, h.Err) {
			t.Errorf("%s: %v", function, err)
		}
	}
}
