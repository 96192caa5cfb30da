package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// alertView is what the Alertmanagers say together. One alert that several of them have, with other times, is one: it is told apart by
// its labels.
type alertView struct {
	mu    sync.Mutex
	list  map[string]kit.Alert // by labels
	heard int                  // how many have answered
	deaf  []string             // those that have not
	err   error                // of the first of these
}

// add takes what one of them says.
func (a *alertView) add(source string, ask func() ([]kit.Alert, error)) {
	found, err := ask()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.deaf = append(a.deaf, source)
		if a.err == nil {
			a.err = err
		}
		return
	}
	a.heard++
	if a.list == nil {
		a.list = map[string]kit.Alert{}
	}
	for _, x := range found {
		key := labelText(x.Labels)
		if old, ok := a.list[key]; ok {
			// Since the first of them knew it; as fresh as the last heard of it; silenced if a person has done so anywhere.
			if old.Since.Before(x.Since) {
				x.Since = old.Since
			}
			if old.Updated.After(x.Updated) {
				x.Updated = old.Updated
			}
			x.Silenced = x.Silenced || old.Silenced
		}
		a.list[key] = x
	}
}

// nobody is why none has answered, nil if one has, or none was asked.
func (a *alertView) nobody() error {
	if a.heard == 0 {
		return a.err
	}
	return nil
}

// all are the alerts in order of their labels.
func (a *alertView) all() []kit.Alert {
	out := make([]kit.Alert, 0, len(a.list))
	for _, key := range slices.Sorted(maps.Keys(a.list)) {
		out = append(out, a.list[key])
	}
	return out
}

// judge says what the alert means for a target. also says that tt is judged by metrics already: then both must say that it is sick.
func (a *alertView) judge(rb *project.Runbook, t action.Target, tt *trace.Target, at time.Time, maxAge time.Duration, also bool) {
	c := trace.Target{Condition: trace.Healthy, MeasuredAt: at, Why: rb.Alert.String() + " does not fire"}
	if len(a.deaf) > 0 {
		slices.Sort(a.deaf)
		c.Condition, c.Why = trace.Unknown, fmt.Sprintf("%s does not fire where it is known, but %s cannot be asked", rb.Alert, strings.Join(a.deaf, ", "))
	}
	for _, x := range a.all() {
		if !rb.Targets.Single && !rb.Matches(t, x.Labels) {
			if _, err := rb.Target(x.Labels); err != nil && !x.Silenced && c.Condition == trace.Healthy {
				c.Condition, c.Why = trace.Unknown, fmt.Sprintf("%s fires without saying for whom, which may be this one: it has no %s: %s", rb.Alert, strings.Join(missingOf(rb, x.Labels), ", "), labelText(x.Labels))
			}
			continue
		}
		n := trace.Target{Condition: trace.Sick, MeasuredAt: x.Updated, Severity: severityLabel(x.Labels)}
		since := at.Sub(x.Since)
		n.Why = fmt.Sprintf("%s fires since %s", rb.Alert, x.Since.UTC().Format("2006-01-02 15:04:05Z"))
		switch {
		case at.Sub(x.Updated) > maxAge:
			n.Condition, n.Why = trace.Unknown, fmt.Sprintf("%s: nothing was heard of it for %s, more than %s", rb.Alert, at.Sub(x.Updated).Round(time.Second), value.FormatDuration(maxAge))
		case x.Silenced:
			n.Condition = trace.Pending
			n.Why += ", but it is silenced"
		case since < rb.Targets.Held:
			n.Condition = trace.Pending
			n.Why += ", not for " + value.FormatDuration(rb.Targets.Held) + " yet"
		}
		// Of several about one target the most certain counts, and the worst.
		if rank(n.Condition) > rank(c.Condition) || c.Severity == "" {
			n.Severity = worse(n.Severity, c.Severity)
			c = n
			continue
		}
		c.Severity = worse(n.Severity, c.Severity)
	}
	tt.Severity = c.Severity
	if !also {
		tt.Condition, tt.Why, tt.MeasuredAt = c.Condition, c.Why, c.MeasuredAt
	} else {
		tt.Why += "; " + c.Why
		if c.MeasuredAt.Before(tt.MeasuredAt) {
			tt.MeasuredAt = c.MeasuredAt
		}
		// The less certain of both.
		for _, cond := range []trace.Condition{trace.Unknown, trace.Healthy, trace.Pending} {
			if tt.Condition == cond || c.Condition == cond {
				tt.Condition = cond
				break
			}
		}
	}
	tt.Labels = nil
	if tt.Condition != trace.Healthy {
		tt.Labels = maps.Clone(t.Labels)
	}
}

// strangers are those that the alert fires for and that are not in the fleet, such as a machine that is down so hard that it is no longer counted.
func (a *alertView) strangers(rb *project.Runbook, all []action.Target) []*trace.Target {
	known := map[string]bool{}
	for _, t := range all {
		known[t.Key] = true
	}
	var out []*trace.Target
	for _, x := range a.all() {
		t, err := rb.Target(x.Labels)
		if err != nil || known[t.Key] || x.Silenced || rb.Targets.Single {
			continue
		}
		known[t.Key] = true
		out = append(out, &trace.Target{Key: t.Key, Name: t.Name, Labels: t.Labels, Condition: trace.Missing, MeasuredAt: x.Updated, Why: rb.Alert.String() + " fires for it, and it is not in the fleet"})
	}
	return out
}

