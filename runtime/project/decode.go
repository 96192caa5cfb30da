package project

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// decoder turns the records of one file into settings. It keeps the first problem; what it returns after
// one is not to be used. Records come from a worker, so nothing about them is taken for granted.
type decoder struct {
	code   problem.Code
	lookup func(name string) (kit.Function, bool)
	err    error
}

// fail keeps a problem at a place. What it returns takes a hint.
func (d *decoder) fail(pos value.Pos, format string, args ...any) failure {
	p := problem.New(d.code, format, args...).At(pos)
	if d.err == nil {
		d.err = p
	}
	return failure{p}
}

// failure is a problem that is kept already: it is not an error to return.
type failure struct{ kept *problem.Problem }

func (f failure) hint(format string, args ...any) { _ = f.kept.WithHint(format, args...) }

// keep keeps an error of another package, with a place if it has none.
func (d *decoder) keep(err error, pos value.Pos) {
	if err == nil || d.err != nil {
		return
	}
	var p *problem.Problem
	if errors.As(err, &p) && p.Pos == (value.Pos{}) {
		p.Pos = pos
	}
	d.err = err
}

// record checks a record against its declaration and returns its fields with their defaults.
func (d *decoder) record(r *value.Record) fields {
	fs := fields{d: d, rec: r, by: map[string]value.Field{}}
	fn, ok := d.lookup(r.Type)
	if !ok {
		d.fail(r.Pos, "there is no declaration %.60q", r.Type)
		return fs
	}
	args := make([]kit.Arg, len(r.Fields))
	for i, f := range r.Fields {
		if f.Name == "" || !whole(f.Value) {
			d.fail(r.Pos, "%s has a field without a name or value", r.Type)
			return fs
		}
		args[i] = kit.Arg(f)
	}
	given, err := kit.Unpack(r.Type, fn, args)
	if err != nil {
		d.keep(err, r.Pos)
		return fs
	}
	for _, p := range fn.Params {
		if p.Default != nil {
			fs.by[p.Name] = value.Field{Name: p.Name, Value: p.Default, Pos: r.Pos}
		}
	}
	for _, f := range given {
		if f.Pos == (value.Pos{}) {
			f.Pos = r.Pos
		}
		fs.by[f.Name] = f
	}
	return fs
}

// whole says whether a value has no holes, over which everything that looks at it would fall.
func whole(v value.Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case value.List:
		return !slices.ContainsFunc(v, func(x value.Value) bool { return !whole(x) })
	case value.Dict:
		return !slices.ContainsFunc(v, func(e value.Entry) bool { return !whole(e.Key) || !whole(e.Value) })
	case *value.Record:
		return v != nil && !slices.ContainsFunc(v.Fields, func(f value.Field) bool { return !whole(f.Value) })
	}
	return true
}

// fields are the arguments of one record, of the types that its declaration says.
type fields struct {
	d   *decoder
	rec *value.Record
	by  map[string]value.Field
}

func (f fields) has(name string) bool { _, ok := f.by[name]; return ok }

func (f fields) pos(name string) value.Pos {
	if x, ok := f.by[name]; ok {
		return x.Pos
	}
	return f.rec.Pos
}

func (f fields) fail(name, format string, args ...any) failure {
	return f.d.fail(f.pos(name), f.rec.Type+": "+name+" "+format, args...)
}

func field[T value.Value](f fields, name string) T {
	v, _ := f.by[name].Value.(T)
	return v
}

func (f fields) text(name string) string { return string(field[value.String](f, name)) }

// words is a field of names or sentences: a line of printable text that is not empty.
func (f fields) words(name string) string {
	s := f.text(name)
	switch {
	case strings.TrimSpace(s) != s || s == "":
		f.fail(name, "must not be empty nor begin or end with a space, got %q", s)
	case len(s) > maxWords || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }):
		f.fail(name, "must be one line of at most %d printable bytes, got %.80q", maxWords, s)
	}
	return s
}

const maxWords = 500

// oneOf is a field that is one word of a list.
func oneOf[T ~string](f fields, name string, words ...T) T {
	s := T(f.text(name))
	if slices.Contains(words, s) {
		return s
	}
	quoted := make([]string, len(words))
	plain := make([]string, len(words))
	for i, w := range words {
		quoted[i], plain[i] = strconv.Quote(string(w)), string(w)
	}
	f.fail(name, "must be %s or %s, got %.60q%s", strings.Join(quoted[:len(quoted)-1], ", "), quoted[len(quoted)-1], s, problem.DidYouMean(string(s), plain))
	return s
}

func (f fields) duration(name string, least, most time.Duration) time.Duration {
	d := time.Duration(field[value.Duration](f, name))
	if f.has(name) && (d < least || d > most) {
		f.fail(name, "must be from %q to %q, got %q", value.FormatDuration(least), value.FormatDuration(most), value.FormatDuration(d))
	}
	return d
}

