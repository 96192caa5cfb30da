package recorded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// UnitTests is a unit test file of Prometheus, as "promtool test rules" reads it.
type UnitTests struct {
	name     string
	order    []string
	interval time.Duration
	fuzzy    bool
	// RuleFiles are the patterns of the rule files that it names, relative to its own directory.
	RuleFiles []string
	Groups    []UnitGroup
}

// UnitGroup is one group of the tests: series, and what is expected of the rules over them.
type UnitGroup struct {
	Name  string
	Start time.Time
	file  *UnitTests
	group unitGroup
}

type unitFile struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	GroupEvalOrder     []string       `yaml:"group_eval_order"`
	Tests              []unitGroup    `yaml:"tests"`
	FuzzyCompare       bool           `yaml:"fuzzy_compare"`
}

type unitGroup struct {
	Interval    model.Duration    `yaml:"interval"`
	InputSeries []unitSeries      `yaml:"input_series"`
	Alerts      []unitAlertTest   `yaml:"alert_rule_test"`
	Exprs       []unitExprTest    `yaml:"promql_expr_test"`
	Labels      map[string]string `yaml:"external_labels"`
	URL         string            `yaml:"external_url"`
	Name        string            `yaml:"name"`
	Start       string            `yaml:"start_timestamp"`
}

type unitSeries struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type unitAlertTest struct {
	EvalTime  model.Duration `yaml:"eval_time"`
	Alertname string         `yaml:"alertname"`
	Expected  []struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	} `yaml:"exp_alerts"`
}

type unitExprTest struct {
	Expr     string         `yaml:"expr"`
	EvalTime model.Duration `yaml:"eval_time"`
	Expected []struct {
		Labels    string  `yaml:"labels"`
		Value     float64 `yaml:"value"`
		Histogram string  `yaml:"histogram"`
	} `yaml:"exp_samples"`
}

// ParseUnitTests reads a unit test file. Errors are of code recording.
func ParseUnitTests(name string, text []byte) (*UnitTests, error) {
	bad := func(format string, args ...any) error {
		return problem.New(problem.Recording, "unit tests: %s", fmt.Sprintf(format, args...)).At(value.Pos{File: name}).
			WithHint("promtool test rules %s says what the format is", name)
	}
	var f unitFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, bad("%s", strings.Join(strings.Fields(err.Error()), " "))
	}
	u := &UnitTests{name: name, order: f.GroupEvalOrder, interval: time.Duration(f.EvaluationInterval), fuzzy: f.FuzzyCompare, RuleFiles: f.RuleFiles}
	if u.interval == 0 {
		u.interval = time.Minute
	}
	for i, name := range u.order {
		if slices.Contains(u.order[:i], name) {
			return nil, bad("group name repeated in evaluation order: %s", name)
		}
	}
	for i, g := range f.Tests {
		if g.Interval == 0 {
			g.Interval = model.Duration(u.interval)
		}
		start := time.Unix(0, 0)
		if g.Start != "" {
			var err error
			if start, err = parseTime(g.Start); err != nil {
				return nil, bad("start_timestamp: %v", err)
			}
		}
		for _, a := range g.Alerts {
			if a.Alertname == "" {
				return nil, bad("group %d: an item under alert_rule_test at eval_time %s has no alertname", i, a.EvalTime)
			}
		}
		if g.Name == "" {
			g.Name = fmt.Sprintf("unnamed#%d", i)
		}
		u.Groups = append(u.Groups, UnitGroup{Name: g.Name, Start: start.UTC(), file: u, group: g})
	}
	return u, nil
}

// Load makes a DB of the group's series, without any rules.
func (g UnitGroup) Load() (*DB, error) {
	db := New(Options{SubqueryStep: g.file.interval})
	return db, g.Append(db, g.Start)
}

// Append adds the group's series to a DB, as if it began at start.
func (g UnitGroup) Append(db *DB, start time.Time) error {
	again := g.again(db.parser)
	for i, s := range g.group.InputSeries {
		into := db
		if again[i] != "" {
			into = New(Options{}) // what is wrong with it is said all the same
		}
		if _, err := into.Notation(s.Series, s.Values, start, time.Duration(g.group.Interval)); err != nil {
			return g.at(err)
		}
	}
	return nil
}