// missingOf are the labels that a target is named by and that these are without.
func missingOf(rb *project.Runbook, labels map[string]string) []string {
	return slices.DeleteFunc(slices.Clone(rb.Targets.By), func(l string) bool { return labels[l] != "" })
}

func rank(c trace.Condition) int {
	return slices.Index([]trace.Condition{trace.Healthy, trace.Unknown, trace.Pending, trace.Sick}, c)
}

// severityLabel is how bad an alert says that it is. One that does not say, or not in these words, is critical.
func severityLabel(labels map[string]string) guard.Severity {
	switch s := guard.Severity(labels["severity"]); s {
	case guard.Info, guard.Warning:
		return s
	}
	return guard.Critical
}

func worse(a, b guard.Severity) guard.Severity {
	order := []guard.Severity{"", guard.Info, guard.Warning, guard.Critical}
	if slices.Index(order, a) < slices.Index(order, b) {
		return b
	}
	return a
}

// severityOf is how bad the problem of a target is.
func severityOf(rb *project.Runbook, tt *trace.Target) guard.Severity {
	if rb.Alert != nil {
		return worse(tt.Severity, "")
	}
	return rb.Severity
}

// askAlerts asks one Alertmanager.
func (e *engine) askAlerts(ctx context.Context, c project.Connection, name string, where map[string]string, q *trace.Query) ([]kit.Alert, error) {
	from := e.wall()
	found, err := func() ([]kit.Alert, error) {
		conn, err := e.connection(c)
		if err != nil {
			return nil, err
		}
		args := value.Dict{}
		if name != "" {
			args = append(args, value.Entry{Key: value.String("name"), Value: value.String(name)})
		}
		if len(where) > 0 {
			args = append(args, value.Entry{Key: value.String("where"), Value: value.Strings(where)})
		}
		v, err := e.Host.Query(ctx, conn, "alerts", args)
		if err != nil {
			return nil, at(err, c.Pos)
		}
		return decodeAlerts(v)
	}()
	q.Took += e.wall().Sub(from)
	if err != nil {
		q.Error = c.Name + ": " + err.Error()
		return nil, err
	}
	if q.Answer != "" {
		q.Answer += "; "
	}
	q.Answer += c.Name + ": " + renderAlerts(found)
	return found, nil
}

// decodeAlerts reads the answer of a plugin: a list of {name, labels, annotations, since, updated, silenced}.
func decodeAlerts(v value.Value) ([]kit.Alert, error) {
	bad := problem.New(problem.MetricsSource, "the plugin answered with something that is no list of alerts")
	list, ok := v.(value.List)
	if !ok {
		return nil, bad
	}
	out := make([]kit.Alert, 0, len(list))
	for _, el := range list {
		d, ok := el.(value.Dict)
		if !ok {
			return nil, bad
		}
		get := func(name string) value.Value { v, _ := d.Get(name); return v }
		name, ok1 := get("name").(value.String)
		labels, ok2 := textMap(get("labels"))
		annotations, ok3 := textMap(get("annotations"))
		since, ok4 := get("since").(value.Time)
		updated, ok5 := get("updated").(value.Time)
		silenced, ok6 := get("silenced").(value.Bool)
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || name == "" {
			return nil, bad
		}
		out = append(out, kit.Alert{Name: string(name), Labels: labels, Annotations: annotations, Since: time.Time(since), Updated: time.Time(updated), Silenced: bool(silenced)})
	}
	return out, nil
}

func textMap(v value.Value) (map[string]string, bool) {
	d, ok := v.(value.Dict)
	out := make(map[string]string, len(d))
	for _, e := range d {
		k, kok := e.Key.(value.String)
		x, vok := e.Value.(value.String)
		if !kok || !vok {
			return nil, false
		}
		out[string(k)] = string(x)
	}
	return out, ok
}

func renderAlerts(found []kit.Alert) string {
	if len(found) == 0 {
		return "none"
	}
	parts := make([]string, 0, maxRendered+1)
	for i, x := range found {
		if i == maxRendered {
			parts = append(parts, fmt.Sprintf("and %d more", len(found)-i))
			break
		}
		text := labelText(x.Labels) + " since " + x.Since.UTC().Format("2006-01-02 15:04:05Z")
		if x.Silenced {
			text += " (silenced)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// Alerts implements kit.Host.
func (a asker) Alerts() kit.Alerts { return a }

// Firing implements kit.Alerts. One Alertmanager that cannot be asked may have what the others have not: then nothing is known.
func (a asker) Firing(ctx context.Context, name string, where map[string]string) ([]kit.Alert, error) {
	e := a.v.e
	if len(e.Settings.Alerts) == 0 {
		return nil, problem.New(problem.Project, "%s names no Alertmanager", project.File).
			WithHint(`write project(alerts = [connection("alertmanager", config = {"url": "http://..."})])`)
	}
	told := &alertView{}
	for _, c := range e.Settings.Alerts {
		told.add(c.Name, func() ([]kit.Alert, error) { return e.askAlerts(ctx, c, name, where, a.q) })
	}
	if told.err != nil {
		return nil, told.err
	}
	return told.all(), nil
}
