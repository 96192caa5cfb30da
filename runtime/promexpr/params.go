package promexpr

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// filledText is an expression in which each $name was replaced by a literal of a value that occurs
// nowhere else. The parser reads that; then the literals are found in the tree by their value, and the
// parameters take their place. Every literal is positive and stands between spaces, so the tree has the
// same shape whatever the parameters are.
type filledText struct {
	text  string
	holes []hole
}

// hole is one use of a parameter.
type hole struct {
	name     string
	val      float64 // seconds for a duration
	duration bool
	mark     float64 // the value of the literal that stands for it
	literal  string
	from, to int // in the text as written
	at, end  int // in the filled text
	used     int // places in the tree
}

// firstMark is the value of the first literal; each next one is one higher. As seconds it is 11 days and
// some, so it is valid in every place in which a number or a duration is.
const firstMark = 1000003

func fillIn(text string, params map[string]value.Value) (*filledText, error) {
	f := &filledText{}
	var out strings.Builder
	mark := firstMark
	last := 0
	for _, at := range dollars(text) {
		end := at + 1
		for end < len(text) && isNameByte(text[end], end > at+1) {
			end++
		}
		name := text[at+1 : end]
		if name == "" {
			return nil, problemAt(text, at, "$ is not followed by the name of a parameter").WithHint("write $name, where name is an entry of params")
		}
		h, err := newHole(text, at, name, params)
		if err != nil {
			return nil, err
		}
		for strings.Contains(text, strconv.Itoa(mark)) {
			mark++
		}
		h.mark, h.literal = float64(mark), strconv.Itoa(mark)
		mark++
		h.from, h.to = at, end
		out.WriteString(text[last:at])
		out.WriteByte(' ')
		h.at = out.Len()
		out.WriteString(h.literal)
		h.end = out.Len()
		out.WriteByte(' ')
		last = end
		f.holes = append(f.holes, h)
	}
	out.WriteString(text[last:])
	f.text = out.String()
	return f, nil
}

func newHole(text string, at int, name string, params map[string]value.Value) (hole, error) {
	h := hole{name: name}
	v, ok := params[name]
	if !ok {
		names := make([]string, 0, len(params))
		for n := range params {
			names = append(names, n)
		}
		slices.Sort(names)
		p := problemAt(text, at, "there is no parameter $%s%s", name, problem.DidYouMean(name, names))
		if len(names) == 0 {
			return h, p.WithHint("declare it: params = {%q: param.float(...)}", name)
		}
		return h, p.WithHint("the parameters are: $%s", strings.Join(names, ", $"))
	}
	switch v := v.(type) {
	case value.Int:
		h.val = float64(v)
	case value.Big:
		h.val, _ = strconv.ParseFloat(string(v), 64) // infinite when out of range, which is refused below
	case value.Float:
		h.val = float64(v)
	case value.Duration:
		h.val, h.duration = time.Duration(v).Seconds(), true
	default:
		return h, problemAt(text, at, "$%s is a %s: only a number or a duration can be a parameter of a query", name, v.Kind()).
			WithHint("to choose series by a label, pass where = {\"label\": value}")
	}
	if math.IsNaN(h.val) || math.IsInf(h.val, 0) {
		return h, problemAt(text, at, "$%s is %v: only a finite number can be a parameter of a query", name, h.val)
	}
	return h, nil
}

func isNameByte(c byte, digits bool) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || digits && '0' <= c && c <= '9'
}

