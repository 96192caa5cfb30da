package recorded

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxNotation bounds the samples of one line of notation: "0x1000000000" is a typing error.
const maxNotation = 10_000_000

// Notation appends a series as the unit tests of Prometheus write it: its name and labels, and its values at start, start+step, ...
//
//	`up{job="worker"}`, "1 1 0 _ stale 5x3 0+10x60"
//
// "_" is no sample, "stale" the end of the series, "axn" is a and n times more a, "a+bxn" is a and n times more b added, and
// {{schema:0 count:1 buckets:[1]}} a native histogram. It returns the time of the last value, whether there is a sample at it or not.
func (db *DB) Notation(series, values string, start time.Time, step time.Duration) (time.Time, error) {
	if step <= 0 {
		return start, problem.New(problem.Recording, "series %s: the step between samples must be more than 0, got %s", series, step)
	}
	l, seq, err := db.parseNotation(series, values)
	if err != nil {
		return start, problem.New(problem.Recording, "series %s: %v", series, err).
			WithHint(`write the values as in Prometheus' unit tests: "1 2 3", "0x10", "0+10x60", "_" for no sample, "stale" for the end`)
	}
	if err := check(l); err != nil {
		return start, problem.New(problem.Recording, "%v", err)
	}
	at := start
	if len(seq) == 0 {
		return at, nil // Prometheus allows it
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	ser := db.of(l)
	for i, v := range seq {
		at = start.Add(time.Duration(i) * step)
		if v.Omitted {
			continue
		}
		s := sample{labels: l, t: at.UnixMilli(), v: v.Value, h: v.Histogram}
		if err := ser.append(s); err != nil {
			return at, problem.New(problem.Recording, "series %s: %v", series, err).WithHint("write a series once, or give its parts times that follow each other")
		}
		db.newest = max(db.newest, s.t)
	}
	return at, nil
}

// parseNotation reads a line. Most are plain numbers, for which Prometheus' own parser is ten times slower than need be.
func (db *DB) parseNotation(series, values string) (labels.Labels, []parser.SequenceValue, error) {
	if n, ok := count(values); !ok || n > maxNotation {
		return labels.EmptyLabels(), nil, problem.New(problem.Recording, "more than %d values in one line", maxNotation)
	}
	if seq, ok := plain(values); ok {
		l, _, err := db.parser.ParseSeriesDesc(series + " _")
		return l, seq, err
	}
	return db.parser.ParseSeriesDesc(series + " " + values)
}

// plain reads values that are numbers, "_" and "stale" only; false for anything else.
func plain(values string) ([]parser.SequenceValue, bool) {
	out := make([]parser.SequenceValue, 0, len(values)/2+1)
	for f := range strings.FieldsSeq(values) {
		switch f {
		case "_":
			out = append(out, parser.SequenceValue{Omitted: true})
			continue
		case "stale":
			out = append(out, parser.SequenceValue{Value: staleNaN()})
			continue
		}
		if strings.Trim(f, "+-.0123456789e") != "" {
			return nil, false
		}
		v, err := strconv.ParseFloat(f, 64)
		if err != nil || math.IsInf(v, 0) {
			return nil, false
		}
		out = append(out, parser.SequenceValue{Value: v})
	}
	return out, len(out) > 0
}

// count is about how many values a line has, counted before they are made.
func count(values string) (int, bool) {
	n := 0
	for f := range strings.FieldsSeq(values) {
		n++
		i := strings.LastIndexByte(f, 'x')
		if i < 0 || strings.HasPrefix(f, "0x") && i == 1 && strings.Trim(f[2:], "0123456789") != "" {
			continue
		}
		times, err := strconv.ParseUint(f[i+1:], 10, 64)
		if err != nil {
			continue // not a repetition; if it is nothing else, the parser says so
		}
		if times > maxNotation {
			return 0, false
		}
		n += int(times)
	}
	return n, true
}
