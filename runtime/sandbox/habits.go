package sandbox

import (
	"regexp"
	"sync"
)

// habit is a mistake that people bring from Python or another language: how Starlark words it, what the line looks
// like, and what to say instead.
type habit struct {
	message *regexp.Regexp
	line    *regexp.Regexp // nil: any
	say     string         // replaces the message; "" keeps it
	hint    string
}

func re(s string) *regexp.Regexp { return regexp.MustCompile(s) }

const round2 = `write "%s" % round(x, 2)`

// habits are tried in order; the first that fits is used. They are compiled when a script has a mistake.
var habits = sync.OnceValue(func() []habit {
	return []habit{
		// Statements that Starlark does not have.
		{re(`^got (try|except|finally)\b`), nil, "Starlark has no try and except", "a call that fails ends the run and the owner is told; pass default=... to a query or must=False to an action to go on"},
		{re(`^got raise\b`), nil, "Starlark has no raise", `write return escalate("..."), or fail("...") for a mistake in the script`},
		{re(`^got class\b`), nil, "Starlark has no classes", "write functions, and keep data in a dict"},
		{re(`^got (import|from)\b`), nil, "Starlark has no import", `write load("//lib/x.star", "name")`},
		{re(`^got with\b`), nil, "Starlark has no with", "write one line after another; clean up in def cleanup(ctx)"},
		{re(`^got (global|nonlocal)\b`), nil, "Starlark has no global and nonlocal", "give the value to the function and return the new one"},
		{re(`^got del\b`), nil, "Starlark has no del", `write d.pop("key")`},
		{re(`^got (yield|async|await)\b`), nil, "Starlark has no generators and no async", "build a list and return it"},
		{re(`^got is\b`), nil, "Starlark has no is", "write == or !=, also for None"},
		{re(`^got .*want '\('`), re(`^\s*load\b`), "load is a word of the language: it cannot be a name", "choose another name, such as cpu_load"},
		{re(`support while loops`), nil, "Starlark has no while here", "write for i in range(10): with a bound, and break"},
		{re(`^while loop not within a function`), nil, "Starlark has no while here", "write for i in range(10): with a bound, and break"},
		{re(`^got `), re(`^\s*assert\b`), "Starlark has no assert", `write if not x: fail("...")`},
		{re(`^got `), re(`^\s*else\s+if\b`), "else if is written elif", "write elif x:"},
		{re(`^got `), re(`^\s*print\s+["'\w]`), "print is a function", `write print("...")`},
		{re(`^got `), re(`^\s*match\s+.*:\s*$`), "Starlark has no match", "write if and elif"},
		{re(`unexpected input character '@'`), nil, "Starlark has no decorators", "call the function that should wrap it"},

		// Expressions.
		{re(`^got string literal`), re(`\b[fF][rR]?["']`), "Starlark has no f-strings", `write "%s is slow" % name, or "{} is slow".format(name)`},
		{re(`^got '\*\*'`), nil, "Starlark has no **", "write x * x"},
		{re(`^got ':'`), re(`:=`), "Starlark has no :=", "assign on a line of its own"},
		{re(`^got ':'`), re(`^\s*def\b.*\w\s*:\s*\w`), "Starlark has no type annotations", "write def f(x): and say the type in the docstring"},
		{re(`^got '-'|^got '>'|^got `), re(`^\s*def\b.*\)\s*->`), "Starlark has no type annotations", "write def f(x): and say the type in the docstring"},
		{re(`^got ':'`), re(`^\s*\w+\s*:\s*\w+(\[.*\])?\s*=`), "Starlark has no type annotations", "write x = ... without a type"},
		{re(`^got '&'`), re(`&&`), "and is written in words", "write a and b"},
		{re(`^got '\|'`), re(`\|\|`), "or is written in words", "write a or b"},
		{re(`unexpected input character '!'`), nil, "not is written in words", "write not x, or x != y"},
		{re(`unexpected input character '\?'`), nil, "Starlark has no ? operator", "write x if condition else y"},
		{re(`unexpected input character ';'|got ';'`), nil, "", "write one statement a line"},
		{re(`unexpected input character '[“”‘’]'`), nil, "a typographic quote", `write straight quotes: "..."`},
		{re(`^got (newline|'\+'|'-'|')`), re(`\+\+|--`), "Starlark has no ++ and --", "write x += 1"},
		{re(`indent`), re(`^ *\t`), "this line begins with a tab, and others with spaces", "indent with four spaces"},
		{re(`^got '\{'`), nil, "blocks are indented, not in braces", "end the line with : and indent the next"},

		// The top level.
		{re(`^if statement not within a function`), nil, "the top level of a file only declares: no if", "put it into a function, def run(ctx):, or write x if condition else y"},
		{re(`^for loop not within a function`), nil, "the top level of a file only declares: no for", "put it into a function, or write [f(x) for x in list]"},
		{re(`^return statement not within a function`), nil, "", "put it into a function, def run(ctx):"},
		{re(`^cannot reassign (global|local|top-level)`), nil, "", "a name at top level is set once: choose another name"},

		// While it runs.
		{re(`^unknown conversion %\.`), nil, "Starlark has no %.2f", round2},
		{re(`^unknown conversion %(\d|-|\+| |,)`), nil, "Starlark has no width in % formats", round2},
		{re(`^format spec features not supported`), nil, "Starlark has no {:.2f}", `write "{}".format(round(x, 2))`},
		{re(`^unknown binary op: (string \+ (int|float|bool|NoneType)|(int|float|bool|NoneType) \+ string)`), nil, "", `write "%s" % x or str(x) to put a value into text`},
		{re(`^local variable \w+ referenced before assignment`), nil, "", "a function that assigns to a name has its own variable of that name: set it first, or choose another name than the one at top level"},
		{re(`frozen`), nil, "", "what is made at top level never changes: build the list or dict in the function"},
		{re(`called recursively`), nil, "", "a function cannot call itself: write a for loop over range(n)"},
		{re(`^key .* not in dict`), re(`labels\[`), "", `the target has no such label: its labels are those of its series in all =, which runbook explain shows; write labels.get("key", "") if it may be missing`},
		{re(`^key .* not in dict`), nil, "", `write d.get("key", default)`},
		{re(`NoneType.* not implemented|not implemented.*NoneType`), nil, "", "the value is None: test x != None first"},
		{re(`^\w+ (<|>|<=|>=) \w+ not implemented`), nil, "", "convert one of them, with int(x), float(x) or str(x)"},
		{re(`division by zero|modulo by zero`), nil, "", "test the divisor before"},
		{re(`during iteration`), nil, "", "loop over a copy: for x in list(xs):"},
		{re(`^unhashable type: (list|dict|set)`), nil, "", "use a tuple as the key"},
		{re(`^NoneType has no \.`), nil, "", "the value is None: test x != None first"},
		{re(`^not enough arguments for format string|^too many arguments for format string`), nil, "", `write "%s %s" % (a, b): one value for each %s, in parentheses`},
	}
})