func (f fields) integer(name string, least, most int64) int {
	n := int64(field[value.Int](f, name))
	if f.has(name) && (n < least || n > most) {
		f.fail(name, "must be from %d to %d, got %d", least, most, n)
	}
	return int(n)
}

// size is a field such as "256KiB".
func (f fields) size(name string, least, most int64) int64 {
	s := f.text(name)
	n, ok := parseSize(s)
	if !ok {
		f.fail(name, "must be a size, got %.60q", s).hint(`write it like %s = "1MiB": units are KiB, MiB and GiB`, name)
	} else if n < least || n > most {
		f.fail(name, "must be from %s to %s, got %s", formatSize(least), formatSize(most), s)
	}
	return n
}

const (
	kib int64 = 1 << 10
	mib int64 = 1 << 20
	gib int64 = 1 << 30
)

func parseSize(s string) (int64, bool) {
	for unit, scale := range map[string]int64{"KiB": kib, "MiB": mib, "GiB": gib} {
		if num, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(num, 10, 32)
			return n * scale, err == nil && n > 0
		}
	}
	return 0, false
}

func formatSize(n int64) string {
	switch {
	case n%gib == 0:
		return fmt.Sprintf("%dGiB", n/gib)
	case n%mib == 0:
		return fmt.Sprintf("%dMiB", n/mib)
	}
	return fmt.Sprintf("%dKiB", n/kib)
}

// records is a field that is a list of records.
func (f fields) records(name string) []*value.Record {
	var out []*value.Record
	for _, v := range field[value.List](f, name) {
		if r, ok := v.(*value.Record); ok {
			out = append(out, r)
		}
	}
	return out
}

func (f fields) strings(name string) []string {
	var out []string
	for _, v := range field[value.List](f, name) {
		s, _ := v.(value.String)
		out = append(out, string(s))
	}
	return out
}

// labels is a dict of names to values. None may be empty or the same twice, and a value that looks like a pattern is refused,
// because it would be compared letter by letter.
func (f fields) labels(name string) map[string]string {
	out := map[string]string{}
	for _, e := range field[value.Dict](f, name) {
		k, _ := e.Key.(value.String)
		v, _ := e.Value.(value.String)
		switch {
		case k == "" || v == "":
			f.fail(name, "has an empty label or value: %q: %q", k, v)
		case strings.ContainsAny(string(v), "*"):
			f.fail(name, "has a pattern: %q: %q", k, v).hint("labels are compared as they are; write the value itself")
		}
		if _, dup := out[string(k)]; dup {
			f.fail(name, "has label %q twice", k)
		}
		out[string(k)] = string(v)
	}
	return out
}

// only returns the one record of a type among the statements of a file. Other records, and those that a
// loaded file made, are refused: they would look as if they did something.
func (d *decoder) only(records []*value.Record, typ, path, missing string) *value.Record {
	var found *value.Record
	for _, r := range records {
		switch {
		case r == nil:
			d.fail(value.Pos{File: path}, "the worker sent an empty declaration")
		case r.Pos.File != "" && r.Pos.File != path:
			d.fail(r.Pos, "%s(...) in a file that is loaded has no effect", r.Type).hint("declare it in %s itself", path)
		case r.Type != typ:
			d.fail(r.Pos, "%s(...) as a statement has no effect", r.Type).hint("%s", whereTo(r.Type, typ))
		case found != nil:
			d.fail(r.Pos, "a second %s(...): the first is at %s", typ, found.Pos).hint("keep one")
		default:
			found = r
		}
	}
	if found == nil {
		d.fail(value.Pos{File: path}, "there is no %s(...)", typ).hint("%s", missing)
	}
	return found
}

// whereTo says where a declaration belongs that was written as a statement.
func whereTo(typ, root string) string {
	switch typ {
	case "escalate", "nothing":
		return "return it from run(ctx)"
	case "every":
		return "pass it on: runbook(trigger = every(...))"
	case "fleet", "single":
		return "pass it on: runbook(targets = " + typ + "(...))"
	case "connection":
		return "pass it on: project(connections = [connection(...)])"
	case "confine":
		return "pass it on: connection(confine = confine(...))"
	case "policy", "limits":
		if root == "runbook" {
			return "pass it on: runbook(" + typ + " = " + typ + "(...))"
		}
		return "pass it on: project(" + typ + " = " + typ + "(...))"
	case "rate":
		return "pass it on: policy(rates = [rate(...)])"
	case "weekly", "once":
		return "pass it on: policy(maintenance = [" + typ + "(...)])"
	case "protect":
		return "pass it on: policy(protected = [protect(...)])"
	case "webhook":
		return "pass it on: project(notify = [webhook(...)])"
	}
	return "pass it on to " + root + "(...)"
}
