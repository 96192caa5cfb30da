package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

// body is a run(ctx) of these lines; its first line is line 2.
func body(lines ...string) string {
	return "def run(ctx):\n    " + strings.Join(lines, "\n    ") + "\n"
}

const nested = "x = [1]"

// share makes x a list of 100 times 100 times ... elements, on line 3.
var share = []string{nested, "for i in range(8): x = [x] * 100"}

// attacks are files that hang, crash or eat a host that evaluates them itself, with what is said: code, then position
// and message. It is a function because the worker is this binary too, and must not start with all of this.
func attacks() map[string]attack {
	return map[string]attack{
		"loop":            {body("for i in range(1000000):", "    for j in range(1000000):", "        pass"), `^limit main.star:[34](:\d+)?: stopped after 3000000 steps \(limits\(steps=\)\)`},
		"loop-expr":       {body("return [0 for i in range(1000000) for j in range(1000000)]"), `^limit main.star:2.*: stopped (at the memory limit|after 3000000 steps)`},
		"top-loop":        {"x = [0 for i in range(1000000) for j in range(1000000) if False]\ndef run(ctx): pass\n", `^limit main.star:1.*: stopped after 3000000 steps`},
		"double":          {body("x = 'a'", "for i in range(64):", "    x = x + x"), `^limit main.star:4: stopped at the memory limit of 128 MiB \(limits\(memory=\)\)|one operation`},
		"double-list":     {body("x = [0]", "for i in range(64):", "    x += x"), `^limit main.star:4: stopped(:| at the memory limit)`},
		"repeat":          {body("x = [None] * ((1 << 30) - 1)"), `^limit main.star:2.*: stopped(:| at the memory limit)`},
		"repeat-string":   {body("x = 'abcd' * ((1 << 28) - 1)"), `^limit main.star:2.*: stopped(:| at the memory limit)`},
		"replace":         {body("s = 'a' * 200000", "t = s.replace('a', s)"), `^limit main.star:3.*: stopped(:| at the memory limit)`},
		"join":            {body("s = 'a' * 1000000", "t = s.join([s] * 1000000)"), `^limit main.star:3.*: stopped(:| at the memory limit)`},
		"sorted":          {body("x = sorted(range(1 << 40))"), `^limit main.star:2:.*: range of 1099511627776 elements: at most 1000000$`},
		"max":             {body("x = max(range(1 << 60))"), `^limit main.star:2:.*: range of `},
		"varargs":         {body("x = zip(*range(1 << 36))"), `^limit main.star:2:.*: range of `},
		"brackets":        {"x = " + strings.Repeat("[", 200_000) + "\n", `^syntax main.star:1:\d+: excessive nesting$`},
		"brackets-file":   {"x = " + strings.Repeat("[", 50_000_000) + "\n", `^limit main.star: the file is larger than 256 KiB \(limits\(source_file=\)\)$`},
		"plus-chain":      {"x = 1" + strings.Repeat("+1", 130_000) + "\ndef run(ctx): pass\n", `^$|^limit main.star`},
		"call-chain":      {"def f(): pass\nx = f" + strings.Repeat("()", 130_000) + "\n", `^script main.star:2:\d+: invalid call of non-function|^limit main.star`},
		"dot-chain":       {"x = (1)" + strings.Repeat(".a", 130_000) + "\n", `^script main.star:1:\d+: int has no .a|^limit main.star`},
		"if-clauses":      {"x = [1 for y in [1]" + strings.Repeat(" if y", 50_000) + "]\n", `^unknown-name main.star: main.star has no function run|^limit main.star`},
		"elif-chain":      {"def run(ctx):\n if 0: pass\n" + strings.Repeat(" elif 0: pass\n", 18_000), `^$|^limit main.star`},
		"recursion":       {"def f(n): return f(n + 1)\ndef run(ctx):\n    f(0)\n", `^script main.star:1:\d+: function f called recursively$`},
		"recursion-pass":  {"def f(g): return g(g)\ndef run(ctx):\n    f(f)\n", `^script main.star:1:\d+: function f called recursively$`},
		"huge-int":        {body("x = 1 << 500", "for i in range(40):", "    x = x * x"), `^limit main.star:4: stopped`},
		"huge-int-str":    {body("x = 1 << 500", "for i in range(16):", "    x = x * x", "s = str(x)"), `^$|^limit main.star:[45]: stopped`},
		"equal":           {body(append(share, "y = [1]", "for i in range(8): y = [y] * 100", "return escalate(str(x == y))")...), `^limit main.star:6: stopped: one operation used more than `},
		"str":             {body(append(share, "s = str(x)")...), `^limit main.star:4.*: stopped`},
		"print-shared":    {body(append(share, "print(x)")...), `^limit main.star:4.*: stopped`},
		"args-shared":     {body(append(share, "ctx.metrics.value('m', default = x)")...), `^argument main.star:4:28: metrics.value: default: too large`},
		"outcome-shared":  {body(append(share, "return escalate(x)")...), `^argument main.star:4:21: escalate: argument 1: too large`},
		"branch-shared":   {body(append(share, "if x: return escalate('seen')")...), `^$`},
		"cyclic":          {body("x = []", "x.append(x)", "return escalate(x)"), `^argument main.star:4:21: escalate: argument 1: nested deeper than 64`},
		"deep-freeze":     {"def f():\n    x = []\n    for i in range(900000): x = [x]\n    return x\nx = f()\n", `^unknown-name main.star: main.star has no function run|^limit main.star:3.*: stopped`},
		"print-flood":     {body("for i in range(100000): print('x' * 1000)"), `^$`},
		"print-huge":      {body("s = 'x' * 50000000", "for i in range(10): print(s)"), `^$|^limit main.star:[23]: stopped`},
		"branch-flood":    {body("for i in range(100000):", "    if i > 5: pass"), `^$`},
		"set":             {body("x = set()", "for i in range(1000000):", "    for j in range(1000000):", "        x.add(i * 1000000 + j)"), `^limit main.star:\d(:\d+)?: stopped (at the memory limit|after)`},
		"format-width":    {body("x = '%1000000000d' % 1"), `^script main.star:2:\d+: Starlark has no width in % formats$`},
		"split":           {body("x = ('a ' * 20000000).split()"), `^limit main.star:2.*: stopped(:| at the memory limit)`},
		"dict-comp":       {body("x = {i * 1000000 + j: 'x' * 10 for i in range(1000000) for j in range(1000000)}"), `^limit main.star:2.*: stopped (at the memory limit|after)`},
		"closures":        {body("x = lambda: 1", "for i in range(1000000): x = (lambda y: lambda: y)(x)", "x()"), `^$|^limit main.star`},
		"call-flood":      {body("for i in range(1000000): ctx.metrics.value('m')"), `^limit main.star:2(:30: more than 10000 queries and actions in one evaluation|: stopped after)`},
		"sort-key":        {body("x = sorted(range(1000000), key = lambda i: sorted(range(1000), reverse = True))"), `^limit main.star:2: stopped`},
		"enumerate-twice": {body("x = [list(enumerate(range(1000000))) for i in range(1000)]"), `^limit main.star:2: stopped(:| at the memory limit)`},
	}
}

