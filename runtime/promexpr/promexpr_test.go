package promexpr

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var params = map[string]value.Value{
	"limit":  value.Int(1000),
	"ratio":  value.Float(0.25),
	"below":  value.Float(-2.5),
	"window": value.Duration(90 * time.Second),
	"zero":   value.Duration(0),
	"on":     value.Bool(true),
	"name":   value.String("x"),
	"big":    value.Big("100000000000000000000"),
}

func mustParse(t *testing.T, text string) *Expr {
	t.Helper()
	e, err := Parse(text, params)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return e
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{`up`, `up`},
		{`queue_depth{job="worker"} > $limit`, `queue_depth{job="worker"} > 1000`},
		{`a > $below`, `a > (-2.5)`},
		{`a > -$limit`, `a > -1000`},
		{`a > -$below`, `a > 2.5`},
		{`a * $below ^ 2`, `a * (-2.5) ^ 2`},
		{`rate(a[$window]) > $ratio`, `rate(a[1m30s]) > 0.25`},
		{`rate(a[$window] offset $window)`, `rate(a[1m30s] offset 1m30s)`},
		{`a offset -$window`, `a offset -1m30s`},
		{`max_over_time(a[1h:$window])`, `max_over_time(a[1h:1m30s])`},
		{`max_over_time(a[$window:$window] offset $window)`, `max_over_time(a[1m30s:1m30s] offset 1m30s)`},
		{`time() - a > $window`, `time() - a > 90`},
		{`topk($limit, a)`, `topk(1000, a)`},
		{`a > $big`, `a > 100000000000000000000`},
		{`a > $limit + $limit`, `a > 1000 + 1000`},
		{`a{b="$limit", c='$x', d=~` + "`$y`" + `} > 1 # $z`, `a{b="$limit",c="$x",d=~"$y"} > 1`},
		{`a{b="\"$limit"} > $limit`, `a{b="\"$limit"} > 1000`},
		{`a > 1000003 + $limit`, `a > 1000003 + 1000`},
		{"a # it's fine\n > $limit", `a > 1000`},
		{`a>$limit`, `a > 1000`},
	} {
		e := mustParse(t, c.text)
		if e.String() != c.want {
			t.Errorf("Parse(%q) = %s, want %s", c.text, e, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want, hint string }{
		{``, `the PromQL expression is empty`, ``},
		{" \n", `the PromQL expression is empty`, ``},
		{strings.Repeat("a", maxLength+1), `the PromQL expression has 8193 bytes: the limit is 8192`, ``},
		{"a\xff", `the PromQL expression is not valid UTF-8`, ``},
		{`a > `, `PromQL, column 5: unexpected end of input`, ``},
		{`sum(a`, `PromQL, column 6: unclosed left parenthesis`, ``},
		{"a >\n  b{", `line 2, column 5: unexpected end of input inside braces`, ``},
		{`a > $limt`, `PromQL, column 5: there is no parameter $limt (did you mean "limit"?)`, `the parameters are: $below, $big, $limit, $name, $on, $ratio, $window, $zero`},
		{`a > $`, `PromQL, column 5: $ is not followed by the name of a parameter`, `write $name, where name is an entry of params`},
		{`a > ${limit}`, `PromQL, column 5: $ is not followed by the name of a parameter`, `write $name, where name is an entry of params`},
		{`a > $on`, `PromQL, column 5: $on is a bool: only a number or a duration can be a parameter of a query`, `to choose series by a label, pass where = {"label": value}`},
		{`a{b=$name}`, `PromQL, column 5: $name is a string: only a number or a duration can be a parameter of a query`, `to choose series by a label, pass where = {"label": value}`},
		{`a{b=$limit}`, `PromQL, column 5: unexpected character inside braces: '1'`, `$limit can stand where a number or a duration can`},
		{`foo$limit`, `PromQL, column 4: unexpected number $limit`, `$limit can stand where a number or a duration can`},
		{`a > $limit.5`, `PromQL, column 11: unexpected number ".5"`, ``},
		{`a[$limit]`, `PromQL, column 3: $limit is a number: a range is a duration`, ``},
		{`rate(a[$zero])`, `PromQL, column 8: $zero is 0s: a range must be longer`, ``},
		{`a @ $limit`, `PromQL, column 5: $limit cannot stand here`, `a parameter can be a number, a range, the step of a subquery or an offset`},
		{`rate(a[$window * 2])`, `$window * 2 is arithmetic on durations, which is not supported`, `write the duration itself, or a duration parameter such as [$window]`},
		{`a offset (5m + 1m)`, `is arithmetic on durations, which is not supported`, `write the duration itself, or a duration parameter such as [$window]`},
		{`rate(a)`, `PromQL, column 6: expected type range vector in call to function "rate", got instant vector`, ``},
	} {
		_, err := Parse(c.text, params)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != problem.Query {
			t.Errorf("Parse(%.40q): %v, want a query problem", c.text, err)
			continue
		}
		if !strings.Contains(p.Message, c.want) || p.Hint != c.hint {
			t.Errorf("Parse(%.40q)\n got %s\nhint %s\nwant %s\nhint %s", c.text, p.Message, p.Hint, c.want, c.hint)
		}
	}
}

func TestParseCaret(t *testing.T) {
	t.Parallel()
	_, err := Parse("sum(a)\n  > $limt", params)
	var p *problem.Problem
	if !errors.As(err, &p) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"    > $limt", "      ^"}, p.Detail); diff != "" {
		t.Error(diff)
	}
	_, err = Parse(strings.Repeat("aaaaaaaaa + ", 30)+"$limt", params)
	if !errors.As(err, &p) {
		t.Fatal(err)
	}
	if len(p.Detail[0]) > 120 || p.Detail[0][len(p.Detail[1])-1] != '$' {
		t.Errorf("caret is off:\n%s\n%s", p.Detail[0], p.Detail[1])
	}
}

