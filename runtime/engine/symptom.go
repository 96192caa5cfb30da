package engine

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// seen is one target as this run saw it.
type seen struct {
	target action.Target
	trace  *trace.Target
}

// sight is what the metric source and the Alertmanagers say of a fleet at the time of the run.
type sight struct {
	queries []*trace.Query
	all     []action.Target // sorted by key
	judged  []*trace.Target // of each
	told    *alertView      // by the Alertmanagers
	before  *before         // the members that the fleet had lately, nil if nobody is sick
	err     error           // then the rest but the queries is of no use
}

// ask asks for the fleet and its symptom and judges every target. A failed, partial or stale answer is never evidence of a problem: it is an error
// or makes a target unknown.
func (e *engine) ask(ctx context.Context, rb *project.Runbook) *sight {
	s := &sight{told: &alertView{}}
	s.err = s.take(ctx, e, rb)
	return s
}

func (s *sight) take(ctx context.Context, e *engine, rb *project.Runbook) error {
	at := e.run.Started
	left := rb.Targets.Sick.Left
	var members []kit.Sample
	var grid []kit.Series
	var stamps [][]kit.Sample

	g, gctx := errgroup.WithContext(ctx)
	ask := func(function, expr string, fn func(ctx context.Context, q *trace.Query) error) {
		q := &trace.Query{Function: function, Expr: expr, At: at}
		s.queries = append(s.queries, q)
		g.Go(func() error {
			if err := fn(gctx, q); err != nil {
				return fmt.Errorf("ask for the %s: %w", function, err)
			}
			return nil
		})
	}
	if rb.Targets.All != nil {
		ask("fleet", rb.Targets.All.String(), func(ctx context.Context, q *trace.Query) (err error) {
			members, err = e.source.instant(ctx, q.Expr, at, q)
			return err
		})
	}
	window, step := Window(e.Settings, rb)
	intervals := int(window / step)
	if rb.Alert != nil {
		for _, c := range e.Settings.Alerts {
			ask("alerts", rb.Alert.String(), func(ctx context.Context, q *trace.Query) error {
				s.told.add(c.Name, func() ([]kit.Alert, error) { return e.askAlerts(ctx, c, rb.Alert.Name, rb.Alert.Labels, q) })
				return nil
			})
		}
	}
	if left != nil {
		stamps = make([][]kit.Sample, len(left.Timestamps()))
		e.askSymptom(ask, left, &grid, stamps, intervals, step)
	}
	err := g.Wait()
	if err != nil {
		return err
	}
	if err := s.told.nobody(); err != nil {
		return fmt.Errorf("ask for the alerts: %w", err)
	}
	if s.all, err = e.population(rb, members); err != nil {
		return err
	}
	byKey, err := seriesByTarget(rb, grid)
	if err != nil {
		return err
	}
	s.judged = make([]*trace.Target, len(s.all))
	measured := stampedBy(rb, stamps)
	holds := false
	for i, t := range s.all {
		if left != nil {
			s.judged[i] = judge(rb, t, byKey[t.Key], newestFor(rb, t, measured), intervals+1, at, e.Settings.MaxAge)
		} else {
			s.judged[i] = e.said(t)
		}
		if rb.Alert != nil {
			s.told.judge(rb, t, s.judged[i], at, e.Settings.MaxAge, left != nil)
		}
		holds = holds || s.judged[i].Condition == trace.Sick
	}
	// Only now, so that a healthy fleet costs no more questions; and at once, whether or not the gaps leave anybody sick.
	if holds && rb.Targets.All != nil {
		s.before = e.askBefore(ctx, rb)
		defer s.before.wait()
	}
	if holds && intervals > 0 && left != nil {
		return s.gaps(ctx, e, rb, intervals, step)
	}
	return nil
}

