package value

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxJSON is the largest text that Marshal writes and Unmarshal reads, in bytes.
const MaxJSON = 16 << 20

// The JSON form is readable and lossless. What JSON has is written as such; a number with a point or
// an exponent is a Float, any other an Int (a Big beyond 64 bits); a Dict whose keys are all text,
// none beginning with "$", is an object in its own order. Everything else is an object with one key:
//
//	{"$float": "NaN"}  "+Inf" or "-Inf"
//	{"$bytes": "aGk="}
//	{"$duration": "5m"}
//	{"$time": "2026-03-01T10:20:00.5Z"}
//	{"$dict": [[key, value], ...]}
//	{"$record": {"type": "every", "pos": {...}, "fields": [{"name": "", "value": ..., "pos": {...}}]}}
const (
	tagFloat    = "$float"
	tagBytes    = "$bytes"
	tagDuration = "$duration"
	tagTime     = "$time"
	tagDict     = "$dict"
	tagRecord   = "$record"
)

var errDepth = fmt.Errorf("nested deeper than %d", MaxDepth)

// Marshal is the JSON form of v. A nil Value is written as null.
func Marshal(v Value) ([]byte, error) {
	var b bytes.Buffer
	if err := encode(&b, v, 0); err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return b.Bytes(), nil
}

// Unmarshal reads what Marshal wrote. It refuses invalid UTF-8, duplicate keys, unknown "$" forms,
// nesting beyond MaxDepth, text beyond MaxJSON and anything after the value.
func Unmarshal(data []byte) (Value, error) {
	v, err := unmarshal(data)
	if err != nil {
		return nil, fmt.Errorf("decode value: %w", err)
	}
	return v, nil
}

// JSON makes any Value a field of a struct that encoding/json writes and reads.
type JSON struct{ Value }

// MarshalJSON implements json.Marshaler.
func (j JSON) MarshalJSON() ([]byte, error) { return Marshal(j.Value) }

// UnmarshalJSON implements json.Unmarshaler.
func (j *JSON) UnmarshalJSON(data []byte) (err error) {
	j.Value, err = Unmarshal(data)
	return err
}

// MarshalJSON implements json.Marshaler.
func (l List) MarshalJSON() ([]byte, error) { return Marshal(l) }

// UnmarshalJSON implements json.Unmarshaler.
func (l *List) UnmarshalJSON(data []byte) error { return unmarshalAs(data, l) }

// MarshalJSON implements json.Marshaler.
func (d Dict) MarshalJSON() ([]byte, error) { return Marshal(d) }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Dict) UnmarshalJSON(data []byte) error { return unmarshalAs(data, d) }

// MarshalJSON implements json.Marshaler.
func (r *Record) MarshalJSON() ([]byte, error) { return Marshal(r) }

// UnmarshalJSON implements json.Unmarshaler.
func (r *Record) UnmarshalJSON(data []byte) error {
	var p *Record
	if err := unmarshalAs(data, &p); err != nil || p == nil {
		return err
	}
	*r = *p
	return nil
}

// unmarshalAs decodes into one Go type; null leaves it as it is, as encoding/json does.
func unmarshalAs[T Value](data []byte, into *T) error {
	v, err := Unmarshal(data)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case T:
		*into = v
	case Null:
	default:
		return fmt.Errorf("decode value: got %s, want %T", v.Kind(), *into)
	}
	return nil
}

func encode(b *bytes.Buffer, v Value, depth int) error {
	if b.Len() > MaxJSON {
		return fmt.Errorf("larger than %d bytes", MaxJSON)
	}
	switch v := v.(type) {
	case nil, Null:
		b.WriteString("null")
	case Bool:
		b.WriteString(strconv.FormatBool(bool(v)))
	case Int:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(v), 10))
	case Big:
		if !isInt(string(v)) {
			return fmt.Errorf("%q is not an integer", clip(string(v)))
		}
		b.WriteString(string(v))
	case Float:
		return encodeFloat(b, float64(v))
	case String:
		return encodeString(b, string(v))
	case Bytes:
		return encodeTag(b, tagBytes, base64.StdEncoding.EncodeToString(v))
	case Duration:
		return encodeTag(b, tagDuration, FormatDuration(time.Duration(v)))
	case Time:
		t := time.Time(v).UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return fmt.Errorf("a time in the year %d cannot be written", y)
		}
		return encodeTag(b, tagTime, t.Format(time.RFC3339Nano))
	case List:
		return encodeList(b, v, depth)
	case Dict:
		return encodeDict(b, v, depth)
	case *Record:
		return encodeRecord(b, v, depth)
	default:
		return fmt.Errorf("unknown type %T", v)
	}
	return nil
}

