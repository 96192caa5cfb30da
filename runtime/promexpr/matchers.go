package promexpr

import (
	"slices"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// WithMatchers returns the expression with label = "value" added to every selector. It refuses an
// expression without a selector, an empty value (which would select the series that lack the label) and
// a label for which a selector already asks for another value.
func (e *Expr) WithMatchers(where map[string]string) (*Expr, error) {
	if len(where) == 0 {
		return e, nil
	}
	names := make([]string, 0, len(where))
	for name, val := range where {
		switch {
		case name == "" || !utf8.ValidString(name) || !utf8.ValidString(val):
			return nil, problem.New(problem.Query, "where: %q: %q is not a label", name, val)
		case val == "":
			return nil, problem.New(problem.Query, "where: the value of label %q is empty", name).
				WithHint("an empty value would select the series that do not have the label; leave it out")
		}
		names = append(names, name)
	}
	slices.Sort(names)
	selectors := 0
	var failed error
	node := rewrite(e.node, rewriter{selector: func(s *parser.VectorSelector) {
		selectors++
		for _, name := range names {
			if err := addMatcher(s, name, where[name]); err != nil && failed == nil {
				failed = err
			}
		}
	}})
	switch {
	case failed != nil:
		return nil, failed
	case selectors == 0:
		return nil, problem.New(problem.Query, "where: %s selects no series, so there is nothing to match", e).
			WithHint("leave where out")
	}
	return &Expr{node: node}, nil
}

func addMatcher(s *parser.VectorSelector, name, val string) error {
	for _, m := range s.LabelMatchers {
		if m.Name != name || m.Type != labels.MatchEqual {
			continue
		}
		if m.Value == val {
			return nil
		}
		return problem.New(problem.Query, "where: label %q cannot be %q: %s already asks for %q", name, val, s, m.Value).
			WithHint("leave %s out of the selector or out of where", name)
	}
	m, err := labels.NewMatcher(labels.MatchEqual, name, val)
	if err != nil {
		return problem.Wrap(problem.Query, err, "where: label %q", name)
	}
	s.LabelMatchers = append(s.LabelMatchers, m)
	return nil
}
