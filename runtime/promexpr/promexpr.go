// Package promexpr reads PromQL: parameters, label matchers and the shape of a symptom, all on the
// parsed tree.
//
// Promise: nothing that a runbook passes in is ever spliced into text. A parameter becomes a number in
// the tree, a where= entry becomes a label matcher, and what is sent to a server is printed from that
// tree; so neither can change what a query asks for beyond its own place. Expr is immutable.
package promexpr

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// maxLength bounds an expression, which may come from an untrusted worker. The longest rule of the
// kubernetes-mixin has under 2 KiB.
const maxLength = 8 << 10

// Expr is a parsed expression whose parameters are filled in.
type Expr struct {
	node parser.Expr
}

// Parse reads an expression and puts params in the place of each $name. Only ints, floats and durations
// can be parameters of a query. An error is a *problem.Problem without a file position: the caller knows
// where the text was written; its message and detail say where in the text.
func Parse(text string, params map[string]value.Value) (*Expr, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return nil, problem.New(problem.Query, "the PromQL expression is empty")
	case len(text) > maxLength:
		return nil, problem.New(problem.Query, "the PromQL expression has %d bytes: the limit is %d", len(text), maxLength)
	case !utf8.ValidString(text):
		return nil, problem.New(problem.Query, "the PromQL expression is not valid UTF-8")
	}
	filled, err := fillIn(text, params)
	if err != nil {
		return nil, err
	}
	node, err := parser.NewParser(parser.Options{}).ParseExpr(filled.text)
	if err != nil {
		return nil, parseProblem(text, filled, err)
	}
	if err := noDurationArithmetic(text, filled, node); err != nil {
		return nil, err
	}
	if node, err = filled.resolve(text, node); err != nil {
		return nil, err
	}
	return &Expr{node: node}, nil
}

// String is the expression as it is sent to a server.
func (e *Expr) String() string { return e.node.String() }

// IsSelector says whether the whole expression is one selector of current values, such as up{job="x"}.
func (e *Expr) IsSelector() bool {
	_, ok := unwrap(e.node).(*parser.VectorSelector)
	return ok
}

// IsVector says whether the expression is an instant vector: a value for each set of labels.
func (e *Expr) IsVector() bool { return e.node.Type() == parser.ValueTypeVector }

// unwrap removes parentheses.
func unwrap(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// parseProblem turns the parser's first error into a Problem that speaks of the text as written.
func parseProblem(text string, f *filledText, err error) error {
	var list parser.ParseErrors
	if !errors.As(err, &list) || len(list) == 0 {
		return problem.Wrap(problem.Query, err, "not valid PromQL")
	}
	first := list[0]
	p := problemAt(text, f.original(int(first.PositionRange.Start)), "%s", f.unfill(first.Err.Error()))
	if at, ok := f.at(int(first.PositionRange.Start)); ok {
		p = p.WithHint("$%s can stand where a number or a duration can", at.name)
	}
	return p
}

// problemAt makes a Problem that points at a byte of the text.
func problemAt(text string, offset int, format string, args ...any) *problem.Problem {
	offset = max(0, min(offset, len(text)))
	start := strings.LastIndexByte(text[:offset], '\n') + 1
	line := strings.Count(text[:start], "\n") + 1
	source, _, _ := strings.Cut(text[start:], "\n")
	column := utf8.RuneCountInString(text[start:offset]) + 1
	where := fmt.Sprintf("column %d", column)
	if strings.Contains(strings.TrimSpace(text), "\n") {
		where = fmt.Sprintf("line %d, column %d", line, column)
	}
	source, column = window(source, column)
	return problem.New(problem.Query, "PromQL, %s: %s", where, fmt.Sprintf(format, args...)).
		WithDetail("  "+source, "  "+strings.Repeat(" ", column-1)+"^")
}

// window cuts a long line to the part around a column, so that the caret is seen on a terminal.
func window(line string, column int) (string, int) {
	const before, width = 50, 100
	runes := []rune(strings.ReplaceAll(line, "\t", " "))
	if len(runes) <= width {
		return string(runes), column
	}
	from := max(0, column-1-before)
	to := min(len(runes), from+width)
	out := string(runes[from:to])
	if to < len(runes) {
		out += "..."
	}
	if from > 0 {
		return "..." + out, column - from + 3
	}
	return out, column
}
