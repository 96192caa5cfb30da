package recorded

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// appendResult appends an engine's result as Prometheus' API writes it. Prometheus has an encoder of its own for numbers, too: those of encoding/json
// take longer than most queries.
func appendResult(b []byte, v parser.Value) ([]byte, error) {
	switch v := v.(type) {
	case promql.Vector:
		return appendList(b, v, func(b []byte, s promql.Sample) ([]byte, error) {
			if s.H != nil {
				return appendOther(b, s)
			}
			b = append(appendMetric(b, s.Metric), `,"value":`...)
			return append(appendPoint(b, s.T, s.F), '}'), nil
		})
	case promql.Matrix:
		return appendList(b, v, func(b []byte, s promql.Series) ([]byte, error) {
			if len(s.Histograms) > 0 {
				return appendOther(b, s)
			}
			b = append(appendMetric(b, s.Metric), `,"values":`...)
			b, err := appendList(b, s.Floats, func(b []byte, p promql.FPoint) ([]byte, error) { return appendPoint(b, p.T, p.F), nil })
			return append(b, '}'), err
		})
	}
	return appendOther(b, v)
}

func appendList[T any](b []byte, all []T, one func([]byte, T) ([]byte, error)) ([]byte, error) {
	b = append(b, '[')
	for i, x := range all {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = one(b, x); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// appendMetric begins the object of a series. What is no UTF-8 becomes U+FFFD, as encoding/json does it.
func appendMetric(b []byte, ls labels.Labels) []byte {
	b = append(b, `{"metric":{`...)
	ls.Range(func(l labels.Label) {
		b, _ = jsontext.AppendQuote(b, l.Name)
		b, _ = jsontext.AppendQuote(append(b, ':'), l.Value)
		b = append(b, ',')
	})
	return append(bytes.TrimSuffix(b, []byte{','}), '}')
}

func appendPoint(b []byte, t millis, v float64) []byte {
	b = strconv.AppendFloat(append(b, '['), float64(t)/1000, 'f', -1, 64)
	b = strconv.AppendFloat(append(b, `,"`...), v, 'f', -1, 64)
	return append(b, `"]`...)
}

func appendOther(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(b, text...), err
}
