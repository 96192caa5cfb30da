package sandbox_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/sandbox/sandboxtest"
)

const empty = "def run(ctx): pass\n"

// crafted are further attacks, by what they are aimed at: values that cannot be, files that load each other or what is
// not theirs, and texts that no parser expects. It is a function as attacks is.
func crafted() map[string]craft {
	run := func(lines ...string) sandboxtest.Files { return one(body(lines...)) }
	load := func(path string) sandboxtest.Files { return one("load(" + quoted(path) + ", \"f\")\n" + empty) }
	file := func(i int) string { return fmt.Sprintf("f%d.star", i) }
	chain := sandboxtest.Files{"main.star": "load(\"//f0.star\", \"f\")\n" + empty}
	for i := range 60 {
		chain[file(i)] = "load(\"//" + file(i+1) + "\", \"f\")\n"
	}
	return map[string]craft{
		// Values.
		"unhashable":        {run("x = {[1]: 1}"), `^script main.star:2:13: unhashable type: list$`},
		"change-while":      {run("x = [1]", "for i in x: x.append(i)"), `^script main.star:3:25: append: cannot append to list during iteration$`},
		"change-dict-while": {run("x = {1: 1}", "for i in x: x[i + 1] = 1"), `^script main.star:3:18: cannot insert into hash table during iteration$`},
		"cyclic-dict":       {run("x = {}", "x[1] = x", "y = str(x)"), `^$`},
		"cyclic-print":      {run("x = []", "x.append(x)", "print(x)"), `^$`},
		"cyclic-equal":      {run("x = []", "x.append(x)", "y = []", "y.append(y)", "return escalate(str(x == y))"), `^script main.star:6:27: comparison exceeded maximum recursion depth$`},
		"escalate-huge":     {run("return escalate('x' * 20000000)"), `^argument main.star:2:21: escalate: argument 1: too large: at most 100000 elements and 4 MiB$`},
		"fail-huge":         {run("fail('x' * 100000000)"), `^limit main.star:2: stopped(:| at the memory limit)`},
		"huge-repr":         {run("x = repr(['x' * 1000000] * 1000)"), `^limit main.star:2: stopped(:| at the memory limit)`},
		"frozen-argument":   {run("ctx.target.labels['a'] = 'b'"), `^script main.star:2:22: cannot insert into frozen hash table$`},
		"ctx-kept":          {one("seen = []\ndef run(ctx): seen.append(ctx)\n"), `^script main.star:2:26: append: cannot append to frozen list$`},
		"shift":             {run("x = 1 << (1 << 40)"), `^script main.star:2:11: 1099511627776 out of range$`},
		"shift-back":        {run("x = 1 >> -1"), `^script main.star:2:11: negative shift count: -1$`},
		"error-in-key":      {run("x = sorted([1, 2], key = lambda i: i // 0)"), `^script main.star:2:42: floored division by zero$`},
		"error-in-sort":     {run("x = sorted(['a', 1])"), `^script main.star:2:15: (int < string|string < int) not implemented$`},
		"elems":             {run("x = list('abc')"), `^script main.star:2:13: list: for parameter 1: got string, want iterable$`},
		"find-again":        {run("x = 'a' * 3000000", "z = [x.find('a' * i + 'b') for i in range(100000)]"), `^limit main.star:3: stopped(:| at the memory limit)`},
		"hash-flood":        {run("x = {}", "for i in range(1000000): x[i * 4294967296] = i"), `^limit main.star:3(:\d+)?: stopped`},
		"shadow":            {run("escalate = 1", "return escalate"), `^script main.star:1:1: run returned a value of type int, which is not an outcome$`},
		"format-positions":  {run("x = '{0}{0}{0}'.format('a' * 1000000)"), `^$`},
		"getattr":           {run("x = getattr(ctx, '__class__')"), `^script main.star:2:16: getattr: ctx has no .__class__$`},
		"no-such-family":    {run("ctx.os.system('id')"), `^unknown-name main.star:2:8: ctx has no .os$`},
		"no-open":           {run("x = open('/etc/passwd')"), `^unknown-name main.star:2:9: undefined: open$`},
		"no-import":         {run("x = __import__('os')"), `^unknown-name main.star:2:9: undefined: __import__$`},
		"no-eval":           {run("x = eval('1')"), `^unknown-name main.star:2:9: undefined: eval$`},
		// Files.
		"load-empty":     {load(""), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-absolute":  {load("/etc/passwd"), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-parent":    {load("../other.star"), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-deep":      {load("//a/../../b.star"), `^load main.star:1:1: load "//a/../../b.star": the path must not hold \.\.$`},
		"load-backslash": {load(`..\b.star`), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-nul":       {load("//a\x00.star"), `^load main.star:1:1: load "//a\\x00.star": the path holds a character that is not allowed$`},
		"load-device":    {load("//dev/zero"), `^load main.star:1:1: load "//dev/zero": only .star files can be loaded$`},
		"load-url":       {load("https://example.com/a.star"), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-module":    {load("@std//a.star"), `^load main.star:1:1: load ".*": the path must begin with // and is taken from the project's root$`},
		"load-itself":    {load("//main.star"), `^load main.star:1:1: files load each other: main.star -> main.star$`},
		"load-cycle": {sandboxtest.Files{
			"main.star": "load(\"//a.star\", \"f\")\n" + empty, "a.star": "load(\"//b.star\", \"f\")\n", "b.star": "load(\"//a.star\", \"f\")\n",
		}, `^load b.star:1:1: files load each other: a.star -> b.star -> a.star$`},
		"load-chain": {chain, `^limit f30.star:1:1: more than 32 files are loaded$`},
		// Texts.
		"nul":             {one("x = 1\x00\n"), `^syntax main.star: the file holds a NUL character$`},
		"bad-utf8":        {one("x = '\xff\xfe'\n"), `^syntax main.star: the file is not UTF-8 text$`},
		"binary":          {one("\x7fELF\x02\x01\x01\x00"), `^syntax main.star: the file holds a NUL character$`},
		"bom":             {one("\ufeff" + empty), `^syntax main.star: the file begins with a byte order mark$`},
		"tabs":            {one("def run(ctx):\n\tpass\n"), `^$`},
		"carriage-return": {one("def run(ctx):\r    pass\r"), `^$`},
		"line-breaks":     {one(strings.Repeat("\n", 200_000) + empty), `^$`},
		"open-string":     {one("x = '''" + strings.Repeat("a", 200_000)), `^syntax main.star:1:5: unexpected EOF in string$`},
		"parens":          {one("x = " + strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000) + "\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"braces":          {one("x = " + strings.Repeat("{1:", 60_000) + "1" + strings.Repeat("}", 60_000) + "\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"nots":            {one("x = " + strings.Repeat("not ", 60_000) + "1\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"minuses":         {one("x = " + strings.Repeat("-", 200_000) + "1\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"lambdas":         {one("x = " + strings.Repeat("lambda: ", 30_000) + "1\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"conditionals":    {one("x = " + strings.Repeat("1 if 1 else ", 20_000) + "1\n"), `^syntax main.star:1:\d+: excessive nesting$`},
		"many-arguments":  {one("def f(**k): pass\nx = f(" + repeated(20_000, "a%d = 1,") + ")\n"), `^syntax main.star:2:5: 20000 keyword arguments in call, limit is 255$`},
		"many-parameters": {one("def f(" + repeated(20_000, "a%d,") + "): pass\n" + empty), `^$`},
		"many-globals":    {one(repeated(20_000, "a%d = 1\n") + empty), `^$|^limit main.star: stopped: one operation used more than `},
		"defs-in-defs":    {one(strings.Repeat("def f():\n", 1000)), `^syntax main.star:2:4: got def, want indent$`},
		"ifs-in-ifs":      {one("def run(ctx):\n" + nestedIfs(60)), `^$`},
		"huge-number":     {one("x = " + strings.Repeat("9", 200_000) + "\n" + empty), `^$|^limit main.star`},
		"huge-float":      {one("x = 1e" + strings.Repeat("9", 200_000) + "\n" + empty), `^syntax main.star:1:200007: invalid float literal$`},
		"long-name":       {one("x = " + strings.Repeat("a", 200_000) + "\n" + empty), `^unknown-name main.star:1:5: undefined: a{100}\.\.\.$`},
		"escapes":         {one("x = '" + strings.Repeat(`\n`, 100_000) + "'\n" + empty), `^$`},
	}
}

type craft struct {
	files sandboxtest.Files
	want  string
}

// quoted is a Starlark string of the text.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\x00", `\x00`).Replace(s) + `"`
}

// repeated is the format with 0 to n-1, one after the other.
func repeated(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func nestedIfs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i+1) + "if 1:\n")
	}
	return b.String() + strings.Repeat(" ", n+1) + "pass\n"
}

func TestCrafted(t *testing.T) {
	t.Parallel()
	for name, a := range crafted() {
		t.Run(name, func(t *testing.T) { attacked(t, a.files, a.want, nobody) })
	}
}
