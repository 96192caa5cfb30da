package sandbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// FuzzEvaluate gives any text to a real worker: parser, rewrite, interpreter and the wire. It ends in time, and with a
// result, with what is wrong in the text, or at a limit: a worker that fails by itself is a finding. An input costs the
// start of a process.
func FuzzEvaluate(f *testing.F) {
	for _, a := range attacks() {
		if len(a.text) < 4<<10 {
			f.Add(a.text)
		}
	}
	for _, a := range crafted() {
		if text := a.files["main.star"]; len(text) < 4<<10 {
			f.Add(text)
		}
	}
	f.Add("runbook(owner = 'ops', trigger = every('1m'), params = {'a': param.int(1, min = 0)})\ndef run(ctx):\n    if ctx.metrics.value('up', where = {'job': 'x'}) == None or not ctx.params.limit:\n        return nothing('no data')\n    return escalate('slow')\n")
	f.Add("def g(x, *a, **k): return [y for y in x if y % 2] + list(a)\ndef run(ctx):\n    s, t = set([1]), {'a': (1,)}\n    for i, j in enumerate(t.keys()):\n        if i < 1 and j in t: s |= set([i]); continue\n        break\n    print('%d %s' % (len(s), t), g(range(3), 1, b = 2)[-1:])\n    return (lambda: nothing())() if s else None\n")
	limits := sandbox.Limits{Steps: 20_000, Time: 2 * time.Second}
	caller := callerFunc(func(_ context.Context, r kit.Request) (value.Value, error) {
		if r.Function == "restart" {
			return nil, problem.New(problem.Refused, "not now")
		}
		return value.Float(1), nil
	})
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		_, err := evaluate(t, one(text), limits, caller)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("took %s", took)
		}
		if err == nil {
			return
		}
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok {
			t.Fatalf("no problem: %v", err)
		}
		switch p.Code {
		case problem.Syntax, problem.Script, problem.UnknownName, problem.Argument, problem.Load, problem.Limit, problem.Refused:
		default:
			t.Errorf("%s\n%q", problemOf(err), p.Detail)
		}
		if p.Pos.File != "main.star" {
			t.Errorf("%s is at %s", problemOf(err), p.Pos)
		}
	})
}