type attack struct{ text, want string }

func TestAttacks(t *testing.T) {
	t.Parallel()
	answers := callerFunc(func(context.Context, kit.Request) (value.Value, error) { return value.Null{}, nil })
	for name, a := range attacks() {
		// One at a time: what is measured is time and memory.
		t.Run(name, func(t *testing.T) { attacked(t, one(a.text), a.want, answers) })
	}
}

// attacked evaluates an attack in a worker of its own and looks at what is said of it, at how long it took, and at the
// memory of the worker. That must not be more than 256 MiB: with its host, which holds no more than the files and one
// answer, that is less than 320 MB for the group.
func attacked(t *testing.T, files sandboxtest.Files, want string, caller kit.Caller) {
	t.Helper()
	// Five seconds instead of thirty, so that a stall is noticed after half of one. Where page faults are slow, filling the memory may
	// take as long.
	limits := sandbox.Limits{Time: 5 * time.Second, Steps: 3_000_000}
	calls := 0 // one at a time
	counted := callerFunc(func(ctx context.Context, r kit.Request) (value.Value, error) {
		calls++
		return caller.Call(ctx, r)
	})
	w := sandboxtest.Worker(t, limits)
	peak := watchMemory(w.(interface{ PID() int }).PID())
	began := time.Now()
	_, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), counted)
	took := time.Since(began)
	got := ""
	if err != nil {
		got = problemOf(err)
	}
	if !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("got %.300s\nwant %s", got, want)
	}
	// The time of a call is the host's: it has limits of its own.
	if took > limits.Time+time.Second+time.Duration(calls)*time.Millisecond {
		t.Errorf("took %s", took)
	}
	kb := peak()
	if kb == 0 || kb > 256<<10 {
		t.Errorf("the worker took %d KiB", kb)
	}
	t.Logf("%s, %d KiB: %.120s", took.Round(time.Millisecond), kb, got)
}

