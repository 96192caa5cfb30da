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

// sites are the places of one file that its hooks tell of, each by its index.
type sites struct {
	statements []statement
	conditions []condition
}

type statement struct {
	pos value.Pos
	top bool
}

type condition struct {
	pos     value.Pos
	source  string
	operand [2]string // source of the operands that are not literals; of the whole, in [0], if it does not compare
	given   [2]int    // which argument of its hook an operand is; 0: it has a hook of its own
}

// fileTrace is what was seen of one file in one run.
type fileTrace struct {
	*sites
	file int    // its number
	ran  []bool // of each statement
	arms []arms // of each condition
}

type arms struct {
	seen    [2]string // the last values of the operands
	events  int
	yes, no bool
}

// tracer is told by the hooks what a script does.
type tracer struct {
	note  func(file, line int)    // notes the line where it survives the process
	drop  dropped                 // judges a value that nothing uses
	flush func(wire.Events) error // sends a batch

	files []*fileTrace

	pending wire.Events
	events  int // recorded so far
	bytes   int
}

// dropped is told the value of an expression statement, where it is and whether that is the top level.
type dropped func(x starlark.Value, pos value.Pos, file int, top bool) error

// file begins to trace a file.
func (t *tracer) file(number int, s *sites) *fileTrace {
	f := &fileTrace{sites: s, file: number, ran: make([]bool, len(s.statements)), arms: make([]arms, len(s.conditions))}
	t.files = append(t.files, f)
	return f
}

// isHook says whether a name is one of the hooks.
func isHook(name string) bool {
	switch name {
	case hookStmt, hookCond, hookLeft, hookRite, hookDrop:
		return true
	}
	return false
}

// hooks are the predeclared functions that the rewritten code of a file calls.
func (t *tracer) hooks(f *fileTrace) starlark.StringDict {
	type body func(n int, args starlark.Tuple) (starlark.Value, error)
	hooks := starlark.StringDict{}
	for name, body := range map[string]body{
		hookStmt: func(n int, _ starlark.Tuple) (starlark.Value, error) {
			f.ran[n] = true
			t.note(f.file, f.statements[n].pos.Line)
			return starlark.None, nil
		},
		hookDrop: func(n int, args starlark.Tuple) (starlark.Value, error) {
			s := &f.statements[n]
			return args[1], t.drop(args[1], s.pos, f.file, s.top)
		},
		hookCond: func(n int, args starlark.Tuple) (starlark.Value, error) { return t.onCond(f, n, args) },
		hookLeft: func(n int, args starlark.Tuple) (starlark.Value, error) { return t.onOperand(f, n, 0, args[1]) },
		hookRite: func(n int, args starlark.Tuple) (starlark.Value, error) { return t.onOperand(f, n, 1, args[1]) },
	} {
		hooks[name] = starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			n, _ := args[0].(starlark.Int).Int64()
			return body(int(n), args)
		})
	}
	return hooks
}

func (t *tracer) onOperand(f *fileTrace, n, side int, x starlark.Value) (starlark.Value, error) {
	if a := &f.arms[n]; t.wants(a) {
		// Rendered at once: the value may change before the condition is decided.
		a.seen[side] = convert.Render(x, maxValue)
	}
	return x, nil
}

// wants says whether the next event of a condition can be recorded.
func (t *tracer) wants(a *arms) bool {
	return a.events < maxPerSite && t.events < maxEvents || (!a.yes || !a.no) && t.events < mostEvents
}

func (t *tracer) onCond(f *fileTrace, n int, args starlark.Tuple) (starlark.Value, error) {
	x, c, a := args[1], &f.conditions[n], &f.arms[n]
	result, first := "false", !a.no
	if x.Truth() {
		result, first = "true", !a.yes
		a.yes = true
	} else {
		a.no = true
	}
	if (!first || t.events >= mostEvents) && (a.events >= maxPerSite || t.events >= maxEvents) {
		t.pending.Dropped++
		return x, nil
	}
	a.events++
	e := wire.Event{Kind: "branch", Pos: c.pos, Source: c.source, Result: result}
	if c.operand[0] == c.source && c.source != "" { // it does not compare: the operand is the condition
		a.seen[0] = convert.Render(x, maxValue)
	}
	for side, source := range c.operand {
		if c.given[side] > 0 {
			a.seen[side] = convert.Render(args[c.given[side]], maxValue)
		}
		if source != "" && t.bytes < maxEventBytes {
			e.Values = append(e.Values, wire.Seen{Source: source, Value: a.seen[side]})
			t.bytes += len(a.seen[side])
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
	for _, f := range t.files {
		c := &list[f.file]
		c.Statements = make([]int, len(f.statements))
		c.Ran = make([]int, 0, len(f.statements))
		for i, s := range f.statements {
			c.Statements[i] = s.pos.Line
			if f.ran[i] {
				c.Ran = append(c.Ran, s.pos.Line)
			}
		}
		slices.Sort(c.Statements)
		c.Statements = slices.Compact(c.Statements)
		slices.Sort(c.Ran)
		c.Ran = slices.Compact(c.Ran)
		c.Conditions = make([]wire.Arm, len(f.conditions))
		for i, x := range f.conditions {
			c.Conditions[i] = wire.Arm{Pos: x.pos, Source: x.source, True: f.arms[i].yes, False: f.arms[i].no}
		}
	}
	return list
}
