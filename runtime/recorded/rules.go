package recorded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// RuleFile is the text of a Prometheus rule file.
type RuleFile struct {
	Name string // its path, for messages
	Text []byte
}

// RuleOptions say under which circumstances rules are evaluated.
type RuleOptions struct {
	// Interval is that of groups that name none; 0 means 1m, as in Prometheus.
	Interval       time.Duration
	ExternalLabels map[string]string
	ExternalURL    string
	// Order names groups that are evaluated in this order, after all others.
	Order []string
}

// Rules evaluates the recording and alerting rules of Prometheus over a DB, into which it writes what they record and the series
// ALERTS and ALERTS_FOR_STATE, as Prometheus does. It is used by one goroutine at a time, forwards in time.
//
// Differences to a server: nothing is restored, and groups are evaluated at multiples of their interval since 1970, where a
// server spreads them by a hash of their names.
type Rules struct {
	db     *DB
	groups []*ruleGroup
	url    *url.URL
	extern map[string]string
}

type ruleGroup struct {
	name     string
	file     string
	interval time.Duration
	offset   time.Duration
	limit    int
	rules    []*rule
	dropped  []*rule // by Only
}

// rule is a recording rule, or an alerting rule if it has an alert's name.
type rule struct {
	name          string
	alerting      bool
	expr          string
	parsed        parser.Expr
	hold          time.Duration
	keepFiringFor time.Duration
	labels        labels.Labels
	annotations   labels.Labels

	active map[uint64]*Alert        // of an alerting rule
	wrote  map[string]labels.Labels // series that the last evaluation wrote
}

// LoadRules reads rule files. Errors are of code recording, with the line.
func (db *DB) LoadRules(files []RuleFile, o RuleOptions) (*Rules, error) {
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	r := &Rules{db: db, extern: o.ExternalLabels}
	var err error
	if r.url, err = url.Parse(o.ExternalURL); err != nil {
		return nil, problem.New(problem.Recording, "external URL: %v", err)
	}
	for _, f := range files {
		parsed, errs := rulefmt.Parse(f.Text, false, model.UTF8Validation, db.parser, slog.New(slog.DiscardHandler))
		if len(errs) > 0 {
			return nil, ruleProblem(f.Name, errs)
		}
		for _, g := range parsed.Groups {
			group, err := db.ruleGroup(f.Name, g, o.Interval)
			if err != nil {
				return nil, err
			}
			r.groups = append(r.groups, group)
		}
	}
	slices.SortStableFunc(r.groups, func(a, b *ruleGroup) int { return slices.Index(o.Order, a.name) - slices.Index(o.Order, b.name) })
	return r, nil
}

// RuleExpr is what a rule asks, and how long it must have been so.
type RuleExpr struct {
	Expr string
	For  time.Duration
}

// RuleExprs are the expressions of all rules of a file. Errors are of code recording, with the line.
func RuleExprs(f RuleFile) ([]RuleExpr, error) {
	parsed, errs := rulefmt.Parse(f.Text, false, model.UTF8Validation, newParser(), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		return nil, ruleProblem(f.Name, errs)
	}
	var out []RuleExpr
	for _, g := range parsed.Groups {
		for _, r := range g.Rules {
			out = append(out, RuleExpr{Expr: r.Expr, For: time.Duration(r.For) + time.Duration(r.KeepFiringFor)})
		}
	}
	return out, nil
}

// ruleProblem is all that is wrong with a rule file. rulefmt puts "line:column: " before what it knows the place of.
func ruleProblem(file string, errs []error) error {
	p := problem.New(problem.Recording, "rules: %v", errs[0]).At(value.Pos{File: file}).
		WithHint("promtool check rules %s says the same", file)
	var line, col int
	if n, _ := fmt.Sscanf(errs[0].Error(), "%d:%d:", &line, &col); n == 2 {
		p.Pos.Line, p.Pos.Col = line, col
	}
	for _, err := range errs[1:] {
		p.Detail = append(p.Detail, err.Error())
	}
	return p
}