// again has, as it is written, each series of the group that is written again after it; "" for the others.
func (g UnitGroup) again(p parser.Parser) []string {
	out := make([]string, len(g.group.InputSeries))
	last := map[string]int{}
	for i, s := range g.group.InputSeries {
		l, _, err := p.ParseSeriesDesc(s.Series + " _")
		if err != nil {
			continue // the group cannot be loaded, which says why
		}
		key := l.String()
		if before, ok := last[key]; ok {
			out[before] = g.group.InputSeries[before].Series
		}
		last[key] = i
	}
	return out
}

// Warnings are about what the group may not mean as it is written.
func (g UnitGroup) Warnings() []string {
	var out []string
	for _, s := range g.again(newParser()) {
		if s != "" {
			out = append(out, fmt.Sprintf("%s: group %s: series %s is written more than once; as for promtool, only the last of them counts", g.file.name, g.Name, s))
		}
	}
	return out
}

func (g UnitGroup) at(err error) error {
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Pos.File == "" {
		return p.At(value.Pos{File: g.file.name})
	}
	return err
}

// Run evaluates the rules over the group's series and returns what is not as expected. Only rules that an expectation depends on are evaluated
// all the time, and the others once, at the end, unless all is set. The error is that of the group as a whole: a rule that cannot be evaluated, a series that cannot be read.
func (g UnitGroup) Run(ctx context.Context, files []RuleFile, all bool) (failures []string, err error) {
	db, err := g.Load()
	if err != nil {
		return nil, err
	}
	rules, err := db.LoadRules(files, RuleOptions{
		Interval: time.Duration(g.group.Interval), ExternalLabels: g.group.Labels, ExternalURL: g.group.URL, Order: g.file.order,
	})
	if err != nil {
		return nil, err
	}
	if !all {
		if err := g.prune(rules); err != nil {
			return nil, g.at(err)
		}
	}
	end := g.Start
	for _, a := range g.group.Alerts {
		end = later(end, g.Start.Add(time.Duration(a.EvalTime)))
	}
	for _, x := range g.group.Exprs {
		end = later(end, g.Start.Add(time.Duration(x.EvalTime)))
	}
	// The rules are evaluated up to each step after which alerts are looked at, and to the last one.
	interval := g.file.interval
	checks := map[int][]unitAlertTest{int(end.Sub(g.Start) / interval): nil}
	for _, a := range g.group.Alerts {
		n := int(time.Duration(a.EvalTime) / interval)
		checks[n] = append(checks[n], a)
	}
	next := g.Start
	for _, n := range slices.Sorted(maps.Keys(checks)) {
		last := g.Start.Add(time.Duration(n) * interval)
		if err := rules.Every(ctx, next, last, interval); err != nil {
			return failures, err
		}
		next = last.Add(interval)
		for _, a := range checks[n] {
			failures = append(failures, g.checkAlert(rules, a)...)
		}
	}
	if err := rules.Dropped(ctx, end); err != nil {
		return failures, err
	}
	for _, x := range g.group.Exprs {
		if f := g.checkExpr(ctx, rules, x); f != "" {
			failures = append(failures, f)
		}
	}
	return failures, nil
}