func encodeFloat(b *bytes.Buffer, f float64) error {
	switch {
	case math.IsNaN(f):
		return encodeTag(b, tagFloat, "NaN")
	case math.IsInf(f, 0):
		return encodeTag(b, tagFloat, fmt.Sprintf("%+v", f))
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	b.WriteString(s)
	if !strings.ContainsAny(s, ".e") {
		b.WriteString(".0")
	}
	return nil
}

func encodeString(b *bytes.Buffer, s string) error {
	if isPlain(s) {
		b.WriteByte('"')
		b.WriteString(s)
		b.WriteByte('"')
		return nil
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("text %q is not valid UTF-8", clip(s))
	}
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // Encode ends with a newline
	return nil
}

// isPlain says that nothing in s needs escaping, which is so of nearly all text here.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func encodeTag(b *bytes.Buffer, tag, s string) error {
	b.WriteString(`{"` + tag + `":"` + s + `"}`) // none of these texts needs escaping
	return nil
}

func encodeList(b *bytes.Buffer, l List, depth int) error {
	if depth >= MaxDepth {
		return errDepth
	}
	b.WriteByte('[')
	for i, x := range l {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(b, x, depth+1); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func encodeDict(b *bytes.Buffer, d Dict, depth int) error {
	if depth >= MaxDepth {
		return errDepth
	}
	if !plainKeys(d) {
		b.WriteString(`{"` + tagDict + `":[`)
		seen := make(map[string]bool, len(d))
		for i, e := range d {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('[')
			start := b.Len()
			if err := encode(b, e.Key, depth+1); err != nil {
				return err
			}
			key := string(b.Bytes()[start:])
			if seen[key] {
				return fmt.Errorf("duplicate key %s", clip(key))
			}
			seen[key] = true
			b.WriteByte(',')
			if err := encode(b, e.Value, depth+1); err != nil {
				return err
			}
			b.WriteByte(']')
		}
		b.WriteString("]}")
		return nil
	}
	seen := make(map[string]bool, len(d))
	b.WriteByte('{')
	for i, e := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		key := string(e.Key.(String))
		if seen[key] {
			return fmt.Errorf("duplicate key %q", clip(key))
		}
		seen[key] = true
		if err := encodeString(b, key); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := encode(b, e.Value, depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func plainKeys(d Dict) bool {
	for _, e := range d {
		if k, ok := e.Key.(String); !ok || strings.HasPrefix(string(k), "$") {
			return false
		}
	}
	return true
}

func encodeRecord(b *bytes.Buffer, r *Record, depth int) error {
	if r == nil {
		b.WriteString("null")
		return nil
	}
	if depth >= MaxDepth {
		return errDepth
	}
	b.WriteString(`{"` + tagRecord + `":{"type":`)
	if err := encodeString(b, r.Type); err != nil {
		return err
	}
	if err := encodePos(b, r.Pos); err != nil {
		return err
	}
	b.WriteString(`,"fields":[`)
	for i, f := range r.Fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"name":`)
		if err := encodeString(b, f.Name); err != nil {
			return err
		}
		b.WriteString(`,"value":`)
		if err := encode(b, f.Value, depth+1); err != nil {
			return err
		}
		if err := encodePos(b, f.Pos); err != nil {
			return err
		}
		b.WriteByte('}')
	}
	b.WriteString("]}}")
	return nil
}

// encodePos writes what encoding/json makes of a Pos, but that < > and & in a file's name stay as they are.
func encodePos(b *bytes.Buffer, p Pos) error {
	if p == (Pos{}) {
		return nil
	}
	b.WriteString(`,"pos":{`)
	comma := ""
	if p.File != "" {
		b.WriteString(`"file":`)
		if err := encodeString(b, p.File); err != nil {
			return err
		}
		comma = ","
	}
	for _, n := range []struct {
		name string
		n    int
	}{{`"line":`, p.Line}, {`"col":`, p.Col}} {
		if n.n != 0 {
			b.WriteString(comma + n.name)
			b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(n.n), 10))
			comma = ","
		}
	}
	b.WriteByte('}')
	return nil
}

// isInt reports whether s is a canonical decimal integer.
func isInt(s string) bool {
	d := strings.TrimPrefix(s, "-")
	if d == "" || d[0] == '0' && s != "0" {
		return false
	}
	return strings.Trim(d, "0123456789") == ""
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}

func unmarshal(data []byte) (Value, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("larger than %d bytes", MaxJSON)
	}
	// encoding/json replaces what is not UTF-8 instead of refusing it.
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	if !json.Valid(data) {
		return nil, json.Unmarshal(data, new(json.RawMessage)) // says why
	}
	d := decoder{data}
	return d.value(0)
}
