package project

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Runbook is what one runbook file declares.
type Runbook struct {
	Name       string // the path without .star
	Path       string
	Doc        string
	Owner      string
	Severity   guard.Severity
	Every      time.Duration // the trigger: each slot of this length,
	Alert      *Alert        // or, at each run, targets about which it fires,
	Manual     bool          // or only when a person says so
	Targets    Targets
	Params     value.Dict   // ctx.params
	Policy     guard.Policy // the project's, tightened; Mode is the more careful of the two
	Mode       guard.Mode   // Policy.Mode
	HasCleanup bool
	// OwnCooldown says that the runbook names a cooldown for all of its actions.
	OwnCooldown bool
	Closure     []sandbox.File
	Digest      string // of the closure
	Pos         value.Pos
	Vocabulary  sandbox.Vocabulary // what Load and Evaluate need

	params map[string]value.Value
}

// Parse reads a query of this runbook, with its parameters.
func (rb *Runbook) Parse(text string) (*promexpr.Expr, error) { return promexpr.Parse(text, rb.params) }

// Param returns the value of a parameter.
func (rb *Runbook) Param(name string) (value.Value, bool) { v, ok := rb.params[name]; return v, ok }

// RunbookVocabulary is what runbook files may name. families are builtins.All() and one for each plugin: those that only
// declare are the file's vocabulary, the others stand under ctx. It is made once for all runbooks of a run.
func RunbookVocabulary(families []kit.Family) sandbox.Vocabulary {
	return Vocabulary(slices.Concat(families, []kit.Family{RunbookPolicy()}))
}

// LoadRunbook reads one runbook file, with a RunbookVocabulary.
func LoadRunbook(ctx context.Context, w sandbox.Worker, src sandbox.Source, s *Settings, path string, vocab sandbox.Vocabulary) (*Runbook, error) {
	m, err := w.Load(ctx, path, vocab, src)
	if err != nil {
		return nil, err
	}
	return decodeRunbook(s, path, vocab, m)
}

func decodeRunbook(s *Settings, path string, vocab sandbox.Vocabulary, m sandbox.Module) (*Runbook, error) {
	d := &decoder{code: problem.Argument, lookup: declaration(vocab)}
	rec := d.only(m.Records, "runbook", path, `begin the file with runbook(owner = "...", trigger = every("1m"), targets = fleet(...))`)
	if d.err != nil {
		return nil, d.err
	}
	f := d.record(rec)
	if d.err != nil {
		return nil, d.err
	}
	rb := &Runbook{
		Name: strings.TrimSuffix(path, ".star"), Path: path, Doc: m.Doc, Pos: rec.Pos,
		Closure: m.Closure, Digest: closureDigest(m.Closure), Vocabulary: vocab,
		Owner:      f.words("owner"),
		Severity:   oneOf(f, "severity", severities...),
		Policy:     f.tighten(s.Policy),
		HasCleanup: slices.Contains(m.Defs, "cleanup"),
	}
	rb.decodeTrigger(d, s, f.one("trigger"))
	rb.OwnCooldown = f.has("cooldown")
	rb.Mode = rb.Policy.Mode
	rb.decodeParams(f)
	if d.err == nil {
		rb.Targets = rb.decodeTargets(d, f.one("targets"))
	}
	if !slices.Contains(m.Defs, "run") {
		d.fail(rec.Pos, "the runbook has no function run%s", problem.DidYouMean("run", m.Defs)).
			hint("define what it does for one sick target: def run(ctx): ...")
	}
	if d.err != nil {
		return nil, d.err
	}
	return rb, nil
}

// Alert is what a runbook waits for.
type Alert struct {
	Name   string
	Labels map[string]string
}

// String is the alert as a runbook writes it.
func (a Alert) String() string {
	if len(a.Labels) == 0 {
		return fmt.Sprintf("alert(%q)", a.Name)
	}
	return fmt.Sprintf("alert(%q, labels = %s)", a.Name, labelText(a.Labels))
}

