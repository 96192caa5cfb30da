package control

import (
	"maps"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Selector says what a control covers. Everything that is named must agree. One that names nothing cannot be made; if one is
// found all the same it covers everything, because what it was to spare is not known.
type Selector struct {
	Runbook string            `json:"runbook,omitempty"`
	Action  string            `json:"action,omitempty"` // "exec.run"
	Target  string            `json:"target,omitempty"` // its name or its key
	Labels  map[string]string `json:"labels,omitempty"` // of the target
	All     bool              `json:"all,omitempty"`    // everything, and said so
}

// Subject is what is asked about: an action of a runbook on a target.
type Subject struct {
	Runbook, Action string
	Key, Name       string
	Labels          map[string]string
}

// Covers says whether the control is about the subject.
func (s Selector) Covers(x Subject) bool {
	if s.Runbook != "" && s.Runbook != x.Runbook || s.Action != "" && s.Action != x.Action {
		return false
	}
	if s.Target != "" && s.Target != x.Key && s.Target != x.Name {
		return false
	}
	for k, v := range s.Labels {
		if x.Labels[k] != v {
			return false
		}
	}
	return true
}

// Same says whether two selectors name the same.
func (s Selector) Same(o Selector) bool {
	return s.Runbook == o.Runbook && s.Action == o.Action && s.Target == o.Target && s.All == o.All && maps.Equal(s.Labels, o.Labels)
}

// String names what is covered: "runbook worker, customer=acme".
func (s Selector) String() string {
	var parts []string
	for _, p := range []struct{ what, name string }{{"runbook", s.Runbook}, {"action", s.Action}, {"target", s.Target}} {
		if p.name != "" {
			parts = append(parts, p.what+" "+p.name)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, k+"="+s.Labels[k])
	}
	if parts == nil {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// Check refuses a selector that names nothing, or a pattern: an empty set must never come to mean everything, nor a star.
func (s Selector) Check() error {
	named := s.Runbook != "" || s.Action != "" || s.Target != "" || len(s.Labels) > 0
	switch {
	case s.All && named:
		return problem.New(problem.Usage, "it names everything and something")
	case !s.All && !named:
		return problem.New(problem.Usage, "it names nothing, and nothing is never taken for everything")
	}
	for _, text := range []string{s.Runbook, s.Action, s.Target} {
		if strings.ContainsAny(text, "*?") || strings.TrimSpace(text) != text {
			return problem.New(problem.Usage, "%q looks like a pattern: names are compared as they are", text)
		}
	}
	for k, v := range s.Labels {
		if k == "" || v == "" || strings.ContainsAny(v, "*") {
			return problem.New(problem.Usage, "label %q=%q: write a name and a value; values are compared as they are", k, v)
		}
	}
	return nil
}
