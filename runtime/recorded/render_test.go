package recorded

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// What is rendered is what Prometheus' own types say of themselves, and a list of nothing is a list.
func TestRendering(t *testing.T) {
	t.Parallel()
	odd := labels.FromStrings("__name__", "queue_depth", "job", "a \"b\" \\ <c>\n\u2028é", "empty", "")
	bad := labels.FromStrings("job", "\xff")
	histo := &histogram.FloatHistogram{Count: 3, Sum: 4.5, ZeroThreshold: 0.1, ZeroCount: 3}
	var points []promql.FPoint
	for i, v := range []float64{0, math.Copysign(0, -1), 1, -2.5, 1e-9, 1e21, math.MaxFloat64, math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Inf(-1)} {
		points = append(points, promql.FPoint{T: []int64{0, 1, 1700000000123, -1500}[i%4], F: v})
	}
	vector := promql.Vector{{Metric: bad, T: 5, F: 1}, {Metric: odd, T: 7, H: histo}, {F: 2}}
	for _, p := range points {
		vector = append(vector, promql.Sample{Metric: odd, T: p.T, F: p.F})
	}
	for _, v := range []parser.Value{
		vector,
		promql.Vector{},
		promql.Matrix{},
		promql.Scalar{T: 1500, V: math.Inf(1)},
		promql.String{T: 1, V: "é"},
		promql.Matrix{{Metric: odd, Floats: points}, {Floats: points[:1]}, {Metric: bad, Floats: points[:2], Histograms: []promql.HPoint{{T: 9, H: histo}}}},
	} {
		got, err := appendResult(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var is, should any
		if err := json.Unmarshal(got, &is); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if err := json.Unmarshal(text, &should); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(should, is); d != "" {
			t.Errorf("%T (-Prometheus' own, +rendered):\n%s", v, d)
		}
	}
	for _, v := range []parser.Value{promql.Vector(nil), promql.Matrix(nil)} {
		if got, err := appendResult(nil, v); err != nil || string(got) != "[]" {
			t.Errorf("%T of nothing is %s (%v), want []", v, got, err)
		}
	}
}