// look says what a sight tells of a runbook's fleet, and of the members that it has lost.
func (e *engine) look(ctx context.Context, rb *project.Runbook, tr *trace.Runbook, s *sight) ([]seen, guard.FleetView, error) {
	tr.Symptom, tr.Held = symptomText(rb), value.FormatDuration(rb.Targets.Held)
	tr.Queries = append(tr.Queries, s.queries...)
	if s.err != nil {
		return nil, guard.FleetView{}, s.err
	}
	out := make([]seen, 0, len(s.all))
	view := guard.FleetView{ID: rb.Targets.ID, Single: rb.Targets.Single, MaxBad: rb.Targets.MaxBad}
	tr.Fleet = &trace.Fleet{Members: len(s.all)}
	view.Members = make([]string, 0, len(s.all))
	for i, t := range s.all {
		tt := s.judged[i]
		out = append(out, seen{t, tt})
		view.Members = append(view.Members, t.Key)
		switch tt.Condition {
		case trace.Sick:
			tr.Fleet.Sick++
			view.Sick = append(view.Sick, t.Key)
		case trace.Pending:
			tr.Fleet.Pending++
			view.Sick = append(view.Sick, t.Key)
		case trace.Unknown:
			tr.Fleet.Unknown++
			view.Unknown = append(view.Unknown, t.Key)
		}
	}
	if tr.Fleet.Sick > 0 && rb.Targets.All != nil {
		var err error
		if view.Missing, err = e.missing(ctx, rb, s.all, tr, s.before); err != nil {
			return nil, guard.FleetView{}, err
		}
	}
	for _, t := range s.told.strangers(rb, s.all) {
		if !slices.Contains(view.Missing, t.Key) {
			view.Missing = append(view.Missing, t.Key)
			tr.Fleet.Missing++
			tr.Targets = append(tr.Targets, t)
		}
	}
	return out, view.Prepared(), nil
}

// symptomText says what makes a target sick.
func symptomText(rb *project.Runbook) string {
	var parts []string
	if rb.Alert != nil {
		parts = append(parts, rb.Alert.String())
	}
	if rb.Targets.Sick.Left != nil {
		parts = append(parts, rb.Targets.Sick.String())
	}
	if len(parts) == 0 {
		return "what a person says"
	}
	return strings.Join(parts, " and ")
}

// said is a target of which only a person, or an alert that is looked at next, can say that it is sick.
func (e *engine) said(t action.Target) *trace.Target {
	tt := &trace.Target{Key: t.Key, Name: t.Name, Condition: trace.Healthy, MeasuredAt: e.run.Started, Why: "nobody says that it is sick"}
	if e.Target != "" && e.wanted(t) {
		tt.Condition, tt.Labels, tt.Why = trace.Sick, maps.Clone(t.Labels), "a person says so"
	}
	return tt
}

// askSymptom asks for the left side of the symptom over its window, and for when it was measured.
func (e *engine) askSymptom(ask func(string, string, func(context.Context, *trace.Query) error), left *promexpr.Expr, grid *[]kit.Series, stamps [][]kit.Sample, intervals int, step time.Duration) {
	at := e.run.Started
	ask("symptom", left.String(), func(ctx context.Context, q *trace.Query) (err error) {
		*grid, err = e.source.grid(ctx, q.Expr, at.Add(-time.Duration(intervals)*step), at, step, q)
		return err
	})
	for i, t := range left.Timestamps() {
		ask("age", t.String(), func(ctx context.Context, q *trace.Query) (err error) {
			stamps[i], err = e.source.instant(ctx, q.Expr, at, q)
			q.Answer = renderAges(stamps[i], at)
			return err
		})
	}
}

// blind is the problem of a runbook that sees nothing: no targets at all, or nothing of any of them. Most often a label or a metric is
// written wrongly, or nothing is scraped any more; neither may look like health.
func blind(rb *project.Runbook, all []seen) error {
	if len(all) == 0 {
		return problem.New(problem.NoData, "there are no targets: %s has no data", rb.Targets.All).At(rb.Pos).
			WithHint("check the name and the labels in all =, and that Prometheus scrapes them")
	}
	for _, s := range all {
		if s.trace.Condition != trace.Unknown {
			return nil
		}
	}
	return problem.New(problem.NoData, "nothing is known of any target; of %s: %s", all[0].target.Name, all[0].trace.Why).At(rb.Pos).
		WithHint("check the name and the labels in sick =, and that Prometheus scrapes them; project(max_age=) says how old is too old")
}

