package sandbox

import (
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/seed1de3961f/runbook/builtins/kit/convert"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// The bounds of what an evaluation may report.
const (
	maxEvents     = 10_000  // in all
	mostEvents    = 20_000  // in all, if the last half are first true and first false ones
	maxPerSite    = 20      // of one condition; the first true and the first false one are always kept
	maxEventBytes = 1 << 20 // of printed text and rendered values, in all
	maxPrint      = 4 << 10 // of one printed text
	maxValue      = 120     // of one rendered value
	eventBatch    = 500     // sent together
)

type statement struct {
	file, line int
	pos        value.Pos
	top, ran   bool
}

type condition struct {
	file    int
	pos     value.Pos
	source  string
	operand [2]string // source of the operands that are not literals; of the whole, in [0], if it does not compare
	seen    [2]string // their last values
	events  int
	yes, no bool
}

// tracer is told by the hooks what a script does.
type tracer struct {
	note  func(file, line int)    // notes the line where it survives the process
	drop  dropped                 // judges a value that nothing uses
	flush func(wire.Events) error // sends a batch

	statements []statement
	conditions []condition

	pending wire.Events
	events  int // recorded so far
	bytes   int
}

// dropped is told the value of an expression statement, where it is and whether that is the top level.
type dropped func(x starlark.Value, pos value.Pos, file int, top bool) error

func (t *tracer) addStatement(s statement) int {
	t.statements = append(t.statements, s)
	return len(t.statements) - 1
}

func (t *tracer) addCondition(c condition) int {
	t.conditions = append(t.conditions, c)
	return len(t.conditions) - 1
}

// hooks are the predeclared functions that rewritten code calls.
func (t *tracer) hooks() starlark.StringDict {
	type body func(n int, args starlark.Tuple) (starlark.Value, error)
	hooks := starlark.StringDict{}
	for name, f := range map[string]body{
		hookStmt: t.onStmt, hookCond: t.onCond, hookDrop: t.onDrop,
		hookLeft: func(n int, args starlark.Tuple) (starlark.Value, error) { return t.onOperand(n, 0, args[1]) },
		hookRite: func(n int, args starlark.Tuple) (starlark.Value, error) { return t.onOperand(n, 1, args[1]) },
	} {
		hooks[name] = starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			n, _ := args[0].(starlark.Int).Int64()
			return f(int(n), args)
		})
	}
	return hooks
}

func (t *tracer) onStmt(n int, _ starlark.Tuple) (starlark.Value, error) {
	s := &t.statements[n]
	s.ran = true
	t.note(s.file, s.line)
	return starlark.None, nil
}

func (t *tracer) onDrop(n int, args starlark.Tuple) (starlark.Value, error) {
	s := &t.statements[n]
	return args[1], t.drop(args[1], s.pos, s.file, s.top)
}

func (t *tracer) onOperand(n, side int, x starlark.Value) (starlark.Value, error) {
	if c := &t.conditions[n]; t.wants(c) {
		// Rendered at once: the value may change before the condition is decided.
		c.seen[side] = convert.Render(x, maxValue)
	}
	return x, nil
}

// wants says whether the next event of c can be recorded.
func (t *tracer) wants(c *condition) bool {
	return c.events < maxPerSite && t.events < maxEvents || (!c.yes || !c.no) && t.events < mostEvents
}

func (t *tracer) onCond(n int, args starlark.Tuple) (starlark.Value, error) {
	x := args[1]
	c := &t.conditions[n]
	result, first := "false", !c.no
	if x.Truth() {
		result, first = "true", !c.yes
		c.yes = true
	} else {
		c.no = true
	}
	if (!first || t.events >= mostEvents) && (c.events >= maxPerSite || t.events >= maxEvents) {
		t.pending.Dropped++
		return x, nil
	}
	c.events++
	e := wire.Event{Kind: "branch", Pos: c.pos, Source: c.source, Result: result}
	if c.operand[0] == c.source && c.source != "" { // it does not compare: the operand is the condition
		c.seen[0] = convert.Render(x, maxValue)
	}
	for side, source := range c.operand {
		if source != "" && t.bytes < maxEventBytes {
			e.Values = append(e.Values, wire.Seen{Source: source, Value: c.seen[side]})
			t.bytes += len(c.seen[side])
		}
	}
	return x, t.add(e)
}

func (t *tracer) print(pos value.Pos, text string) error {
	if t.events >= maxEvents || t.bytes >= maxEventBytes {
		t.pending.Dropped++
		return nil
	}
	text = clip(strings.ToValidUTF8(text, "\uFFFD"), maxPrint)
	t.bytes += len(text)
	return t.add(wire.Event{Kind: "print", Pos: pos, Result: text})
}

func (t *tracer) add(e wire.Event) error {
	t.events++
	t.pending.List = append(t.pending.List, e)
	if len(t.pending.List) < eventBatch {
		return nil
	}
	return t.flush(t.take())
}

// take returns what has gathered and forgets it.
func (t *tracer) take() wire.Events {
	e := t.pending
	t.pending = wire.Events{}
	return e
}

// coverage is what was executed of each file.
func (t *tracer) coverage(paths []string) []wire.Coverage {
	list := make([]wire.Coverage, len(paths))
	for i, p := range paths {
		list[i].Path = p
	}
	for _, s := range t.statements {
		c := &list[s.file]
		c.Statements = append(c.Statements, s.line)
		if s.ran {
			c.Ran = append(c.Ran, s.line)
		}
	}
	for i := range list {
		slices.Sort(list[i].Statements)
		list[i].Statements = slices.Compact(list[i].Statements)
		slices.Sort(list[i].Ran)
		list[i].Ran = slices.Compact(list[i].Ran)
	}
	for _, x := range t.conditions {
		c := &list[x.file]
		c.Conditions = append(c.Conditions, wire.Arm{Pos: x.pos, Source: x.source, True: x.yes, False: x.no})
	}
	return list
}
