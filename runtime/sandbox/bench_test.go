package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// near is an engine in the same process: nothing is sent anywhere.
type near struct {
	text string
	wait func() error // of a call
}

var one = value.Float(1)

func (n near) load(string, value.Pos) (string, error) { return n.text, nil }
func (n near) call(wire.Call) (value.Value, error)    { return one, n.wait() }
func (near) events(wire.Events) error                 { return nil }
func (near) note(int, int)                            {}

// far is the same for a worker.
type far struct{ text string }

func (f far) Read(string) ([]byte, error)                          { return []byte(f.text), nil }
func (far) Call(context.Context, kit.Request) (value.Value, error) { return one, nil }

var benchVocabulary = Vocabulary{Families: []kit.Family{{Name: "metrics", Functions: []kit.Function{
	{Name: "value", Kind: kit.Query, Positional: 1, Params: []kit.Param{{Name: "expr", Type: kit.StringT, Required: true}}},
}}}}

func benchWire() *wire.Vocabulary { return &wire.Vocabulary{Families: benchVocabulary.Families} }

// asking is a runbook of 40 queries, each of them looked at.
var asking = "def run(ctx):\n" + strings.Repeat("    x = ctx.metrics.value('sum(rate(requests_total[5m]))')\n    if x > 100 or x == None:\n        print('high')\n", 40)

// computing is one that works on what it was given.
const computing = `
def run(ctx):
    total = 0
    for i in range(200000):
        total += i * i % 7
    d = {}
    for i in range(20000):
        d["k%d" % i] = [i, i + 1]
    return None if total else None
`

// traced evaluates in this process as a worker does.
func traced(text string, wait func() error) error {
	s := newSession(near{text, wait}, benchWire(), 100_000_000, nil)
	if _, err := s.run(&wire.Run{Path: "main.star", Fn: "run", Context: &wire.Context{}}); err != nil {
		return err
	}
	s.tracer.take()
	s.tracer.coverage(s.paths)
	return nil
}

// untraced is traced for a text that is not rewritten, so that nothing is seen or counted.
func untraced(text string, wait func() error) error {
	s := newSession(near{text, wait}, benchWire(), 100_000_000, nil)
	tree, err := dialect.Parse("main.star", text, 0)
	if err != nil {
		return err
	}
	prog, err := starlark.FileProgram(tree, s.predecl.Has)
	if err != nil {
		return err
	}
	globals, err := prog.Init(s.thread, s.predecl)
	if err != nil {
		return err
	}
	ctx, err := s.context(&wire.Context{}, "ctx")
	if err != nil {
		return err
	}
	_, err = starlark.Call(s.thread, globals["run"], starlark.Tuple{ctx}, nil)
	return err
}

// isolated evaluates in a worker.
func isolated(b *testing.B, text string) func() error {
	b.Helper()
	w, err := Spawner{Limits: Limits{Steps: 100_000_000}}.Start(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Close)
	return func() error {
		_, err := w.Evaluate(b.Context(), "main.star", "run", benchVocabulary, far{text}, Context{}, far{})
		return err
	}
}

// echoed returns what sends 256 bytes to another process and waits for them to come back.
func echoed(b *testing.B) func() error {
	b.Helper()
	echo := exec.CommandContext(b.Context(), os.Args[0], "lie", "echo")
	in, err := echo.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := echo.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := echo.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = in.Close(), echo.Wait() })
	buf := make([]byte, 256)
	return func() error {
		if _, err := in.Write(buf); err != nil {
			return err
		}
		_, err := io.ReadFull(out, buf)
		return err
	}
}

// ratio runs both in turn, and reports the median of one over the median of the other.
func ratio(b *testing.B, name string, ours, peer func() error) {
	b.Helper()
	var took [2][]time.Duration
	for b.Loop() {
		for i, f := range []func() error{ours, peer} {
			began := time.Now()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	b.ReportMetric(float64(took[0][len(took[0])/2])/float64(took[1][len(took[1])/2]), name)
	b.ReportMetric(float64(took[0][len(took[0])/2]), "ns-ours")
	b.ReportMetric(0, "ns/op") // of both together: says nothing
}

// BenchmarkTrace is what explanation and coverage cost a runbook of 40 queries, each of which is answered by the echo: from its text to its
// end, as for the first target of a run. Goal: under 1.5.
func BenchmarkTrace(b *testing.B) {
	echo := echoed(b)
	ratio(b, "x-untraced", func() error { return traced(asking, echo) }, func() error { return untraced(asking, echo) })
}

// BenchmarkIsolation is a script in a worker against the same in this process. Goal: at most 1.1.
func BenchmarkIsolation(b *testing.B) {
	ratio(b, "x-in-process", isolated(b, computing), func() error { return traced(computing, nil) })
}

// BenchmarkCall is a query of a worker to its engine and back, against as many bytes to a process of the same binary and
// back, which neither encodes nor looks at them. Goal: at most 3.
func BenchmarkCall(b *testing.B) {
	const calls = 1000
	ask := isolated(b, fmt.Sprintf("def run(ctx):\n    for i in range(%d): ctx.metrics.value('sum(rate(requests_total[5m]))')\n", calls))
	echo := echoed(b)
	ratio(b, "x-echo", ask, func() error {
		for range calls {
			if err := echo(); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkSpawn is a worker from its start to its being ready, against this binary printing its tests' names: none.
func BenchmarkSpawn(b *testing.B) {
	ratio(b, "x-list", func() error {
		w, err := Spawner{}.Start(b.Context())
		if err == nil {
			w.Close()
		}
		return err
	}, func() error { return exec.CommandContext(b.Context(), os.Args[0], "-test.list", "^$").Run() })
}