// prune leaves out what no expectation needs. What cannot be parsed is left to the expectation to say.
func (g UnitGroup) prune(rules *Rules) error {
	var alerts, exprs []string
	for _, a := range g.group.Alerts {
		alerts = append(alerts, a.Alertname)
	}
	for _, x := range g.group.Exprs {
		if _, err := rules.db.parser.ParseExpr(x.Expr); err == nil {
			exprs = append(exprs, x.Expr)
		}
	}
	return rules.Only(alerts, exprs)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// checkAlert compares the alerts that fire with those that should.
func (g UnitGroup) checkAlert(rules *Rules, test unitAlertTest) []string {
	var want, got []string
	for _, a := range test.Expected {
		l := map[string]string{}
		maps.Copy(l, a.Labels)
		l[model.AlertNameLabel] = test.Alertname
		want = append(want, labelText(l, a.Annotations))
	}
	for _, a := range rules.Firing(test.Alertname) {
		got = append(got, labelText(a.Labels, a.Annotations))
	}
	slices.Sort(want)
	slices.Sort(got)
	if slices.Equal(want, got) {
		return nil
	}
	return []string{fmt.Sprintf("alert %s at %s:\n%s", test.Alertname, test.EvalTime, difference(want, got))}
}

func labelText(l, annotations map[string]string) string {
	// A label without a value is no label.
	text := labels.NewBuilder(labels.FromMap(l)).Labels().WithoutEmpty().String()
	if a := labels.FromMap(annotations); a.Len() > 0 {
		text += " annotations " + a.String()
	}
	return text
}

// difference shows what is missing and what is there instead.
func difference(want, got []string) string {
	var b strings.Builder
	for _, w := range want {
		if !slices.Contains(got, w) {
			b.WriteString("  missing:    " + w + "\n")
		}
	}
	for _, x := range got {
		if !slices.Contains(want, x) {
			b.WriteString("  unexpected: " + x + "\n")
		}
	}
	if b.Len() == 0 {
		fmt.Fprintf(&b, "  expected %d, got %d of the same\n", len(want), len(got))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// unitSample is one element of an answer, comparable.
type unitSample struct {
	labels    labels.Labels
	value     float64
	histogram string
}

func (s unitSample) String() string {
	if s.histogram != "" {
		return s.labels.String() + " " + s.histogram
	}
	return s.labels.String() + " " + strconv.FormatFloat(s.value, 'g', -1, 64)
}

// checkExpr compares an answer with the one that was expected; "" if they are the same.
func (g UnitGroup) checkExpr(ctx context.Context, rules *Rules, test unitExprTest) string {
	bad := func(format string, args ...any) string {
		return fmt.Sprintf("%s at %s: ", test.Expr, test.EvalTime) + fmt.Sprintf(format, args...)
	}
	vec, err := rules.query(ctx, test.Expr, g.Start.Add(time.Duration(test.EvalTime)))
	if err != nil {
		return bad("%v", err)
	}
	var want []unitSample
	for _, s := range test.Expected {
		l, err := rules.db.parser.ParseMetric(s.Labels)
		if err != nil {
			return bad("labels %q: %v", s.Labels, err)
		}
		w := unitSample{labels: l, value: s.Value}
		if s.Histogram != "" {
			_, seq, err := rules.db.parser.ParseSeriesDesc("{} " + s.Histogram)
			if err != nil || len(seq) != 1 || seq[0].Histogram == nil {
				return bad("labels %q: not one histogram: %q (%v)", s.Labels, s.Histogram, err)
			}
			w.value, w.histogram = 0, seq[0].Histogram.TestExpression()
		}
		want = append(want, w)
	}
	got := unitSamples(vec)
	byLabels := func(a, b unitSample) int { return labels.Compare(a.labels, b.labels) }
	slices.SortStableFunc(want, byLabels)
	slices.SortStableFunc(got, byLabels)
	if slices.EqualFunc(want, got, func(a, b unitSample) bool {
		return labels.Equal(a.labels, b.labels) && a.histogram == b.histogram && sameFloat(a.value, b.value, g.file.fuzzy)
	}) {
		return ""
	}
	return bad("\n%s", difference(texts(want), texts(got)))
}

func unitSamples(vec promql.Vector) []unitSample {
	out := make([]unitSample, len(vec))
	for i, s := range vec {
		out[i] = unitSample{labels: s.Metric, value: s.F}
		if s.H != nil {
			out[i].value, out[i].histogram = 0, s.H.TestExpression()
		}
	}
	return out
}

func texts(all []unitSample) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = s.String()
	}
	return out
}

// sameFloat is == as promtool means it: NaN is not itself, and with fuzzy_compare the next float is good enough.
func sameFloat(a, b float64, fuzzy bool) bool {
	return a == b || fuzzy && (math.Nextafter(a, math.Inf(-1)) == b || math.Nextafter(a, math.Inf(1)) == b)
}

// Selected are the groups whose name a pattern matches; nil means all.
func (u *UnitTests) Selected(run *regexp.Regexp) []UnitGroup {
	return slices.DeleteFunc(slices.Clone(u.Groups), func(g UnitGroup) bool { return run != nil && !run.MatchString(g.Name) })
}
