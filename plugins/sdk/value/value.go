// Package value is the one plain Go form of a Starlark-like value: what a runbook passes to a
// query or an action, what comes back, and what a trace keeps.
//
// It is a leaf: it imports only the standard library, so that plugins, builtins and the runtime can
// all share it. A Value is immutable by convention once it has been handed on.
//
// Unlike JSON and google.protobuf.Value it keeps int apart from float, 64-bit and larger integers
// exact, bytes apart from text, and the order of a dict. Nesting is at most MaxDepth.
package value

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// MaxDepth is the deepest nesting of lists, dicts and records that any codec accepts.
const MaxDepth = 64

// Value is one of Null, Bool, Int, Big, Float, String, Bytes, Duration, Time, List, Dict, *Record.
type Value interface {
	// Kind is the word that a person knows the type by: "int", "string", "duration", ...
	Kind() string
}

type (
	// Null is Starlark's None.
	Null struct{}
	// Bool is a truth value.
	Bool bool
	// Int is an integer that fits into 64 bits.
	Int int64
	// Big is an integer that does not, in decimal.
	Big string
	// Float is a 64-bit float; it may be NaN or infinite on the wire, never in front of a runbook.
	Float float64
	// String is valid UTF-8 text.
	String string
	// Bytes is binary data.
	Bytes []byte
	// Duration is a length of time; a runbook writes it as text, "5m".
	Duration time.Duration
	// Time is an instant, always rendered in UTC.
	Time time.Time
	// List is an ordered sequence.
	List []Value
	// Dict is a mapping in insertion order.
	Dict []Entry
)

// Entry is one pair of a Dict.
type Entry struct{ Key, Value Value }

// Record is what a constructor such as fleet(...) or every(...) builds: a type name, where it was
// written, and the arguments that were given. It travels from a worker to the engine and into
// traces; it never crosses the plugin wire.
type Record struct {
	Type   string
	Pos    Pos
	Fields []Field
}

// Field is one argument of a Record, in the order of the signature.
type Field struct {
	Name  string
	Value Value
	Pos   Pos
}

// Pos is a place in a source file. Line and Col count from 1; the zero Pos is unknown.
type Pos struct {
	File string `json:"file,omitzero"`
	Line int    `json:"line,omitzero"`
	Col  int    `json:"col,omitzero"`
}

// String is "file:line:col", shorter where a part is unknown.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Kind implements Value.
func (Null) Kind() string { return "none" }

// Kind implements Value.
func (Bool) Kind() string { return "bool" }

// Kind implements Value.
func (Int) Kind() string { return "int" }

// Kind implements Value.
func (Big) Kind() string { return "int" }

// Kind implements Value.
func (Float) Kind() string { return "float" }

// Kind implements Value.
func (String) Kind() string { return "string" }

// Kind implements Value.
func (Bytes) Kind() string { return "bytes" }

// Kind implements Value.
func (Duration) Kind() string { return "duration" }

// Kind implements Value.
func (Time) Kind() string { return "time" }

// Kind implements Value.
func (List) Kind() string { return "list" }

// Kind implements Value.
func (Dict) Kind() string { return "dict" }

// Kind implements Value.
func (r *Record) Kind() string { return r.Type }

// Get returns the value of a string key.
func (d Dict) Get(key string) (Value, bool) {
	for _, e := range d {
		if k, ok := e.Key.(String); ok && string(k) == key {
			return e.Value, true
		}
	}
	return nil, false
}

// Get returns the field of that name.
func (r *Record) Get(name string) (Field, bool) {
	for _, f := range r.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// Map makes a Dict with sorted string keys.
func Map[V Value](m map[string]V) Dict {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	d := make(Dict, 0, len(keys))
	for _, k := range keys {
		d = append(d, Entry{String(k), m[k]})
	}
	return d
}

// Strings is a Dict of string keys and values.
func Strings(m map[string]string) Dict {
	n := make(map[string]String, len(m))
	for k, v := range m {
		n[k] = String(v)
	}
	return Map(n)
}

// ParseDuration reads "90s", "1h30m", "2d", "1w": Go's units and days and weeks of exactly 24h and
// 7 days. It refuses a negative or empty duration and one beyond 10 years.
func ParseDuration(s string) (time.Duration, error) {
	var total time.Duration
	rest := s
	for rest != "" {
		i := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return 0, fmt.Errorf("invalid duration %q", s)
		}
		j := i
		for j < len(rest) && (rest[j] < '0' || rest[j] > '9') && rest[j] != '.' {
			j++
		}
		num, unit := rest[:i], rest[i:j]
		rest = rest[j:]
		scale := map[string]time.Duration{
			"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
			"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
		}[unit]
		n, err := strconv.ParseFloat(num, 64)
		if scale == 0 || err != nil || n*float64(scale) > float64(maxDuration) {
			return 0, fmt.Errorf("invalid duration %q", s)
		}
		total += time.Duration(n * float64(scale))
	}
	if s == "" || total < 0 || total > maxDuration {
		return 0, fmt.Errorf("invalid duration %q", s)
	}
	return total, nil
}

const maxDuration = 10 * 365 * 24 * time.Hour

// FormatDuration is the shortest exact form of d that ParseDuration reads: "30m", "1h30m", "2d".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	if d == math.MinInt64 { // it has no positive counterpart
		return "-106751d23h47m16s854ms775us808ns"
	}
	if d < 0 {
		return "-" + FormatDuration(-d)
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	return b.String()
}
