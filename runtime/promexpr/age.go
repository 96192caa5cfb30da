package promexpr

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// use is one selector with the shift in time under which the expression reads it.
type use struct {
	selector *parser.VectorSelector
	offset   time.Duration // of itself and of every subquery around it
	at       *int64        // of the innermost @, in milliseconds
}

// Selectors returns each distinct selector of the expression, as a query for current values: without
// range, offset and @.
func (e *Expr) Selectors() []*Expr {
	var out []*Expr
	for _, u := range e.uses() {
		out = append(out, &Expr{node: plain(u.selector)})
	}
	return distinct(out)
}

// Timestamps returns, for each distinct selector, a query for when its newest sample was measured, in
// seconds since 1970. An offset is added again, so that now minus the answer is the age of the sample in
// the eyes of the expression, and a week-old sample under "offset 1w" is fresh.
func (e *Expr) Timestamps() []*Expr {
	var out []*Expr
	for _, u := range e.uses() {
		sel := plain(u.selector)
		sel.OriginalOffset, sel.Timestamp, sel.StartOrEnd = u.offset, u.at, u.selector.StartOrEnd
		var node parser.Expr = &parser.Call{Func: parser.Functions["timestamp"], Args: parser.Expressions{sel}}
		if u.offset != 0 {
			node = &parser.BinaryExpr{Op: parser.ADD, LHS: node, RHS: &parser.NumberLiteral{Val: u.offset.Seconds()}, VectorMatching: nil}
		}
		if u.at != nil {
			since := &parser.BinaryExpr{Op: parser.SUB, LHS: &parser.Call{Func: parser.Functions["time"]}, RHS: &parser.NumberLiteral{Val: float64(*u.at) / 1000}}
			node = &parser.BinaryExpr{Op: parser.ADD, LHS: node, RHS: &parser.ParenExpr{Expr: since}}
		}
		out = append(out, &Expr{node: node})
	}
	return distinct(out)
}

func (e *Expr) uses() []use {
	var out []use
	parser.Inspect(e.node, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		u := use{selector: s, offset: s.OriginalOffset, at: s.Timestamp}
		for _, outer := range slices.Backward(path) {
			if q, ok := outer.(*parser.SubqueryExpr); ok && u.at == nil {
				u.offset += q.OriginalOffset
				u.at = q.Timestamp
			}
		}
		out = append(out, u)
		return nil
	})
	return out
}

// plain copies a selector without its modifiers of time.
func plain(s *parser.VectorSelector) *parser.VectorSelector {
	c := *s
	c.LabelMatchers = slices.Clone(s.LabelMatchers)
	c.OriginalOffset, c.Offset, c.Timestamp, c.StartOrEnd = 0, 0, nil, 0
	c.Anchored, c.Smoothed = false, false
	return &c
}

func distinct(in []*Expr) []*Expr {
	seen := map[string]bool{}
	return slices.DeleteFunc(in, func(e *Expr) bool {
		s := e.String()
		dup := seen[s]
		seen[s] = true
		return dup
	})
}