// pythonNames are names that other languages have, with what to write here.
var pythonNames = map[string]string{
	"true": "write True", "false": "write False", "none": "write None", "null": "write None", "nil": "write None",
	"sum":        "add up in a for loop",
	"isinstance": `write type(x) == "string"`,
	"map":        "write [f(x) for x in xs]",
	"filter":     "write [x for x in xs if f(x)]",
	"open":       "a runbook has no files: ask a query or a plugin",
	"os":         "a runbook has no operating system: ask a query or a plugin",
	"sys":        "a runbook has no operating system: ask a query or a plugin",
	"subprocess": "a runbook starts no processes: use an action of a plugin",
	"requests":   "a runbook has no network: ask a query or a plugin",
	"time":       "the time is ctx.now, and it does not pass while a runbook runs",
	"datetime":   "the time is ctx.now, and it does not pass while a runbook runs",
	"sleep":      "a runbook does not wait: actions return when they are done",
	"random":     "a runbook has no random numbers: the same facts give the same decision",
	"json":       "a query returns values, not text: no JSON is needed",
	"re":         "use string methods: startswith, find, split",
	"math":       "use + - * / // % round() abs() min() max()",
	"pow":        "write x * x",
	"exit":       "write return",
	"quit":       "write return",
	"input":      "a runbook cannot ask: use params, or mode approve",
	"Exception":  `write fail("...")`,
	"super":      "Starlark has no classes",
	"self":       "Starlark has no classes",
}
