package recorded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// answerSeries is one series of an answer.
type answerSeries struct {
	Metric     map[string]string `json:"metric"`
	Values     []answerPoint     `json:"values"`
	Value      *answerPoint      `json:"value"`
	Histograms json.RawMessage   `json:"histograms"`
	Histogram  json.RawMessage   `json:"histogram"`
}

// answerPoint is [seconds, "value"].
type answerPoint struct {
	t millis
	v float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *answerPoint) UnmarshalJSON(text []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(text, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("a point must be [seconds, \"value\"], got %.60s", text)
	}
	seconds, err := strconv.ParseFloat(string(pair[0]), 64)
	if err != nil || math.Abs(seconds) > math.MaxInt64/1000 {
		return fmt.Errorf("a point's time must be seconds since 1970, got %.60s", pair[0])
	}
	var s string
	if json.Unmarshal(pair[1], &s) != nil {
		s = string(pair[1])
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("a point's value must be a number, got %.60s", pair[1])
	}
	p.t, p.v = int64(math.Round(seconds*1000)), v
	return nil
}

// json reads a saved answer of Prometheus' HTTP API: the whole of it, its data, or the list of its series. The warnings say
// that the samples are those of a range query and not the ones that were scraped.
func (l *loader) json(text []byte) ([]string, error) {
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   *struct {
			ResultType string         `json:"resultType"`
			Result     []answerSeries `json:"result"`
		} `json:"data"`
		ResultType string         `json:"resultType"`
		Result     []answerSeries `json:"result"`
	}
	var all []answerSeries
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = json.Unmarshal(text, &all)
	} else if err = json.Unmarshal(text, &answer); err == nil {
		all = answer.Result
		if answer.Data != nil {
			all = answer.Data.Result
		}
	}
	syntax, malformed := errors.AsType[*json.SyntaxError](err)
	switch {
	case malformed:
		return nil, l.bad(lineOf(text, int(min(syntax.Offset, int64(len(text))))), "%v", err)
	case err != nil:
		return nil, l.bad(0, "%v", err).WithHint("save the answer of /api/v1/query of a range selector, such as up[6h]")
	case answer.Status == "error":
		return nil, l.bad(0, "it is an error of the server: %s", answer.Error)
	}
	for _, a := range all {
		if len(a.Histograms) > 0 || len(a.Histogram) > 0 {
			return nil, l.bad(0, "series %s has native histograms, of which an answer holds a rounded picture only", labels.FromMap(a.Metric)).
				WithHint("record a number, such as histogram_quantile(0.99, ...), or write the histograms in the notation of Prometheus' unit tests")
		}
		s, err := l.of(labels.FromMap(a.Metric))
		if err != nil {
			return nil, l.bad(0, "%v", err)
		}
		if a.Value != nil {
			a.Values = append(a.Values, *a.Value)
		}
		for _, p := range a.Values {
			if err := l.add(s, sample{labels: s.labels, t: p.t, v: p.v}, func() int { return 0 }); err != nil {
				return nil, err
			}
		}
	}
	if step, ok := l.onGrid(); ok {
		return []string{fmt.Sprintf("%s: its samples sit on a grid of %s, as those of a range query do: rate(), increase() and quantiles over them are not what production sees; "+
			"record the samples themselves with a range selector, such as up[6h]", l.rec.Name, step)}, nil
	}
	return nil, nil
}

// onGrid says whether the samples of all series have the times of one grid, which scraped ones never have.
func (l *loader) onGrid() (time.Duration, bool) {
	var step, phase millis = math.MaxInt64, -1
	several := false
	for _, s := range l.series {
		for i := 1; i < len(s.ts); i++ {
			step = min(step, s.ts[i]-s.ts[i-1])
		}
		several = several || len(s.ts) > 2
	}
	if !several {
		return 0, false
	}
	for _, s := range l.series {
		for _, t := range s.ts {
			if phase < 0 {
				phase = t % step
			}
			if t%step != phase {
				return 0, false
			}
		}
	}
	return time.Duration(step) * time.Millisecond, true
}
