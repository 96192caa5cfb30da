package promexpr

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// shape is the tree without its numbers and without the parentheses around a number.
func shape(e parser.Expr) string {
	erased := rewrite(e, rewriter{
		number: func(n *parser.NumberLiteral) parser.Expr { return &parser.NumberLiteral{Val: 7} },
		span:   func(time.Duration, string) time.Duration { return time.Minute },
	})
	text := parser.Tree(erased)
	for strings.Contains(text, "(7)") {
		text = strings.ReplaceAll(text, "(7)", "7")
	}
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasSuffix(strings.TrimSpace(line), "ParenExpr :: 7") {
			continue
		}
		out = append(out, strings.TrimLeft(line, " ·|-"))
	}
	return strings.Join(out, "")
}

// A parameter, whatever its value, changes neither the tree nor what a server reads from its text.
func TestParametersKeepTheShape(t *testing.T) {
	t.Parallel()
	templates := []string{
		`a > $n`, `a * $n ^ 2 > -$m`, `2 ^ $n * a`, `$n - $m - a`, `-$n ^ $m * a`, `topk($n, a) / $m`,
		`rate(a[$d] offset $d) > $n`, `max_over_time(rate(a[5m])[1h:$d])`, `clamp(a, $n, $m)`, `a offset -$d + $d`,
		`quantile by (x) ($n, a{b="$m"})`, `a > bool $n`, `(($n)) < a`, `a % $n % $m`, `vector($n) unless a`,
	}
	number := rapid.OneOf(
		rapid.Map(rapid.Int64(), func(n int64) value.Value { return value.Int(n) }),
		rapid.Map(rapid.Float64(), func(n float64) value.Value { return value.Float(n) }),
		rapid.SampledFrom([]value.Value{value.Int(0), value.Int(-1), value.Float(math.Copysign(0, -1)), value.Int(firstMark), value.Float(1e300), value.Float(5e-324)}),
	)
	base := map[string]value.Value{"n": value.Int(1), "m": value.Int(2), "d": value.Duration(time.Minute)}
	rapid.Check(t, func(t *rapid.T) {
		template := rapid.SampledFrom(templates).Draw(t, "template")
		plain, err := Parse(template, base)
		if err != nil {
			t.Fatal(err)
		}
		params := map[string]value.Value{
			"n": number.Draw(t, "n"), "m": number.Draw(t, "m"),
			"d": value.Duration(time.Duration(rapid.Int64Range(1, 1e9).Draw(t, "ms")) * time.Millisecond),
		}
		e, err := Parse(template, params)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := shape(plain.node), shape(e.node); a != b {
			t.Fatalf("%s became %s:\n%s\n%s", template, e, a, b)
		}
		again, err := Parse(e.String(), nil)
		if err != nil {
			t.Fatalf("%s does not parse: %v", e, err)
		}
		if a, b := shape(plain.node), shape(again.node); a != b {
			t.Fatalf("%s is read as something else:\n%s\n%s", e, a, b)
		}
		if again.String() != e.String() {
			t.Fatalf("%s is printed as %s", e, again)
		}
	})
}

// Whatever the text, Parse answers with an expression that means the same when it is printed and read
// again, or with a problem that points into the text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`up`, `a{b="$x"} > $n`, `rate(a[$d])`, `5 < a`, `a > bool 1`, `a and b`, "a # $n\n > 1", `a offset -$d`, `$`, `a[5m:$d] @ 1`,
		`{__name__="x y","k.l"="v"}`, `-a ^ -2`, `a @ end()`, `sum without () (a)`, `1e3`, `0x1F`, `5m`, "`", `"\`,
	} {
		f.Add(s)
	}
	params := map[string]value.Value{"n": value.Float(-1.5), "d": value.Duration(time.Minute)}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text, params)
		if err != nil {
			var p *problem.Problem
			if !errors.As(err, &p) || p.Code != problem.Query || strings.Contains(p.Message, "1000003") && !strings.Contains(text, "1000003") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := Parse(e.String(), nil)
		if err != nil || e.String() != again.String() {
			t.Fatalf("%q: %s is printed as %v: %v", text, e, again, err)
		}
		_, _ = e.Symptom()
		for _, x := range append(e.Selectors(), e.Timestamps()...) {
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(x.String()); err != nil {
				t.Fatalf("%q: %s: %v", text, x, err)
			}
		}
		if m, err := e.WithMatchers(map[string]string{"added": "yes"}); err == nil && !strings.Contains(m.String(), `added="yes"`) {
			t.Fatalf("%q: no matcher in %s", text, m)
		}
	})
}
