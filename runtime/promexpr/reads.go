package promexpr

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Read is a selector of an expression, and which samples of it the expression reads.
type Read struct {
	// Selector is a query for current values: without range, offset and @.
	Selector string
	// Named says that it chooses one metric by its name.
	Named bool
	// Back is how far before the evaluation the oldest of them may be: ranges, offsets and subqueries together, without the
	// lookback of the server. With @ it is how far before At.
	Back time.Duration
	// At is the time of an @, zero if there is none.
	At time.Time
}

// Reads returns every selector of the expression with what it reads.
func (e *Expr) Reads() []Read {
	var out []Read
	parser.Inspect(e.node, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		r := Read{Selector: plain(s).String(), Back: s.OriginalOffset}
		for _, m := range s.LabelMatchers {
			r.Named = r.Named || m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != ""
		}
		at := s.Timestamp
		for _, outer := range slices.Backward(path) {
			switch outer := outer.(type) {
			case *parser.MatrixSelector:
				r.Back += outer.Range
			case *parser.SubqueryExpr:
				r.Back += outer.Range
				if at == nil {
					r.Back += outer.OriginalOffset
					at = outer.Timestamp
				}
			}
		}
		r.Back = max(r.Back, 0)
		if at != nil {
			r.At = time.UnixMilli(*at).UTC()
		}
		out = append(out, r)
		return nil
	})
	return out
}
