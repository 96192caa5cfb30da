package recorded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

// AlertState is the state of an alert.
type AlertState string

// The states. An alert that is inactive was firing and has ended.
const (
	AlertPending  AlertState = "pending"
	AlertFiring   AlertState = "firing"
	alertInactive AlertState = "inactive"
)

// Alert is one alert of a rule.
type Alert struct {
	Name        string
	Labels      map[string]string // alertname included
	Annotations map[string]string
	State       AlertState
	Value       float64
	ActiveAt    time.Time // since when its expression has held without a break
	FiredAt     time.Time // since when it fires; zero while it is pending

	labels          labels.Labels
	keepFiringSince time.Time
	resolvedAt      time.Time
}

// resolvedFor is how long Prometheus remembers an alert that has ended.
const resolvedFor = 15 * time.Minute

// alerts brings the alerts of a rule up to date with the answer of its expression, and returns the series that tell of them.
func (r *Rules) alerts(ctx context.Context, g *ruleGroup, x *rule, res promql.Vector, t time.Time) (promql.Vector, error) {
	seen := make(map[uint64]*Alert, len(res))
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range res {
		expand := r.expander(ctx, x, s, t)
		b.Reset(s.Metric)
		b.Del(model.MetricNameLabel)
		x.labels.Range(func(l labels.Label) { b.Set(l.Name, expand(l.Value)) })
		b.Set(model.AlertNameLabel, x.name)
		a := &Alert{Name: x.name, labels: b.Labels(), Annotations: map[string]string{}, State: AlertPending, Value: s.F, ActiveAt: t}
		a.Labels = a.labels.Map()
		x.annotations.Range(func(l labels.Label) { a.Annotations[l.Name] = expand(l.Value) })
		h := a.labels.Hash()
		if seen[h] != nil {
			return nil, errors.New("vector contains metrics with the same labelset after applying alert labels")
		}
		seen[h] = a
	}
	for h, a := range seen {
		if old := x.active[h]; old != nil && old.State != alertInactive {
			old.Value, old.Annotations = a.Value, a.Annotations
			continue
		}
		x.active[h] = a
	}
	var out promql.Vector
	shown := 0
	for h, a := range x.active {
		if !a.step(x, seen[h] != nil, t) {
			if a.forgotten(t) {
				delete(x.active, h)
			}
			continue
		}
		shown++
		out = append(out, x.series(a, alertsMetric, 1), x.series(a, forStateMetric, float64(a.ActiveAt.Unix())))
	}
	if g.limit > 0 && shown > g.limit {
		x.active = map[uint64]*Alert{}
		return nil, fmt.Errorf("exceeded limit of %d with %d alerts", g.limit, shown)
	}
	return out, nil
}

// step takes an alert's arrow at t, and says whether it is pending or firing from then on.
func (a *Alert) step(x *rule, holds bool, t time.Time) bool {
	if a.State == alertInactive {
		return false
	}
	if holds {
		a.keepFiringSince = time.Time{}
	} else if !a.keeps(x, t) {
		a.State, a.resolvedAt = alertInactive, t
		if a.FiredAt.IsZero() {
			a.resolvedAt = time.Time{} // it never fired, so there is nothing to remember
		}
		return false
	}
	if a.State == AlertPending && t.Sub(a.ActiveAt) >= x.hold {
		a.State, a.FiredAt = AlertFiring, t
	}
	return true
}

// keeps says whether an alert goes on firing although its expression does not hold.
func (a *Alert) keeps(x *rule, t time.Time) bool {
	if a.State != AlertFiring || x.keepFiringFor == 0 {
		return false
	}
	if a.keepFiringSince.IsZero() {
		a.keepFiringSince = t
	}
	return t.Sub(a.keepFiringSince) < x.keepFiringFor
}

func (a *Alert) forgotten(t time.Time) bool {
	return a.resolvedAt.IsZero() || t.Sub(a.resolvedAt) > resolvedFor
}

// series is one of the two series that tell of an alert.
func (x *rule) series(a *Alert, metric string, v float64) promql.Sample {
	b := labels.NewBuilder(x.labels)
	a.labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	b.Set(model.MetricNameLabel, metric)
	b.Set(model.AlertNameLabel, x.name)
	if metric == alertsMetric {
		b.Set("alertstate", string(a.State))
	}
	return promql.Sample{Metric: b.Labels(), F: v}
}

// expander fills in the templates of a rule's labels and annotations for one of its alerts.
func (r *Rules) expander(ctx context.Context, x *rule, s promql.Sample, t time.Time) func(text string) string {
	data := template.AlertTemplateData(s.Metric.Map(), r.extern, r.url.String(), s)
	const names = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
	return func(text string) string {
		if !strings.Contains(text, "{{") {
			return text
		}
		out, err := template.NewTemplateExpander(ctx, names+text, "__alert_"+x.name, data, model.TimeFromUnixNano(t.UnixNano()), r.query, r.url, nil).Expand()
		if err != nil {
			return fmt.Sprintf("<error expanding template: %s>", err)
		}
		return out
	}
}

// asksQuery says whether a template may ask a query of its own.
func asksQuery(text string) bool {
	return strings.Contains(text, "{{") && strings.Contains(text, "query")
}

// Firing are the alerts of that name that fire after the last evaluation, sorted by their labels; "" means of any name.
func (r *Rules) Firing(name string) []Alert {
	var out []Alert
	for _, g := range r.groups {
		for _, x := range g.rules {
			if !x.alerting || name != "" && x.name != name {
				continue
			}
			for _, a := range x.active {
				if a.State == AlertFiring {
					out = append(out, *a)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Alert) int {
		return cmp.Or(labels.Compare(a.labels, b.labels), cmp.Compare(fmt.Sprint(a.Annotations), fmt.Sprint(b.Annotations)))
	})
	return out
}