func (db *DB) ruleGroup(file string, g rulefmt.RuleGroup, interval time.Duration) (*ruleGroup, error) {
	out := &ruleGroup{name: g.Name, file: file, interval: interval, limit: g.Limit}
	if g.Interval != 0 {
		out.interval = time.Duration(g.Interval)
	}
	if g.QueryOffset != nil {
		out.offset = time.Duration(*g.QueryOffset)
	}
	for _, x := range g.Rules {
		parsed, err := db.parser.ParseExpr(x.Expr)
		if err != nil {
			return nil, problem.New(problem.Recording, "rules: group %q: %v", g.Name, err).At(value.Pos{File: file})
		}
		b := labels.NewBuilder(labels.FromMap(g.Labels))
		for name, v := range x.Labels {
			b.Set(name, v)
		}
		out.rules = append(out.rules, &rule{
			name: x.Record + x.Alert, alerting: x.Alert != "", expr: parsed.String(), parsed: parsed,
			hold: time.Duration(x.For), keepFiringFor: time.Duration(x.KeepFiringFor),
			labels: b.Labels(), annotations: labels.FromMap(x.Annotations), active: map[uint64]*Alert{},
		})
	}
	return out, nil
}

// Eval evaluates every group once, at t. All rules are evaluated; the error is that of those which could not be.
func (r *Rules) Eval(ctx context.Context, t time.Time) error {
	return r.Every(ctx, t, t, time.Minute)
}

func (r *Rules) evalOne(ctx context.Context, g *ruleGroup, x *rule, t time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	vec, err := r.query(ctx, x.expr, t.Add(-g.offset))
	if err == nil {
		err = r.write(ctx, g, x, vec, t)
	}
	return x.problem(g, t, err)
}

// problem says which rule it was; nil if err is.
func (x *rule) problem(g *ruleGroup, t time.Time, err error) error {
	if err == nil {
		return nil
	}
	return problem.New(problem.Recording, "rule %s of group %s at %s: %v", x.name, g.name, t.UTC().Format(time.RFC3339), err).At(value.Pos{File: g.file})
}

// write writes what came of a rule. A series that it wrote last time and not this time has ended.
func (r *Rules) write(ctx context.Context, g *ruleGroup, x *rule, vec promql.Vector, t time.Time) (err error) {
	if x.alerting {
		vec, err = r.alerts(ctx, g, x, vec, t)
	} else {
		vec, err = record(g, x, vec)
	}
	if err != nil {
		return err
	}
	at := t.Add(-g.offset).UnixMilli()
	wrote := make(map[string]labels.Labels, len(vec))
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	var errs []error
	for _, s := range vec {
		if err := r.db.append(sample{labels: s.Metric, t: at, v: s.F, h: s.H}); err != nil {
			errs = append(errs, err)
			continue
		}
		wrote[string(s.Metric.Bytes(nil))] = s.Metric
	}
	for key, l := range x.wrote {
		if _, ok := wrote[key]; !ok {
			_ = r.db.stale(l, at) // another rule may have written it at this time
		}
	}
	x.wrote = wrote
	return errors.Join(errs...)
}

// record gives the answer of a recording rule its name and labels.
func record(g *ruleGroup, x *rule, vec promql.Vector) (promql.Vector, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for i := range vec {
		vec[i].Metric = x.recorded(b, vec[i].Metric)
	}
	if vec.ContainsSameLabelset() {
		return nil, errors.New("vector contains metrics with the same labelset after applying rule labels")
	}
	if g.limit > 0 && len(vec) > g.limit {
		return nil, fmt.Errorf("exceeded limit of %d with %d series", g.limit, len(vec))
	}
	return vec, nil
}

