package recorded

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Instant evaluates a PromQL expression at t. A scalar is one sample without labels. As in Prometheus' API each sample's
// time is t; ask timestamp(...) for when a value was measured.
//
// Errors are problems: query for an expression that is not PromQL or answers with no instant vector, metrics-source for
// one that could not be carried out (samples limit, timeout, many-to-many matching).
func (db *DB) Instant(ctx context.Context, expr string, t time.Time) ([]kit.Sample, error) {
	q, err := db.engine.NewInstantQuery(ctx, db, nil, expr, t)
	if err != nil {
		return nil, problem.Wrap(problem.Query, err, "query %q", expr)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, problem.Wrap(problem.MetricsSource, res.Err, "query %q", expr)
	}
	switch v := res.Value.(type) {
	case promql.Scalar:
		return []kit.Sample{{Labels: map[string]string{}, Value: v.V, At: time.UnixMilli(v.T).UTC()}}, nil
	case promql.Vector:
		out := make([]kit.Sample, 0, len(v))
		for _, s := range v {
			if s.H != nil {
				return nil, histogramProblem(expr, s.Metric)
			}
			out = append(out, kit.Sample{Labels: s.Metric.Map(), Value: s.F, At: time.UnixMilli(s.T).UTC()})
		}
		return out, nil
	}
	return nil, problem.New(problem.Query, "query %q answers with a %s, not with one value per series", expr, parser.DocumentedType(res.Value.Type())).
		WithHint("ask for a range with a range query, or put a function such as max_over_time(...) around it")
}

// Range evaluates a PromQL expression at start, start+step, ... up to end. Series are sorted by their labels. The errors
// are those of Instant.
func (db *DB) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error) {
	if step <= 0 || end.Before(start) {
		return nil, problem.New(problem.Query, "query %q: a range query needs a step above zero and an end that is not before its start", expr)
	}
	q, err := db.engine.NewRangeQuery(ctx, db, nil, expr, start, end, step)
	if err != nil {
		return nil, problem.Wrap(problem.Query, err, "query %q", expr)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, problem.Wrap(problem.MetricsSource, res.Err, "query %q", expr)
	}
	m, ok := res.Value.(promql.Matrix)
	if !ok {
		return nil, problem.New(problem.Internal, "range query %q answered with a %s", expr, res.Value.Type())
	}
	out := make([]kit.Series, 0, len(m))
	for _, s := range m {
		if len(s.Histograms) > 0 {
			return nil, histogramProblem(expr, s.Metric)
		}
		points := make([]kit.Point, 0, len(s.Floats))
		for _, p := range s.Floats {
			points = append(points, kit.Point{At: time.UnixMilli(p.T).UTC(), Value: p.F})
		}
		out = append(out, kit.Series{Labels: s.Metric.Map(), Points: points})
	}
	return out, nil
}

func histogramProblem(expr string, l labels.Labels) error {
	return problem.New(problem.Query, "query %q answers with a native histogram for %s, which cannot be compared", expr, fmt.Sprint(l)).
		WithHint("take a number from it, for example histogram_quantile(0.99, ...)")
}