// dollars returns the places of each $ that is outside of strings and comments, by PromQL's own rules: a
// backslash escapes in '...' and "..." but not in `...`, and a comment goes from # to the end of the line.
func dollars(text string) []int {
	var at []int
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '$':
			at = append(at, i)
		case '#':
			for i+1 < len(text) && text[i+1] != '\n' && text[i+1] != '\r' {
				i++
			}
		case '"', '\'', '`':
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' && c != '`' {
					i++
				}
			}
		}
	}
	return at
}

// original maps a place in the filled text to the text as written.
func (f *filledText) original(pos int) int {
	shift := 0
	for _, h := range f.holes {
		switch {
		case pos < h.at:
			return pos - shift
		case pos <= h.end:
			return h.from
		}
		shift = h.end + 1 - h.to
	}
	return pos - shift
}

// at returns the parameter that stands at a place in the filled text.
func (f *filledText) at(pos int) (hole, bool) {
	for _, h := range f.holes {
		if h.at <= pos && pos <= h.end {
			return h, true
		}
	}
	return hole{}, false
}

// unfill gives a message of the parser the names that the author wrote.
func (f *filledText) unfill(msg string) string {
	for _, h := range f.holes {
		msg = strings.ReplaceAll(msg, strconv.Quote(h.literal), "$"+h.name)
		msg = strings.ReplaceAll(msg, h.literal, "$"+h.name)
	}
	return msg
}

// resolve puts the parameters into the tree.
func (f *filledText) resolve(text string, node parser.Expr) (parser.Expr, error) {
	if len(f.holes) == 0 {
		return node, nil
	}
	var failed error
	fail := func(h *hole, format string, args ...any) {
		if failed == nil {
			failed = problemAt(text, h.from, format, args...)
		}
	}
	find := func(mark float64) (*hole, float64) {
		for i := range f.holes {
			if h := &f.holes[i]; h.mark == math.Abs(mark) {
				h.used++
				return h, math.Copysign(1, mark)
			}
		}
		return nil, 1
	}
	span := func(d time.Duration, what string) time.Duration {
		h, sign := find(d.Seconds())
		switch {
		case h == nil:
			return d
		case !h.duration:
			fail(h, "$%s is a number: %s is a duration", h.name, what)
		case what != "an offset" && h.val <= 0:
			fail(h, "$%s is 0s: %s must be longer", h.name, what)
		}
		return time.Duration(math.Round(sign * h.val * float64(time.Second)))
	}
	node = rewrite(node, rewriter{
		number: func(n *parser.NumberLiteral) parser.Expr {
			h, sign := find(n.Val)
			if h == nil {
				return n
			}
			n.Val = sign*h.val + 0 // -0 becomes 0, which needs no parentheses
			if n.Val < 0 && sign > 0 {
				// In text, -5 ^ 2 is -(5 ^ 2).
				return &parser.ParenExpr{Expr: n, PosRange: n.PosRange}
			}
			return n
		},
		span: span,
	})
	if failed != nil {
		return nil, failed
	}
	for _, h := range f.holes {
		if h.used != 1 {
			return nil, problemAt(text, h.from, "$%s cannot stand here", h.name).
				WithHint("a parameter can be a number, a range, the step of a subquery or an offset")
		}
	}
	return node, nil
}

// noDurationArithmetic refuses [5m * 2] and offset step(): most servers have them switched off, and the age
// of a sample could not be judged.
func noDurationArithmetic(text string, f *filledText, node parser.Expr) error {
	var found *parser.DurationExpr
	parser.Inspect(node, func(n parser.Node, _ []parser.Node) error {
		var exprs []*parser.DurationExpr
		switch n := n.(type) {
		case *parser.VectorSelector:
			exprs = append(exprs, n.OriginalOffsetExpr)
		case *parser.MatrixSelector:
			exprs = append(exprs, n.RangeExpr)
		case *parser.SubqueryExpr:
			exprs = append(exprs, n.RangeExpr, n.StepExpr, n.OriginalOffsetExpr)
		}
		for _, e := range exprs {
			if e != nil && found == nil {
				found = e
			}
		}
		return nil
	})
	if found == nil {
		return nil
	}
	return problemAt(text, f.original(int(found.PositionRange().Start)), "%s is arithmetic on durations, which is not supported", f.unfill(found.String())).
		WithHint("write the duration itself, or a duration parameter such as [$window]")
}
