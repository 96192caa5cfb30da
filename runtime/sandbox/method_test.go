package sandbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

// What the engine answers with has the methods of its type, its plain form is what goes back, and a bare context is called as the
// function calls it.
func TestMethods(t *testing.T) {
	t.Parallel()
	vocab := sandbox.Vocabulary{
		Families: []kit.Family{{Functions: []kit.Function{{Name: "make", Kind: kit.Query}}}},
		Methods: []kit.Family{{Name: "box", Functions: []kit.Function{{Name: "open", Kind: kit.Query, Positional: 1, Params: []kit.Param{
			{Name: "box", Type: kit.Any, Record: []string{"box"}, Required: true}, {Name: "key", Type: kit.Int, Required: true},
		}}}}},
	}
	box := &value.Record{Type: "box", Fields: []value.Field{{Name: "size", Value: value.Int(3)}}}
	var opened kit.Args
	answer := callerFunc(func(_ context.Context, r kit.Request) (value.Value, error) {
		if r.Function == "make" {
			return box, nil
		}
		opened = r.Args
		return value.Null{}, nil
	})
	run := func(body string) error {
		files := one("def run(t):\n    b = t.make()\n    " + body + "\n")
		_, err := sandboxtest.Worker(t, sandbox.Limits{}).Evaluate(t.Context(), "main.star", "run", vocab, files, sandbox.Context{Bare: true}, answer)
		return err
	}
	if err := run("b.open(b.size)"); err != nil {
		t.Fatal(err)
	}
	if got, ok := opened["box"].(*value.Record); !ok || got.Type != "box" || opened["key"] != value.Value(value.Int(3)) {
		t.Errorf("called with %v", opened)
	}
	for body, want := range map[string]string{
		"b.opne(1)":     `unknown-name main.star:3:6: box(...) has no .opne (did you mean "open"?)`,
		"b.open()":      `argument main.star:3:5: box.open needs key`,
		"b.open(1, 2)":  `argument main.star:3:15: box.open takes one argument by position, the rest by name`,
		"t.now":         `unknown-name main.star:3:6: t has no .now`,
		"b.open(box=b)": `argument main.star:3:12: box.open has no argument "box"`,
	} {
		if got := problemOf(run(body)); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
}

// What an evaluation executed is known however it ended.
func TestCoverageOfWhatEndsEarly(t *testing.T) {
	t.Parallel()
	text := "def run(ctx):\n    if ctx.attempt > 1:\n        ctx.metrics.value(\"x\")\n    return fail(\"no\")\n"
	stop := errors.New("the engine says no")
	for name, answer := range map[string]callerFunc{
		"a script error": func(context.Context, kit.Request) (value.Value, error) { return value.Int(1), nil },
		"the engine":     func(context.Context, kit.Request) (value.Value, error) { return nil, stop },
	} {
		res, err := evaluate(t, one(text), sandbox.Limits{}, answer)
		if err == nil || len(res.Coverage) != 1 || len(res.Coverage[0].Ran) < 3 || !res.Coverage[0].Conditions[0].True {
			t.Errorf("%s: %v, %+v", name, err, res.Coverage)
		}
	}
}
