// Package kittest helps to test families: a host with prepared answers, and the contract that every
// family keeps.
package kittest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Host answers from what a test prepared. It is both kit.Host and kit.Metrics.
type Host struct {
	At      time.Time
	Vectors map[string][]kit.Sample // by expression
	Ranges  map[string][]kit.Series
	Fires   []kit.Alert
	Before  *kit.Attempt             // what was last done to the target
	Started map[string]time.Duration // by action: how long ago it started
	Changed map[string]*kit.Change   // by component; that of ctx.target is ""
	Kept    map[string]value.Value   // what the runbook remembers
	Told    []string                 // what was told to the owner
	Err     error                    // returned by every question, if set
	Asked   []Question               // in order
}

var (
	_ kit.Host    = (*Host)(nil)
	_ kit.Metrics = (*Host)(nil)
	_ kit.Alerts  = (*Host)(nil)

	_ kit.Memory   = (*Host)(nil)
	_ kit.State    = (*Host)(nil)
	_ kit.Notifier = (*Host)(nil)
)

// Question is one question that a family asked.
type Question struct {
	Expr         string
	Where        map[string]string
	Window, Step time.Duration
}

// Now implements kit.Host.
func (h *Host) Now() time.Time { return h.At }

// Metrics implements kit.Host.
func (h *Host) Metrics() kit.Metrics { return h }

// Instant implements kit.Metrics.
func (h *Host) Instant(_ context.Context, expr string, where map[string]string) ([]kit.Sample, error) {
	h.Asked = append(h.Asked, Question{Expr: expr, Where: where})
	return h.Vectors[expr], h.Err
}

// Range implements kit.Metrics.
func (h *Host) Range(_ context.Context, expr string, where map[string]string, window, step time.Duration) ([]kit.Series, error) {
	h.Asked = append(h.Asked, Question{expr, where, window, step})
	return h.Ranges[expr], h.Err
}

// Alerts implements kit.Host.
func (h *Host) Alerts() kit.Alerts { return h }

// Firing implements kit.Alerts.
func (h *Host) Firing(_ context.Context, name string, where map[string]string) ([]kit.Alert, error) {
	h.Asked = append(h.Asked, Question{Expr: name, Where: where})
	return h.Fires, h.Err
}

// LastAttempt implements kit.Memory.
func (h *Host) LastAttempt(context.Context) (*kit.Attempt, error) { return h.Before, h.Err }

// LastStarted implements kit.Memory.
func (h *Host) LastStarted(_ context.Context, action string) (time.Duration, bool, error) {
	age, ok := h.Started[action]
	return age, ok, h.Err
}

// LastChange implements kit.Memory.
func (h *Host) LastChange(_ context.Context, component string) (*kit.Change, error) {
	return h.Changed[component], h.Err
}

// Get implements kit.State.
func (h *Host) Get(_ context.Context, key string) (value.Value, bool, error) {
	v, ok := h.Kept[key]
	return v, ok, h.Err
}

// Set implements kit.State.
func (h *Host) Set(_ context.Context, key string, v value.Value) error {
	if h.Err == nil {
		h.Kept[key] = v
	}
	return h.Err
}

// Tell implements kit.Notifier.
func (h *Host) Tell(_ context.Context, text string) error {
	if h.Err == nil {
		h.Told = append(h.Told, text)
	}
	return h.Err
}

// Call calls a function as the engine does: arguments are checked and defaults added first.
func Call(t *testing.T, f kit.Family, function string, h kit.Host, args kit.Args) (value.Value, error) {
	t.Helper()
	fn, ok := f.Lookup(function)
	if !ok || fn.Call == nil {
		t.Fatalf("%s.%s cannot be called", f.Name, function)
	}
	checked, err := kit.Check(fn, args)
	if err != nil {
		return nil, err
	}
	return fn.Call(t.Context(), h, checked)
}

