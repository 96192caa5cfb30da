package kittest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestViolations(t *testing.T) {
	t.Parallel()
	f := kit.Family{Name: "Bad", Functions: []kit.Function{
		{
			Name: "doIt", Positional: 2, Doc: "no sentence",
			Params: []kit.Param{
				{Name: "a", Type: kit.Int, Required: true, Default: value.Int(1), Doc: "x"},
				{Name: "a", Type: kit.Int, Doc: "x, 1 if not given"},
				{Name: "B", Type: kit.Int},
				{Name: "c", Type: kit.Int, Doc: "with a stop."},
				{Name: "d", Type: kit.Int, Doc: "x"},
				{Name: "e", Type: kit.Int, Default: value.String("1"), Doc: "x"},
				{Name: "reason", Type: kit.StringT, Required: true, Doc: "x"},
			},
		},
		{Name: "fine", Kind: kit.Query, Doc: "Reads."},
		{Name: "fine", Kind: kit.Query, Doc: "Reads."},
	}}
	want := []string{
		`family "Bad": the name is not snake_case`,
		`family "Bad" has no doc`,
		`Bad.doIt: the name is not snake_case`,
		`Bad.doIt: the doc is not a sentence: "no sentence"`,
		`Bad.doIt: the kind "" is not in the list`,
		`Bad.doIt: 2 parameters by position: at most one is`,
		`Bad.doIt: parameter a is required and has a default`,
		`Bad.doIt: parameter a is there twice`,
		`Bad.doIt: parameter "B": the name is not snake_case`,
		`Bad.doIt: parameter c: the doc is not a phrase without a full stop: "with a stop."`,
		`Bad.doIt: parameter d: the doc does not say what holds "if not given": "x"`,
		`Bad.doIt: parameter e: the default is not of its type: Bad.doIt: e must be an int, got "1"`,
		`Bad.doIt: parameter reason is reserved: every action has it`,
		`Bad.fine is there twice`,
	}
	if diff := cmp.Diff(want, kittest.Violations(f)); diff != "" {
		t.Error(diff)
	}
}
