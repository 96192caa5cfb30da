package recorded

import (
	"bytes"
	"errors"
	"io"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

const openMetricsType = "application/openmetrics-text;version=1.0.0"

// exposition reads OpenMetrics text (times in seconds, and it ends in "# EOF") or Prometheus' text format (times in milliseconds).
func (l *loader) exposition(text []byte, contentType string) error {
	p, err := textparse.New(text, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if p == nil {
		return l.bad(0, "%v", err)
	}
	entries := 0 // each is one line with something on it
	line := func() int { return nthLine(text, entries) }
	known := map[string]*series{} // by the bytes in the file, so that labels are parsed once for each series
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		entries++
		if err != nil {
			return l.bad(line(), "%v", err).WithHint("the format is OpenMetrics text, as promtool tsdb dump-openmetrics writes it: name{label=\"value\"} 1.5 1772359200")
		}
		if entry != textparse.EntrySeries {
			continue
		}
		raw, at, v := p.Series()
		if at == nil {
			return l.bad(line(), "the sample has no time").WithHint("a page of /metrics says what is now; a recording needs times, as promtool tsdb dump-openmetrics writes them")
		}
		s := known[string(raw)]
		if s == nil {
			var lset labels.Labels
			p.Labels(&lset)
			if s, err = l.of(lset); err != nil {
				return l.bad(line(), "%v", err)
			}
			known[string(raw)] = s
		}
		if err := l.add(s, sample{labels: s.labels, t: *at, v: v}, line); err != nil {
			return err
		}
	}
}

// nthLine is the number of the n-th line that is not empty.
func nthLine(text []byte, n int) int {
	at := 0
	for line := range bytes.Lines(text) {
		at++
		if len(bytes.TrimSpace(line)) > 0 {
			if n--; n <= 0 {
				return at
			}
		}
	}
	return at
}