// recorded is what a series of a recording rule is called.
func (x *rule) recorded(b *labels.Builder, l labels.Labels) labels.Labels {
	b.Reset(l)
	b.Set(model.MetricNameLabel, x.name)
	x.labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// query is an instant query as rules ask it. The answer is the caller's own.
func (r *Rules) query(ctx context.Context, expr string, t time.Time) (promql.Vector, error) {
	q, err := r.db.engine.NewInstantQuery(ctx, r.db, nil, expr, t)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return slices.Clone(v), nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	}
	return nil, errors.New("rule result is not a vector or scalar")
}

// Only drops the rules that none of these alerts and expressions needs, directly or through other rules. Dropped evaluates those.
func (r *Rules) Only(alerts []string, exprs []string) error {
	need := needs{names: map[string]bool{}, alerts: map[string]bool{}}
	for _, a := range alerts {
		need.alerts[a] = true
	}
	for _, x := range exprs {
		parsed, err := r.db.parser.ParseExpr(x)
		if err != nil {
			return problem.Wrap(problem.Query, err, "query %q", x)
		}
		need.of(parsed)
	}
	kept := map[*rule]bool{}
	for grown := true; grown; {
		grown = false
		for _, g := range r.groups {
			for _, x := range g.rules {
				if !kept[x] && need.rule(x) {
					kept[x], grown = true, true
					need.of(x.parsed)
					need.templates(x)
				}
			}
		}
	}
	for _, g := range r.groups {
		all := append(g.rules, g.dropped...)
		g.rules, g.dropped = nil, nil
		for _, x := range all {
			if kept[x] {
				g.rules = append(g.rules, x)
			} else {
				g.dropped = append(g.dropped, x)
			}
		}
	}
	return nil
}

// Dropped evaluates the rules that Only has dropped, once, so that those of them that cannot be evaluated are still known.
func (r *Rules) Dropped(ctx context.Context, t time.Time) error {
	var errs []error
	for _, g := range r.groups {
		for _, x := range g.dropped {
			errs = append(errs, r.evalOne(ctx, g, x, t))
		}
	}
	return errors.Join(errs...)
}

// needs is what has to be evaluated.
type needs struct {
	all           bool
	names, alerts map[string]bool
}

const (
	alertsMetric   = "ALERTS"
	forStateMetric = "ALERTS_FOR_STATE"
)

func (n *needs) rule(x *rule) bool {
	switch {
	case n.all:
		return true
	case x.alerting:
		return n.alerts[x.name] || n.names[alertsMetric] || n.names[forStateMetric]
	}
	return n.names[x.name]
}

// of adds the metrics that an expression selects; a selector that names none may select any.
func (n *needs) of(x parser.Expr) {
	for _, selectors := range parser.ExtractSelectors(x) {
		name := ""
		for _, m := range selectors {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				name = m.Value
			}
		}
		switch name {
		case "":
			n.all = true
		case alertsMetric, forStateMetric:
			n.alertsOf(name, selectors)
		default:
			n.names[name] = true
		}
	}
}

func (n *needs) alertsOf(metric string, selectors []*labels.Matcher) {
	for _, m := range selectors {
		if m.Name == model.AlertNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			n.alerts[m.Value] = true
			return
		}
	}
	n.names[metric] = true
}

// templates takes an alert that asks further queries in its texts to need everything.
func (n *needs) templates(x *rule) {
	for _, set := range []labels.Labels{x.labels, x.annotations} {
		set.Range(func(l labels.Label) { n.all = n.all || asksQuery(l.Value) })
	}
}

// Alerts are the names of all alerting rules, sorted.
func (r *Rules) Alerts() []string {
	var out []string
	for _, g := range r.groups {
		for _, x := range g.rules {
			if x.alerting {
				out = append(out, x.name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Interval is the shortest of all groups.
func (r *Rules) Interval() time.Duration {
	d := time.Duration(math.MaxInt64)
	for _, g := range r.groups {
		d = min(d, g.interval)
	}
	return d
}