func (rb *Runbook) decodeTrigger(d *decoder, s *Settings, r *value.Record) {
	f := d.record(r)
	if d.err != nil {
		return
	}
	switch r.Type {
	case "every":
		rb.Every = f.duration("interval", time.Second, 7*day)
	case "alert":
		rb.Alert = &Alert{Name: f.words("name"), Labels: f.labels("labels")}
		if len(s.Alerts) == 0 {
			f.fail("name", "needs an Alertmanager, and %s names none", File).hint(`write project(alerts = [connection("alertmanager", config = {"url": "http://..."})])`)
		}
	case "manual":
		rb.Manual = true
	}
}

// Trigger says in words when the runbook is due.
func (rb *Runbook) Trigger() string {
	switch {
	case rb.Alert != nil:
		return rb.Alert.String()
	case rb.Manual:
		return "manual"
	}
	return "every " + value.FormatDuration(rb.Every)
}

// decodeParams reads params = {"name": param.int(...)}.
func (rb *Runbook) decodeParams(f fields) {
	rb.params = map[string]value.Value{}
	for _, e := range field[value.Dict](f, "params") {
		name, _ := e.Key.(value.String)
		if !isName(string(name)) {
			f.fail("params", "has %.60q, which cannot be written as $name", name).hint("use letters, digits and _, and begin with a letter")
			continue
		}
		if _, dup := rb.params[string(name)]; dup {
			f.fail("params", "has %q twice", name)
			continue
		}
		r, ok := e.Value.(*value.Record)
		if !ok || !strings.HasPrefix(r.Type, "param.") {
			f.fail("params", "%s must be a param, got %s", name, kindOf(e.Value)).hint(`write %q: param.%s(..., doc = "...")`, name, paramFor(e.Value))
			continue
		}
		v := f.d.param(string(name), r)
		rb.params[string(name)] = v
		rb.Params = append(rb.Params, value.Entry{Key: name, Value: v})
	}
}

func (d *decoder) param(name string, r *value.Record) value.Value {
	f := d.record(r)
	if d.err != nil {
		return nil
	}
	v, least, most := f.by["default"].Value, f.by["min"].Value, f.by["max"].Value
	if least != nil && most != nil && compare(least, most) > 0 {
		f.fail("min", "of %s is %s, above max %s", name, show(least), show(most))
	}
	if least != nil && compare(v, least) < 0 {
		f.fail("default", "of %s is %s, below min %s", name, show(v), show(least))
	}
	if most != nil && compare(v, most) > 0 {
		f.fail("default", "of %s is %s, above max %s", name, show(v), show(most))
	}
	return v
}

// compare compares two values of one type of param; only those with bounds are ever compared.
func compare(a, b value.Value) int {
	switch a := a.(type) {
	case value.Int:
		if b, ok := b.(value.Int); ok {
			return order(a, b)
		}
	case value.Float:
		if b, ok := b.(value.Float); ok {
			return order(a, b)
		}
	case value.Duration:
		if b, ok := b.(value.Duration); ok {
			return order(a, b)
		}
	}
	return 0
}

func order[T value.Int | value.Float | value.Duration](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func show(v value.Value) string {
	if d, ok := v.(value.Duration); ok {
		return value.FormatDuration(time.Duration(d))
	}
	return fmt.Sprint(v)
}

// kindOf names the type of a value in a message.
func kindOf(v value.Value) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case value.Int, value.Big:
		return "an int"
	case *value.Record:
		return fmt.Sprintf("%.60s(...)", v.Type)
	}
	return "a " + v.Kind()
}

func paramFor(v value.Value) string {
	switch v.(type) {
	case value.Int, value.Big:
		return "int"
	case value.Float:
		return "float"
	case value.Bool:
		return "bool"
	case value.Duration:
		return "duration"
	}
	return "string"
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// query parses a field that is PromQL.
func (f fields) query(name string, params map[string]value.Value) *promexpr.Expr {
	e, err := promexpr.Parse(f.text(name), params)
	if err != nil {
		f.keepQuery(name, err)
		return nil
	}
	return e
}

// keepQuery keeps a problem of a query at the place where the query was written.
func (f fields) keepQuery(name string, err error) {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		p.Message = name + ": " + p.Message
	}
	f.d.keep(err, f.pos(name))
}

func cloneLabels(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
