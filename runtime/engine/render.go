package engine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
)

// number renders a measurement: at most four digits after the point, never an exponent where people expect none.
func number(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return strconv.FormatFloat(f, 'g', -1, 64)
	case f == math.Trunc(f) && math.Abs(f) < 1e15:
		return strconv.FormatFloat(f, 'f', -1, 64)
	case math.Abs(f) >= 0.001 && math.Abs(f) < 1e9:
		return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(f, 'f', 4, 64), "0"), ".")
	}
	return strconv.FormatFloat(f, 'g', 6, 64)
}

// renderAges says how long ago each series was measured.
func renderAges(stamps []kit.Sample, now time.Time) string {
	if len(stamps) == 0 {
		return "no data"
	}
	var parts []string
	for i, s := range stamps {
		if i == maxRendered {
			parts = append(parts, fmt.Sprintf("and %d more series", len(stamps)-i))
			break
		}
		parts = append(parts, labelText(s.Labels)+" measured "+value.FormatDuration(now.Sub(seconds(s.Value)).Round(time.Millisecond))+" ago")
	}
	return strings.Join(parts, "; ")
}

func labelText(labels map[string]string) string {
	keys := make([]string, 0, len(labels))
	for k := range labels {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = k + "=" + strconv.Quote(labels[k])
	}
	return "{" + clip(strings.Join(parts, ", "), 300) + "}"
}

// labelKey is the same text for the same labels, whatever the metric is called; a label without a value is none.
func labelKey(labels map[string]string) string {
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; k != "__name__" && v != "" {
			b = append(append(append(append(b, k...), 0), v...), 0)
		}
	}
	return string(b)
}

// agrees says whether nothing in labels is against match: a name that they do not carry is not.
func agrees(labels, match map[string]string) bool {
	for k, v := range match {
		if l, ok := labels[k]; ok && l != v {
			return false
		}
	}
	return true
}

// pick is the series of the target among those of a whole fleet, put together if one follows the other. Two that fit at the same time are worse
// than none: nil.
func pick(series []kit.Series, match map[string]string) *kit.Series {
	var found *kit.Series
	for _, s := range series {
		if !agrees(s.Labels, match) {
			continue
		}
		if found == nil {
			found = &s
			continue
		}
		both, ok := join(*found, s)
		if !ok {
			return nil
		}
		found = &both
	}
	return found
}

// verificationExpr is what an attempt's outcome is judged by.
func verificationExpr(v action.Verification) (*promexpr.Expr, error) {
	text := v.Expr
	if v.Expect != "" {
		text = v.Expect
	}
	return promexpr.Parse(text, nil)
}

func renderValue(v value.Value) string {
	b, err := value.Marshal(v)
	if err != nil {
		return kindOf(v)
	}
	return clip(string(b), 500)
}

func kindOf(v value.Value) string {
	if v == nil {
		return "nothing"
	}
	return v.Kind()
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return clip(s, 300)
}

func text(v value.Value) string {
	s, _ := v.(value.String)
	return strings.TrimSpace(string(s))
}

func fieldText(r *value.Record, name string) string {
	f, _ := r.Get(name)
	return text(f.Value)
}

func orDuration(v value.Value, d time.Duration) time.Duration {
	if x, ok := v.(value.Duration); ok {
		return time.Duration(x)
	}
	return d
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// hideSecrets replaces the arguments of secret parameters, saying that something was there.
func hideSecrets(d value.Dict, params []kit.Param) value.Dict {
	out := make(value.Dict, 0, len(d))
	for _, e := range d {
		name, _ := e.Key.(value.String)
		if slices.ContainsFunc(params, func(p kit.Param) bool { return p.Secret && p.Name == string(name) }) {
			e.Value = value.String("(hidden)")
		}
		out = append(out, e)
	}
	return out
}

func guardNames(vs []guard.Verdict) string {
	names := make([]string, len(vs))
	for i, v := range vs {
		names[i] = v.Guard
	}
	if len(names) > 1 {
		return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
	}
	return strings.Join(names, "")
}

// at puts a position on a problem that has none.
func at(err error, pos value.Pos) error {
	var p *problem.Problem
	if errors.As(err, &p) && p.Pos.Line == 0 {
		q := *p
		return q.At(pos)
	}
	return err
}