// gaps takes back that a symptom was held where it was not measured: a query fills gaps with what it knew before, so each point of the window
// needs a measurement that was not too old then.
func (s *sight) gaps(ctx context.Context, e *engine, rb *project.Runbook, intervals int, step time.Duration) error {
	at := e.run.Started
	start := at.Add(-time.Duration(intervals) * step)
	sick := map[string]bool{} // by the values of the labels that name a target
	for i, t := range s.all {
		if s.judged[i].Condition == trace.Sick {
			sick[rb.KeyOf(t.Labels)] = true
		}
	}
	byTime := make([][]stamped, intervals+1) // by point of the window and selector
	for n, t := range rb.Targets.Sick.Left.Timestamps() {
		q := &trace.Query{Function: "gaps", Expr: t.String(), At: at}
		s.queries = append(s.queries, q)
		series, err := e.source.grid(ctx, q.Expr, start, at, step, q)
		if err != nil {
			return fmt.Errorf("ask for the gaps: %w", err)
		}
		q.Answer = fmt.Sprintf("%d series", len(series))
		for i := range byTime {
			byTime[i] = append(byTime[i], stamped{own: map[string]time.Time{}})
		}
		for _, x := range series {
			key, named := rb.KeyOf(x.Labels), carries(rb, x.Labels)
			for _, p := range x.Points {
				if i := int((p.At.Sub(start) + step/2) / step); i >= 0 && i <= intervals {
					byTime[i][n].add(key, named, sick[key], seconds(p.Value))
				}
			}
		}
	}
	for k, t := range s.all {
		if s.judged[k].Condition != trace.Sick {
			continue
		}
		for i, stamps := range byTime {
			then := start.Add(time.Duration(i) * step)
			if measured := newestFor(rb, t, stamps); measured.IsZero() || then.Sub(measured) > e.Settings.MaxAge {
				s.judged[k].Condition = trace.Pending
				s.judged[k].Why += fmt.Sprintf(", but at %s nothing had been measured for more than %s: a gap is not evidence", then.UTC().Format(time.TimeOnly), value.FormatDuration(e.Settings.MaxAge))
				break
			}
		}
	}
	return nil
}

// Window is how far back a symptom is looked at, and in which steps: the sampling, widened so that a window never has more than 500 points.
func Window(s *project.Settings, rb *project.Runbook) (window, step time.Duration) {
	held := rb.Targets.Held
	step = max(s.Sampling, held/500)
	return (held + step - 1) / step * step, step
}

// population turns the members into targets with unique keys, sorted.
func (e *engine) population(rb *project.Runbook, members []kit.Sample) ([]action.Target, error) {
	if rb.Targets.Single {
		return []action.Target{rb.Targets.Target}, nil
	}
	out := make([]action.Target, 0, len(members))
	for _, m := range members {
		t, err := rb.Target(m.Labels)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b action.Target) int { return strings.Compare(a.Key, b.Key) })
	for i := 1; i < len(out); i++ {
		if a, b := out[i-1], out[i]; a.Key == b.Key {
			return nil, problem.New(problem.Query, "all = returns two series for target %s: %s and %s", a.Key, labelText(a.Labels), labelText(b.Labels)).
				At(rb.Pos).WithHint("make by= more specific, or aggregate: max by (%s) (...)", strings.Join(rb.Targets.By, ", "))
		}
	}
	return out, nil
}

// seriesByTarget puts the series of the symptom by the key of their target.
func seriesByTarget(rb *project.Runbook, grid []kit.Series) (map[string]kit.Series, error) {
	out := make(map[string]kit.Series, len(grid))
	for _, s := range grid {
		key, err := rb.Key(s.Labels)
		if err != nil {
			return nil, err
		}
		other, ok := out[key]
		if !ok {
			out[key] = s
			continue
		}
		// A label that is not of by may have changed in the window, by a deploy: one series ends and the next begins.
		both, ok := join(other, s)
		if !ok {
			return nil, problem.New(problem.Query, "sick = returns two series for target %s: %s and %s", key, labelText(other.Labels), labelText(s.Labels)).
				At(rb.Pos).WithHint("aggregate to one value for each target: max by (%s) (...)", strings.Join(rb.Targets.By, ", "))
		}
		out[key] = both
	}
	return out, nil
}

// join makes one series of two that follow each other; false if both have a value at one time.
func join(a, b kit.Series) (kit.Series, bool) {
	points := slices.Concat(a.Points, b.Points)
	slices.SortFunc(points, func(a, b kit.Point) int { return a.At.Compare(b.At) })
	for i := 1; i < len(points); i++ {
		if points[i].At.Equal(points[i-1].At) {
			return kit.Series{}, false
		}
	}
	newer := a
	if len(a.Points) == 0 || len(b.Points) > 0 && b.Points[len(b.Points)-1].At.After(a.Points[len(a.Points)-1].At) {
		newer = b
	}
	return kit.Series{Labels: newer.Labels, Points: points}, true
}

