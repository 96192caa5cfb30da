package recorded

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"pgregory.net/rapid"
)

func TestNotation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values string
		want   string // one word a minute
	}{
		{"1 2 3", "1 2 3"},
		{"1 _ 3", "1 _ 3"},
		{"5x3", "5 5 5 5"},
		{"0+10x2", "0 10 20"},
		{"10-3x2 _x2 7", "10 7 4 _ _ 7"},
		{"1 stale 2", "1 stale 2"},
		{"-1.5e3 +2", "-1500 2"},
		{"NaN Inf -Inf", "NaN +Inf -Inf"},
		{"0x2", "0 0 0"},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			db := New(Options{})
			last, err := db.Notation(`m{a="b"}`, c.values, t0, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			s := db.match(nil)[0]
			got := ""
			for at, i := t0, 0; !at.After(last); at = at.Add(time.Minute) {
				word := "_"
				if i < len(s.ts) && s.ts[i] == at.UnixMilli() {
					word = fmt.Sprint(s.vs[i])
					if value.IsStaleNaN(s.vs[i]) {
						word = "stale"
					}
					i++
				}
				if got != "" {
					got += " "
				}
				got += word
			}
			want(t, got, c.want)
		})
	}
}

func TestNotationHistogram(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	if _, err := db.Notation(`h`, `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x2 {{schema:0 sum:10 count:8 buckets:[2 4 2]}}`, t0, time.Minute); err != nil {
		t.Fatal(err)
	}
	for expr, value := range map[string]float64{"histogram_count(h)": 8, "histogram_sum(increase(h[4m]))": 5, "histogram_quantile(1, h)": 4} {
		got, err := db.Instant(t.Context(), expr, at(3*time.Minute))
		if err != nil || len(got) != 1 || math.Abs(got[0].Value-value) > value/3 {
			t.Errorf("%s: %v, %v, want about %v", expr, got, err, value)
		}
	}
	// The engine may change what it is given; what is kept must not change with it.
	for range 2 {
		got, err := db.Instant(t.Context(), "histogram_count(sum_over_time(h[10m]))", at(3*time.Minute))
		if err != nil || got[0].Value != 20 {
			t.Errorf("sum: %v, %v", got, err)
		}
	}
}

func TestNotationProblems(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"m{", "1"},
		{"m", "1 b 2"},
		{"m", "1x"},
		{"m", "0x99999999999"},
		{"m", "1x9000000 1x9000000"},
		{"{a=\"b\"}", "1"},
		{"m", "1e999"},
		{"m", "{{count:}}"},
		{"m", "1--2x3"},
	} {
		db := New(Options{})
		if _, err := db.Notation(c[0], c[1], t0, time.Minute); err == nil {
			t.Errorf("%q was accepted", c)
		}
		if n := len(db.match(nil)); n != 0 {
			t.Errorf("%q left %d series", c, n)
		}
	}
	db := New(Options{})
	if _, err := db.Notation("m", "1", t0, 0); err == nil {
		t.Error("a step of 0 was accepted")
	}
}

// What is read without Prometheus' parser is what that reads.
func TestPlainNotationIsTheParsers(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	rapid.Check(t, func(t *rapid.T) {
		text := ""
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			text += rapid.SampledFrom([]string{
				"1", "-2", "+3", "1.5", ".5", "5.", "1e3", "-1.25e-3", "_", "stale", "0", "007", "1e400", "--1", "+-1", "e5", "1e", ".", "-", "1.2.3", "_x2", "1x2", "1+1x2",
			}).Draw(t, "value") + " "
		}
		fast, ok := plain(text)
		if !ok {
			return
		}
		_, slow, err := db.parser.ParseSeriesDesc("m " + text)
		if err != nil {
			t.Fatalf("%q is read as %v, but the parser says: %v", text, fast, err)
		}
		same := func(a, b parser.SequenceValue) bool {
			return a.Omitted == b.Omitted && math.Float64bits(a.Value) == math.Float64bits(b.Value)
		}
		for i := range max(len(fast), len(slow)) {
			if i >= len(fast) || i >= len(slow) || !same(fast[i], slow[i]) {
				t.Fatalf("%q: %v, want %v", text, fast, slow)
			}
		}
	})
}