func TestWithMatchers(t *testing.T) {
	t.Parallel()
	e := mustParse(t, `rate(a{x="1"}[5m]) / on (x) b > 3`)
	got, err := e.WithMatchers(map[string]string{"instance": `w"3`, "x": "1", "k8s.pod": "p"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `rate(a{instance="w\"3",x="1","k8s.pod"="p"}[5m]) / on (x) b{instance="w\"3",x="1","k8s.pod"="p"} > 3`
	if reparsed, err := Parse(got.String(), nil); err != nil || reparsed.String() != got.String() {
		t.Errorf("%s does not parse again: %v", got, err)
	}
	if a, b := sortedBytes(got.String()), sortedBytes(want); a != b {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if e.String() != `rate(a{x="1"}[5m]) / on (x) b > 3` {
		t.Errorf("the original was changed: %s", e)
	}
	for _, c := range []struct {
		text  string
		where map[string]string
		want  string
	}{
		{`a{x="1"}`, map[string]string{"x": "2"}, `where: label "x" cannot be "2": a{x="1"} already asks for "1"`},
		{`time()`, map[string]string{"x": "2"}, `where: time() selects no series, so there is nothing to match`},
		{`a`, map[string]string{"x": ""}, `where: the value of label "x" is empty`},
		{`a`, map[string]string{"": "x"}, `where: "": "x" is not a label`},
	} {
		_, err := mustParse(t, c.text).WithMatchers(c.where)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s with %v: %v, want %s", c.text, c.where, err, c.want)
		}
	}
	if same, err := e.WithMatchers(nil); err != nil || same != e {
		t.Errorf("no matchers: %v, %v", same, err)
	}
}

func sortedBytes(s string) string {
	count := make([]byte, 256)
	for i := range len(s) {
		count[s[i]]++
	}
	return string(count)
}

func TestSymptom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{`a > $limit`, `a > 1000`},
		{`5 < a`, `a > 5`},
		{`5 >= a`, `a <= 5`},
		{`(a{x="y"} == 0)`, `a{x="y"} == 0`},
		{`a / b > 80 / 100`, `a / b > 0.8`},
		{`a != -(2 ^ 3 % 5 - 1)`, `a != -2`},
		{`sum by (x) (rate(a[5m])) <= $below`, `sum by (x) (rate(a[5m])) <= -2.5`},
	} {
		s, err := mustParse(t, c.text).Symptom()
		if err != nil || s.String() != c.want {
			t.Errorf("%s: %s, %v, want %s", c.text, s, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{`a`, `a is not a comparison`},
		{`a + 1`, `a + 1 has + at its root, not a comparison`},
		{`a > 1 and b > 2`, `a > 1 and b > 2 has and at its root, not a comparison: a healthy value could not be told from a missing one`},
		{`a > bool 1`, `a > bool 1 compares with bool, which gives 0 or 1 instead of the value: leave bool out`},
		{`1 > bool 2`, `1 > bool 2 compares with bool, which gives 0 or 1 instead of the value: leave bool out`},
		{`a > b`, `a > b compares two queries, not a query with a number: subtract or divide them and compare that, such as a - b > 0`},
		{`a > scalar(b)`, `a > scalar(b) compares two queries, not a query with a number: subtract or divide them and compare that, such as a - b > 0`},
		{`a > NaN`, `a > NaN compares with NaN, which nothing can be measured against`},
		{`a > 1 / 0`, `a > 1 / 0 compares with +Inf, which nothing can be measured against`},
	} {
		_, err := mustParse(t, c.text).Symptom()
		var p *problem.Problem
		if !errors.As(err, &p) || p.Message != c.want || p.Hint == "" {
			t.Errorf("%s: %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestSymptomHolds(t *testing.T) {
	t.Parallel()
	nan := mustParse(t, `a != 5`)
	s, err := nan.Symptom()
	if err != nil {
		t.Fatal(err)
	}
	var zero float64
	for v, want := range map[float64]bool{5: false, 6: true, zero / zero: false} {
		if s.Holds(v) != want {
			t.Errorf("%v != 5 is %v", v, s.Holds(v))
		}
	}
	for _, c := range []struct {
		op            string
		less, eq, mor bool
	}{
		{">", false, false, true},
		{"<", true, false, false},
		{">=", false, true, true},
		{"<=", true, true, false},
		{"==", false, true, false},
		{"!=", true, false, true},
		{"=~", false, false, false},
	} {
		got := []bool{Compare(4, c.op, 5), Compare(5, c.op, 5), Compare(6, c.op, 5)}
		if diff := cmp.Diff([]bool{c.less, c.eq, c.mor}, got); diff != "" {
			t.Errorf("%s: %s", c.op, diff)
		}
	}
}

func TestSelectorsAndTimestamps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text             string
		selectors, times []string
	}{
		{`up`, []string{`up`}, []string{`timestamp(up)`}},
		{`time()`, nil, nil},
		{`rate(a{x="1"}[5m]) / (a{x="1"} + b)`, []string{`a{x="1"}`, `b`}, []string{`timestamp(a{x="1"})`, `timestamp(b)`}},
		{`a - a offset 1w`, []string{`a`}, []string{`timestamp(a)`, `timestamp(a offset 1w) + 604800`}},
		{`max_over_time(a[1h:1m] offset 1h)`, []string{`a`}, []string{`timestamp(a offset 1h) + 3600`}},
		{`a @ 100 offset 1m`, []string{`a`}, []string{`timestamp(a @ 100.000 offset 1m) + 60 + (time() - 100)`}},
		{`max_over_time((a offset 1m)[1h:1m] @ 100)`, []string{`a`}, []string{`timestamp(a @ 100.000 offset 1m) + 60 + (time() - 100)`}},
	} {
		e := mustParse(t, c.text)
		if diff := cmp.Diff(c.selectors, texts(e.Selectors())); diff != "" {
			t.Errorf("%s: selectors: %s", c.text, diff)
		}
		if diff := cmp.Diff(c.times, texts(e.Timestamps())); diff != "" {
			t.Errorf("%s: timestamps: %s", c.text, diff)
		}
	}
}

func texts(es []*Expr) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.String())
	}
	return out
}

func TestIsSelector(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{`up`: true, `(up{a="b"})`: true, `sum(up)`: false, `up[5m]`: false, `1`: false} {
		if got := mustParse(t, text).IsSelector(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if mustParse(t, `1`).IsVector() || mustParse(t, `up[5m]`).IsVector() || !mustParse(t, `sum(up)`).IsVector() {
		t.Error("IsVector is wrong")
	}
}