// stamped is when the series of one selector were measured.
type stamped struct {
	own     map[string]time.Time // by the values of the labels that name a target: the newest
	newest  time.Time            // of all
	carries bool                 // whether a series has the labels that name targets
}

// add takes a sample of a series with these values of the labels that name a target, which it carries or not; its own time is kept if it is wanted.
func (x *stamped) add(key string, carries, wanted bool, at time.Time) {
	if at.After(x.newest) {
		x.newest = at
	}
	if wanted && at.After(x.own[key]) {
		x.own[key] = at
	}
	x.carries = x.carries || carries
}

// carries says whether a series has all labels that name a target.
func carries(rb *project.Runbook, labels map[string]string) bool {
	return len(rb.Targets.By) > 0 && !slices.ContainsFunc(rb.Targets.By, func(l string) bool { _, ok := labels[l]; return !ok })
}

// stampedBy puts the samples of each selector in order of their targets, so that a fleet is looked through once, and not once for each member.
func stampedBy(rb *project.Runbook, stamps [][]kit.Sample) []stamped {
	out := make([]stamped, len(stamps))
	for i, samples := range stamps {
		out[i].own = make(map[string]time.Time, len(samples))
		for _, s := range samples {
			out[i].add(rb.KeyOf(s.Labels), carries(rb, s.Labels), true, seconds(s.Value))
		}
	}
	return out
}

// newestFor is when the target's symptom was measured: the newest sample of each selector, the oldest of those. A selector
// whose series do not carry the target's labels counts with the newest it has at all.
func newestFor(rb *project.Runbook, t action.Target, stamps []stamped) time.Time {
	var out time.Time
	key := rb.KeyOf(t.Labels)
	for _, x := range stamps {
		own := x.own[key]
		if own.IsZero() && !x.carries {
			own = x.newest
		}
		if own.IsZero() {
			return time.Time{}
		}
		if out.IsZero() || own.Before(out) {
			out = own
		}
	}
	return out
}

// judge says what is known of one target from the grid of its symptom over the held window.
func judge(rb *project.Runbook, t action.Target, s kit.Series, measured time.Time, points int, at time.Time, maxAge time.Duration) *trace.Target {
	tt := &trace.Target{Key: t.Key, Name: t.Name, Condition: trace.Unknown, MeasuredAt: measured}
	defer func() {
		if tt.Condition != trace.Healthy {
			tt.Labels = maps.Clone(t.Labels)
		}
	}()
	sick := rb.Targets.Sick
	if len(s.Points) == 0 {
		tt.Why = "no data for " + sick.Left.String()
		return tt
	}
	last := s.Points[len(s.Points)-1]
	if !math.IsNaN(last.Value) && !math.IsInf(last.Value, 0) {
		v := last.Value
		tt.Value = &v
	}
	switch {
	case last.At.Before(at.Add(-time.Millisecond)):
		tt.Why = fmt.Sprintf("no data now; the last value was %s at %s", number(last.Value), last.At.UTC().Format(time.TimeOnly))
		return tt
	case measured.IsZero():
		tt.Why = fmt.Sprintf("the value is %s, but it is not known when it was measured", number(last.Value))
		return tt
	case at.Sub(measured) > maxAge:
		tt.Why = fmt.Sprintf("stale: measured %s ago, more than %s", at.Sub(measured).Round(time.Second), value.FormatDuration(maxAge))
		return tt
	case tt.Value == nil:
		tt.Why = fmt.Sprintf("the value is %s, which is not a measurement", number(last.Value))
		return tt
	case !sick.Holds(last.Value):
		tt.Condition, tt.Why = trace.Healthy, number(last.Value)+", not "+sick.Op+" "+number(sick.Threshold) // of most targets
		return tt
	}
	held := 0
	for i := len(s.Points) - 1; i >= 0 && sick.Holds(s.Points[i].Value) && !math.IsInf(s.Points[i].Value, 0); i-- {
		held++
	}
	if held < points {
		tt.Condition = trace.Pending
		tt.Why = fmt.Sprintf("%s %s %s, but not for all of the last %s (%d of %d samples)", number(last.Value), sick.Op, number(sick.Threshold), value.FormatDuration(rb.Targets.Held), held, points)
		return tt
	}
	tt.Condition = trace.Sick
	tt.Why = fmt.Sprintf("%s %s %s, held for %s", number(last.Value), sick.Op, number(sick.Threshold), value.FormatDuration(rb.Targets.Held))
	return tt
}
