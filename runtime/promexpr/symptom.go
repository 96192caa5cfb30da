package promexpr

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Symptom is a comparison with a constant: the engine asks for Left and compares itself, so that it sees
// a healthy value as healthy and an absent one as unknown.
type Symptom struct {
	Left      *Expr
	Op        string // ">", "<", ">=", "<=", "==" or "!="
	Threshold float64
}

// String is the comparison as PromQL.
func (s Symptom) String() string {
	return fmt.Sprintf("%s %s %s", s.Left, s.Op, strconv.FormatFloat(s.Threshold, 'f', -1, 64))
}

// Holds says whether a value has the symptom. NaN never has: no number is no evidence.
func (s Symptom) Holds(v float64) bool { return Compare(v, s.Op, s.Threshold) }

// Compare is Holds for a comparison that was kept in a record. An unknown op never holds.
func Compare(v float64, op string, threshold float64) bool {
	if math.IsNaN(v) || math.IsNaN(threshold) {
		return false
	}
	switch op {
	case ">":
		return v > threshold
	case "<":
		return v < threshold
	case ">=":
		return v >= threshold
	case "<=":
		return v <= threshold
	case "==":
		return v == threshold
	case "!=":
		return v != threshold
	}
	return false
}

var flipped = map[string]string{">": "<", "<": ">", ">=": "<=", "<=": ">=", "==": "==", "!=": "!="}

// Symptom splits the expression at its root: a vector, a comparison and a constant, in either order.
func (e *Expr) Symptom() (Symptom, error) {
	bad := func(format string, args ...any) (Symptom, error) {
		return Symptom{}, problem.New(problem.Query, "%s %s", e, fmt.Sprintf(format, args...)).
			WithHint("write a comparison of one query with a number, such as queue_depth > 100")
	}
	b, ok := unwrap(e.node).(*parser.BinaryExpr)
	switch {
	case !ok:
		return bad("is not a comparison")
	case b.Op.IsSetOperator():
		return bad("has %s at its root, not a comparison: a healthy value could not be told from a missing one", b.Op)
	case !b.Op.IsComparisonOperator():
		return bad("has %s at its root, not a comparison", b.Op)
	case b.ReturnBool:
		return bad("compares with bool, which gives 0 or 1 instead of the value: leave bool out")
	}
	left, op, constant := b.LHS, b.Op.String(), b.RHS
	threshold, ok := fold(constant)
	if !ok {
		left, op, constant = b.RHS, flipped[op], b.LHS
		if threshold, ok = fold(constant); !ok {
			return bad("compares two queries, not a query with a number: subtract or divide them and compare that, such as a - b > 0")
		}
	}
	switch {
	case left.Type() != parser.ValueTypeVector:
		return bad("compares two numbers")
	case math.IsNaN(threshold) || math.IsInf(threshold, 0):
		return bad("compares with %v, which nothing can be measured against", threshold)
	}
	return Symptom{Left: &Expr{node: left}, Op: op, Threshold: threshold}, nil
}

// fold computes a scalar that needs no data: 5, -(2 * 1024), 80 / 100.
func fold(e parser.Expr) (float64, bool) {
	switch n := unwrap(e).(type) {
	case *parser.NumberLiteral:
		return n.Val, true
	case *parser.UnaryExpr:
		v, ok := fold(n.Expr)
		if n.Op == parser.SUB {
			v = -v
		}
		return v, ok
	case *parser.BinaryExpr:
		l, ok := fold(n.LHS)
		if !ok {
			return 0, false
		}
		r, ok := fold(n.RHS)
		if !ok {
			return 0, false
		}
		switch n.Op {
		case parser.ADD:
			return l + r, true
		case parser.SUB:
			return l - r, true
		case parser.MUL:
			return l * r, true
		case parser.DIV:
			return l / r, true
		case parser.MOD:
			return math.Mod(l, r), true
		case parser.POW:
			return math.Pow(l, r), true
		}
	}
	return 0, false
}
