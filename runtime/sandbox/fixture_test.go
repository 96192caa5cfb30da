package sandbox_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "lie" {
		os.Exit(lie(os.Args[2]))
	}
	sandboxtest.Main(m)
}

// vocabulary is like that of a runbook.
func vocabulary() sandbox.Vocabulary {
	return sandbox.Vocabulary{
		Declarations: []kit.Function{
			{Name: "runbook", Kind: kit.Declare, Params: []kit.Param{
				{Name: "owner", Type: kit.StringT, Required: true},
				{Name: "trigger", Type: kit.Any, Record: []string{"every", "manual"}, Required: true},
				{Name: "params", Type: kit.Dict},
				{Name: "targets", Type: kit.Any},
			}},
			{Name: "every", Kind: kit.Declare, Positional: 1, Params: []kit.Param{{Name: "interval", Type: kit.Duration, Required: true}}},
			{Name: "manual", Kind: kit.Declare},
			{Name: "escalate", Kind: kit.Declare, Positional: 1, Params: []kit.Param{{Name: "reason", Type: kit.StringT, Required: true}}},
			{Name: "nothing", Kind: kit.Declare, Positional: 1, Params: []kit.Param{{Name: "reason", Type: kit.StringT}}},
		},
		Modules: []kit.Family{{Name: "param", Functions: []kit.Function{
			{Name: "int", Kind: kit.Declare, Positional: 1, Params: []kit.Param{{Name: "default", Type: kit.Int}, {Name: "min", Type: kit.Int}}},
		}}},
		Families: []kit.Family{
			{Name: "metrics", Functions: []kit.Function{{Name: "value", Kind: kit.Query, Positional: 1, Params: []kit.Param{
				{Name: "expr", Type: kit.StringT, Required: true},
				{Name: "where", Type: kit.Labels},
				{Name: "default", Type: kit.Any},
				{Name: "window", Type: kit.Duration, Default: value.Duration(5 * time.Minute)},
			}}}},
			{Name: "systemd", Functions: []kit.Function{{Name: "restart", Kind: kit.Action, Positional: 1, Params: []kit.Param{
				{Name: "unit", Type: kit.StringT, Required: true},
			}}}},
		},
	}
}

// callerFunc answers calls.
type callerFunc func(context.Context, kit.Request) (value.Value, error)

func (f callerFunc) Call(ctx context.Context, r kit.Request) (value.Value, error) { return f(ctx, r) }

var nobody = callerFunc(func(_ context.Context, r kit.Request) (value.Value, error) {
	return nil, errors.New("unexpected call of " + r.Family + "." + r.Function)
})

func environment() sandbox.Context {
	return sandbox.Context{
		Now: time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC), Attempt: 2,
		Target: value.Dict{
			{Key: value.String("name"), Value: value.String("w3")},
			{Key: value.String("key"), Value: value.String("instance=w3")},
			{Key: value.String("labels"), Value: value.Strings(map[string]string{"storage": "s1"})},
		},
		Params: value.Dict{{Key: value.String("limit"), Value: value.Int(1000)}, {Key: value.String("slow"), Value: value.Duration(time.Minute)}},
		Steps:  value.List{value.Strings(map[string]string{"action": "systemd.restart"})},
	}
}

// evaluate runs main.star's run(ctx) in a worker of its own.
func evaluate(t *testing.T, files sandboxtest.Files, limits sandbox.Limits, caller kit.Caller) (sandbox.Result, error) {
	t.Helper()
	return sandboxtest.Worker(t, limits).Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), caller)
}

// one is a project of one file.
func one(text string) sandboxtest.Files { return sandboxtest.Files{"main.star": text} }

// problemOf is what a person would read, without the hint: code, then position and message.
func problemOf(err error) string {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return "not a problem: " + errString(err)
	}
	return string(p.Code) + " " + p.Error()
}

func errString(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}

func detailOf(err error) string {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return ""
	}
	return strings.Join(p.Detail, "\n")
}

var limitsOfErrors = sandbox.Limits{Steps: 100_000}