// Contract checks what every family promises to the two processes that read its table, and to the people who read its docs.
func Contract(t *testing.T, families []kit.Family) {
	t.Helper()
	names := map[string]bool{}
	for _, f := range families {
		for _, p := range Violations(f) {
			t.Error(p)
		}
		if names[f.Name] {
			t.Errorf("two families have the name %q", f.Name)
		}
		names[f.Name] = true
	}
}

var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// of ctx itself, which a family would hide.
var reservedFamilies = []string{"now", "target", "params", "attempt", "steps"}

var kinds = []kit.Kind{kit.Declare, kit.Query, kit.Analysis, kit.Action}

// Violations lists where a family breaks the contract.
func Violations(f kit.Family) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f.Name != "" && !snake.MatchString(f.Name) {
		bad("family %q: the name is not snake_case", f.Name)
	}
	if slices.Contains(reservedFamilies, f.Name) {
		bad("family %q: the name is ctx's own", f.Name)
	}
	if f.Doc == "" {
		bad("family %q has no doc", f.Name)
	}
	if len(f.Functions) == 0 {
		bad("family %q has no functions", f.Name)
	}
	seen := map[string]bool{}
	for _, fn := range f.Functions {
		where := strings.TrimPrefix(f.Name+"."+fn.Name, ".")
		if seen[fn.Name] {
			bad("%s is there twice", where)
		}
		seen[fn.Name] = true
		if f.Name == "" && fn.Kind != kit.Declare {
			bad("%s: only a declaration can stand without a family", where)
		}
		out = append(out, violations(where, fn)...)
	}
	return out
}

func violations(where string, fn kit.Function) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, where+": "+fmt.Sprintf(format, args...)) }
	if !snake.MatchString(fn.Name) {
		bad("the name is not snake_case")
	}
	if !strings.HasSuffix(fn.Doc, ".") {
		bad("the doc is not a sentence: %q", fn.Doc)
	}
	if !slices.Contains(kinds, fn.Kind) {
		bad("the kind %q is not in the list", fn.Kind)
	}
	if fn.Positional < 0 || fn.Positional > min(1, len(fn.Params)) {
		bad("%d parameters by position: at most one is", fn.Positional)
	}
	if (fn.Kind == kit.Declare || fn.Kind == kit.Action) && fn.Call != nil {
		bad("a %s has no Call: the engine does it", fn.Kind)
	}
	seen := map[string]bool{}
	for i, p := range fn.Params {
		switch {
		case !snake.MatchString(p.Name):
			bad("parameter %q: the name is not snake_case", p.Name)
		case seen[p.Name]:
			bad("parameter %s is there twice", p.Name)
		case p.Doc == "" || strings.HasSuffix(p.Doc, "."):
			bad("parameter %s: the doc is not a phrase without a full stop: %q", p.Name, p.Doc)
		case p.Required && p.Default != nil:
			bad("parameter %s is required and has a default", p.Name)
		case !p.Required && p.Default == nil && !saysDefault(p.Doc):
			bad(`parameter %s: the doc does not say what holds "if not given": %q`, p.Name, p.Doc)
		case i < fn.Positional && !p.Required && fn.Kind == kit.Action:
			bad("parameter %s: what an action is about must be given", p.Name)
		}
		seen[p.Name] = true
		if p.Default != nil {
			if _, err := kit.Check(kit.Function{Name: where, Kind: kit.Query, Params: []kit.Param{p}}, kit.Args{p.Name: p.Default}); err != nil {
				bad("parameter %s: the default is not of its type: %v", p.Name, err)
			}
		}
		if fn.Kind == kit.Action || fn.Kind == "" {
			for _, r := range kit.ReservedActionParams() {
				if r.Name == p.Name {
					bad("parameter %s is reserved: every action has it", p.Name)
				}
			}
		}
	}
	return out
}

func saysDefault(doc string) bool {
	return strings.Contains(doc, "if not given") || strings.Contains(doc, "required")
}
