package promexpr

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// rewriter says what to change in a copy of a tree. It gets copies and may change them.
type rewriter struct {
	number   func(*parser.NumberLiteral) parser.Expr
	selector func(*parser.VectorSelector)
	span     func(d time.Duration, what string) time.Duration // ranges, steps and offsets
}

// rewrite copies a tree and changes the copy. The tree itself is never touched, so an Expr can be shared.
func rewrite(e parser.Expr, r rewriter) parser.Expr {
	span := func(d time.Duration, what string) time.Duration {
		if r.span == nil || d == 0 {
			return d
		}
		return r.span(d, what)
	}
	switch n := e.(type) {
	case *parser.NumberLiteral:
		c := *n
		if r.number == nil {
			return &c
		}
		return r.number(&c)
	case *parser.StringLiteral:
		c := *n
		return &c
	case *parser.VectorSelector:
		c := *n
		c.LabelMatchers = slices.Clone(n.LabelMatchers)
		c.OriginalOffset = span(n.OriginalOffset, "an offset")
		if r.selector != nil {
			r.selector(&c)
		}
		return &c
	case *parser.MatrixSelector:
		c := *n
		c.VectorSelector = rewrite(n.VectorSelector, r)
		c.Range = span(n.Range, "a range")
		return &c
	case *parser.SubqueryExpr:
		c := *n
		c.Expr = rewrite(n.Expr, r)
		c.Range = span(n.Range, "a range")
		c.Step = span(n.Step, "a step")
		c.OriginalOffset = span(n.OriginalOffset, "an offset")
		return &c
	case *parser.ParenExpr:
		c := *n
		c.Expr = rewrite(n.Expr, r)
		return &c
	case *parser.UnaryExpr:
		c := *n
		c.Expr = rewrite(n.Expr, r)
		return &c
	case *parser.BinaryExpr:
		c := *n
		c.LHS, c.RHS = rewrite(n.LHS, r), rewrite(n.RHS, r)
		return &c
	case *parser.AggregateExpr:
		c := *n
		c.Expr = rewrite(n.Expr, r)
		if n.Param != nil {
			c.Param = rewrite(n.Param, r)
		}
		return &c
	case *parser.Call:
		c := *n
		c.Args = make(parser.Expressions, len(n.Args))
		for i, a := range n.Args {
			c.Args[i] = rewrite(a, r)
		}
		return &c
	}
	// The parser makes no other nodes; DurationExpr hangs in fields and is refused by Parse.
	return e
}
