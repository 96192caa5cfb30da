package recorded

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// CSV says what the columns of a table mean. The first line names them.
type CSV struct {
	// Time is the column of times, and Layout how they are written: "unix" (seconds), "unix_ms", or as Go's time package writes them, such as
	// "2006-01-02 15:04:05", which is taken as UTC if it says no zone. The zero Layout is RFC 3339. What follows a monotonic reading
	// (" m=+0.1", as Go prints it) is left out.
	Time, Layout string
	// Values maps columns to the metrics that they hold. An empty cell is no sample.
	Values map[string]string
	// Labels maps columns to the labels that they hold.
	Labels map[string]string
	// Add are labels of every series.
	Add map[string]string
}

// columns are the places of what a table holds.
type columns struct {
	time   int
	values map[int]string
	labels map[int]string
}

func (l *loader) csv(text []byte) error {
	m := l.rec.CSV
	if m == nil || m.Time == "" || len(m.Values) == 0 {
		return l.bad(0, "it is not said what its columns mean").
			WithHint(`name them: csv(time = "timestamp", layout = "2006-01-02 15:04:05", values = {"value": "latency_seconds"}, labels = {"host": "instance"})`)
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return l.bad(1, "%v", err)
	}
	cols, err := l.columns(head)
	if err != nil {
		return err
	}
	known := map[string]map[int]*series{} // by the label cells, then by column
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		line, _ := r.FieldPos(0)
		if pe, ok := errors.AsType[*csv.ParseError](err); ok {
			return l.bad(pe.Line, "%v", pe.Err)
		}
		if err != nil {
			return l.bad(line, "%v", err)
		}
		if err := l.row(row, line, cols, known); err != nil {
			return err
		}
	}
}

// columns finds the columns that the mapping names.
func (l *loader) columns(head []string) (columns, error) {
	names := make([]string, len(head))
	for i, h := range head {
		names[i] = strings.TrimSpace(h)
	}
	find := func(name string) (int, error) {
		if i := slices.Index(names, name); i >= 0 {
			return i, nil
		}
		return 0, l.bad(1, "there is no column %q%s", name, problem.DidYouMean(name, names)).WithHint("the columns are: %s", strings.Join(names, ", "))
	}
	m := l.rec.CSV
	c := columns{values: map[int]string{}, labels: map[int]string{}}
	var err error
	if c.time, err = find(m.Time); err != nil {
		return c, err
	}
	for _, part := range []struct {
		from map[string]string
		to   map[int]string
	}{{m.Values, c.values}, {m.Labels, c.labels}} {
		for _, name := range slices.Sorted(maps.Keys(part.from)) {
			i, err := find(name)
			if err != nil {
				return c, err
			}
			part.to[i] = part.from[name]
		}
	}
	return c, nil
}

func (l *loader) row(row []string, line int, cols columns, known map[string]map[int]*series) error {
	t, err := parseCell(row[cols.time], l.rec.CSV.Layout)
	if err != nil {
		return l.bad(line, "%v", err).WithHint(`say how times are written with layout =, such as "unix" or "2006-01-02 15:04:05"`)
	}
	var key strings.Builder
	for _, i := range slices.Sorted(maps.Keys(cols.labels)) {
		key.WriteString(row[i])
		key.WriteByte(0)
	}
	of := known[key.String()]
	if of == nil {
		of = map[int]*series{}
		known[key.String()] = of
	}
	for _, i := range slices.Sorted(maps.Keys(cols.values)) {
		cell := strings.TrimSpace(row[i])
		if cell == "" {
			continue
		}
		v, err := strconv.ParseFloat(cell, 64)
		if err != nil {
			return l.bad(line, "%q is not a number", cell)
		}
		s := of[i]
		if s == nil {
			lset := maps.Clone(l.rec.CSV.Add)
			if lset == nil {
				lset = map[string]string{}
			}
			for j, name := range cols.labels {
				lset[name] = strings.TrimSpace(row[j])
			}
			lset[model.MetricNameLabel] = cols.values[i]
			if s, err = l.of(labels.FromMap(lset)); err != nil {
				return l.bad(line, "%v", err)
			}
			of[i] = s
		}
		if err := l.add(s, sample{labels: s.labels, t: t, v: v}, func() int { return line }); err != nil {
			return err
		}
	}
	return nil
}

// parseCell reads a time.
func parseCell(cell, layout string) (millis, error) {
	cell, _, _ = strings.Cut(strings.TrimSpace(cell), " m=")
	switch layout {
	case "unix", "unix_ms":
		f, err := strconv.ParseFloat(cell, 64)
		if layout == "unix" {
			f *= 1000
		}
		if err != nil || math.IsNaN(f) || math.Abs(f) > math.MaxInt64/2 {
			return 0, problem.New(problem.Recording, "%q is not a time in %s", cell, map[string]string{"unix": "seconds", "unix_ms": "milliseconds"}[layout])
		}
		return int64(math.Round(f)), nil
	case "":
		layout = time.RFC3339
	}
	t, err := time.Parse(layout, cell)
	if err != nil {
		return 0, problem.New(problem.Recording, "%q is not a time written as %q", cell, layout)
	}
	return t.UnixMilli(), nil
}