// watchMemory reads again and again how much memory a process has taken at most; what it returns ends that and says how
// many KiB. The peak that wait4 knows is of no use: it is no less than that of the process that started this one.
func watchMemory(pid int) (peak func() int) {
	line := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)
	read := func() (kb int) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // gone, when the worker was ended
		if m := line.FindSubmatch(text); m != nil {
			kb, _ = strconv.Atoi(string(m[1]))
		}
		return kb
	}
	kb := read() // before it is given anything to do, which may end it before this goroutine gets on
	stop, most := make(chan struct{}), make(chan int)
	go func() {
		for {
			kb = max(kb, read())
			select {
			case <-stop:
				most <- kb
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int { close(stop); return <-most }
}

// A worker that is killed from outside is reported with the line at which it was.
func TestKilled(t *testing.T) {
	t.Parallel()
	files := one("def run(ctx):\n    x = 0\n    for i in range(1000000):\n        for j in range(1000):\n            x += 1\n")
	w := sandboxtest.Worker(t, sandbox.Limits{Steps: 1 << 50, Time: time.Minute})
	if _, err := w.Load(t.Context(), "main.star", vocabulary(), files); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range time.Tick(time.Millisecond) {
			if w.(interface{ Line() value.Pos }).Line().Line == 5 {
				break
			}
		}
		p, err := os.FindProcess(w.(interface{ PID() int }).PID())
		if err == nil {
			_ = p.Kill()
		}
	}()
	_, err := w.Evaluate(t.Context(), "main.star", "run", vocabulary(), files, environment(), nobody)
	if !regexp.MustCompile(`^sandbox main.star:[45]: the worker process was ended from outside \(killed\)`).MatchString(problemOf(err)) {
		t.Errorf("got %s", problemOf(err))
	}
	if !strings.Contains(detailOf(err), "for j in range(1000)") && !strings.Contains(detailOf(err), "x += 1") {
		t.Errorf("detail %q", detailOf(err))
	}
}

func TestSpeed(t *testing.T) {
	ready, listed := time.Hour, time.Hour
	for range 20 {
		began := time.Now()
		w, err := sandbox.Spawner{}.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ready = min(ready, time.Since(began))
		w.Close()
		began = time.Now()
		if err := exec.CommandContext(t.Context(), os.Args[0], "-test.list", "^$").Run(); err != nil {
			t.Fatal(err)
		}
		listed = min(listed, time.Since(began))
	}
	t.Logf("spawn to ready: %s, this binary listing no tests: %s", ready, listed)
	if ready > listed*3/2 {
		t.Errorf("spawn to ready takes %s, the binary's own start %s", ready, listed)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	w := sandboxtest.Worker(b, sandbox.Limits{})
	files := one("def run(ctx):\n    for i in range(10):\n        ctx.metrics.value('m')\n")
	caller := callerFunc(func(context.Context, kit.Request) (value.Value, error) { return value.Float(1), nil })
	for b.Loop() {
		if _, err := w.Evaluate(b.Context(), "main.star", "run", vocabulary(), files, environment(), caller); err != nil {
			b.Fatal(err)
		}
	}
}
