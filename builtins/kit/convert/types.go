package convert

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Record is a value.Record as a runbook sees it: its fields are attributes. A record with a field ok
// is as true as that, so that `if not r:` reads well; any other is true.
type Record struct {
	rec     *value.Record
	fields  map[string]starlark.Value
	methods map[string]starlark.Value
}

var (
	_ starlark.HasAttrs   = (*Record)(nil)
	_ starlark.HasAttrs   = Time{}
	_ starlark.Comparable = Time{}
	_ starlark.HasAttrs   = Duration(0)
	_ starlark.Comparable = Duration(0)
)

// NewRecord makes the Starlark form of a record.
func NewRecord(r *value.Record) (*Record, error) {
	x := &Record{rec: r, fields: make(map[string]starlark.Value, len(r.Fields))}
	for _, f := range r.Fields {
		v, err := To(f.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		x.fields[f.Name] = v
	}
	return x, nil
}

// WithMethods is the record with attributes that are no fields: its plain form has none of them. A field of the same name wins.
func (r *Record) WithMethods(methods map[string]starlark.Value) *Record {
	return &Record{rec: r.rec, fields: r.fields, methods: methods}
}

// Value is the plain record.
func (r *Record) Value() *value.Record { return r.rec }

// String implements starlark.Value.
func (r *Record) String() string { return Render(r, 1000) }

// Type implements starlark.Value.
func (r *Record) Type() string { return r.rec.Type }

// Freeze implements starlark.Value; a record is immutable.
func (r *Record) Freeze() {}

// Truth implements starlark.Value.
func (r *Record) Truth() starlark.Bool {
	if ok, has := r.fields["ok"]; has {
		return ok.Truth()
	}
	return true
}

// Hash implements starlark.Value.
func (r *Record) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: %s", r.Type()) }

// Attr implements starlark.HasAttrs.
func (r *Record) Attr(name string) (starlark.Value, error) {
	if v, ok := r.fields[name]; ok {
		return v, nil
	}
	if v, ok := r.methods[name]; ok {
		return v, nil
	}
	return nil, NoAttr(r.Type()+"(...)", name, r.AttrNames())
}

// AttrNames implements starlark.HasAttrs.
func (r *Record) AttrNames() []string {
	names := make([]string, len(r.rec.Fields), len(r.rec.Fields)+len(r.methods))
	for i, f := range r.rec.Fields {
		names[i] = f.Name
	}
	return append(names, slices.Sorted(maps.Keys(r.methods))...)
}

// NoAttr is the error for an attribute that is not there, with the nearest of all names.
func NoAttr(of, name string, names []string) error {
	e := problem.New(problem.UnknownName, "%s has no .%s%s", of, name, problem.DidYouMean(name, names))
	if len(names) > 0 && len(names) <= 20 {
		e.Hint = fmt.Sprintf("it has %s", list(names))
	}
	return e
}

func list(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// Time is an instant, in UTC.
type Time time.Time

func (t Time) utc() time.Time { return time.Time(t).UTC() }

// String implements starlark.Value: RFC 3339.
func (t Time) String() string { return t.utc().Format(time.RFC3339Nano) }

// Type implements starlark.Value.
func (Time) Type() string { return "time" }

// Freeze implements starlark.Value.
func (Time) Freeze() {}

// Truth implements starlark.Value.
func (t Time) Truth() starlark.Bool { return starlark.Bool(!time.Time(t).IsZero()) }

// Hash implements starlark.Value.
func (t Time) Hash() (uint32, error) { return starlark.MakeInt64(time.Time(t).UnixNano()).Hash() }

// Attr implements starlark.HasAttrs. unix is in whole seconds.
func (t Time) Attr(name string) (starlark.Value, error) {
	u := t.utc()
	switch name {
	case "unix":
		return starlark.MakeInt64(u.Unix()), nil
	case "year":
		return starlark.MakeInt(u.Year()), nil
	case "month":
		return starlark.MakeInt(int(u.Month())), nil
	case "day":
		return starlark.MakeInt(u.Day()), nil
	case "hour":
		return starlark.MakeInt(u.Hour()), nil
	case "minute":
		return starlark.MakeInt(u.Minute()), nil
	case "second":
		return starlark.MakeInt(u.Second()), nil
	case "weekday":
		return starlark.String(u.Weekday().String()), nil
	}
	return nil, NoAttr("a time", name, t.AttrNames())
}

// AttrNames implements starlark.HasAttrs.
func (Time) AttrNames() []string {
	return []string{"unix", "year", "month", "day", "hour", "minute", "second", "weekday"}
}

// CompareSameType implements starlark.Comparable.
func (t Time) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return ordered(op, time.Time(t).Compare(time.Time(y.(Time)))), nil
}

// Duration is a length of time; passed on as an argument it stays one.
type Duration time.Duration

// String implements starlark.Value: "5m".
func (d Duration) String() string { return value.FormatDuration(time.Duration(d)) }

// Type implements starlark.Value.
func (Duration) Type() string { return "duration" }

// Freeze implements starlark.Value.
func (Duration) Freeze() {}

// Truth implements starlark.Value.
func (d Duration) Truth() starlark.Bool { return d != 0 }

// Hash implements starlark.Value.
func (d Duration) Hash() (uint32, error) { return starlark.MakeInt64(int64(d)).Hash() }

// Attr implements starlark.HasAttrs.
func (d Duration) Attr(name string) (starlark.Value, error) {
	if name == "seconds" {
		return starlark.Float(time.Duration(d).Seconds()), nil
	}
	return nil, NoAttr("a duration", name, d.AttrNames())
}

// AttrNames implements starlark.HasAttrs.
func (Duration) AttrNames() []string { return []string{"seconds"} }

// CompareSameType implements starlark.Comparable.
func (d Duration) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	switch e := y.(Duration); {
	case d < e:
		return ordered(op, -1), nil
	case d > e:
		return ordered(op, 1), nil
	}
	return ordered(op, 0), nil
}

func ordered(op syntax.Token, c int) bool {
	switch op {
	case syntax.EQL:
		return c == 0
	case syntax.NEQ:
		return c != 0
	case syntax.LT:
		return c < 0
	case syntax.LE:
		return c <= 0
	case syntax.GT:
		return c > 0
	}
	return c >= 0
}
