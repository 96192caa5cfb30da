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
)

// decoder reads the JSON form, of which encoding/json has said that it is JSON: in its order, and seeing a key that comes twice.
type decoder struct{ rest []byte }

// peek is the byte with which the next value or bracket begins, 0 at the end. What is JSON has commas and colons where they belong.
func (d *decoder) peek() byte {
	for i, c := range d.rest {
		switch c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			d.rest = d.rest[i:]
			return c
		}
	}
	d.rest = nil
	return 0
}

// delim reads a bracket.
func (d *decoder) delim(want byte) error {
	if c := d.peek(); c != want {
		return fmt.Errorf("got %q, want %q", c, want)
	}
	d.rest = d.rest[1:]
	return nil
}

// text reads a string.
func (d *decoder) text() (string, error) {
	if c := d.peek(); c != '"' {
		return "", fmt.Errorf("got %q, want text", c)
	}
	end, escaped := 1, false
	for ; d.rest[end] != '"'; end++ {
		if d.rest[end] == '\\' {
			escaped = true
			end++
		}
	}
	raw := d.rest[:end+1]
	d.rest = d.rest[end+1:]
	if !escaped {
		return string(raw[1:end]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// word reads what has no quotes: a number, true, false or null.
func (d *decoder) word() string {
	end := bytes.IndexAny(d.rest, " \t\r\n,]}")
	if end < 0 {
		end = len(d.rest)
	}
	word := string(d.rest[:end])
	d.rest = d.rest[end:]
	return word
}

func (d *decoder) value(depth int) (Value, error) {
	switch c := d.peek(); c {
	case '"':
		s, err := d.text()
		return String(s), err
	case '[', '{':
		if depth >= MaxDepth {
			return nil, errDepth
		}
		d.rest = d.rest[1:]
		if c == '[' {
			return d.list(depth)
		}
		return d.object(depth)
	case ']', '}', 0:
		return nil, fmt.Errorf("got %q, want a value", c)
	}
	switch word := d.word(); word {
	case "null":
		return Null{}, nil
	case "true", "false":
		return Bool(word == "true"), nil
	default:
		return number(word)
	}
}

func number(s string) (Value, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, fmt.Errorf("number %s is out of range", clip(s))
		}
		return Float(f), nil
	}
	if s == "-0" {
		return nil, errors.New("-0 is not an integer")
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return Int(n), nil
	}
	return Big(s), nil
}

// list and object read what follows the bracket.
func (d *decoder) list(depth int) (Value, error) {
	l := List{}
	for d.peek() != ']' {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, d.delim(']')
}

func (d *decoder) object(depth int) (Value, error) {
	dict := Dict{}
	seen := map[string]bool{}
	for d.peek() != '}' {
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(key, "$") {
			if len(dict) > 0 {
				return nil, fmt.Errorf("%q beside other keys", clip(key))
			}
			v, err := d.tagged(key, depth)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", clip(key), err)
			}
			return v, d.delim('}')
		}
		if seen[key] {
			return nil, fmt.Errorf("duplicate key %q", clip(key))
		}
		seen[key] = true
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		dict = append(dict, Entry{String(key), v})
	}
	return dict, d.delim('}')
}

// tagged reads what follows the key of a "$" form.
func (d *decoder) tagged(tag string, depth int) (Value, error) {
	switch tag {
	case tagDict:
		return d.pairs(depth)
	case tagRecord:
		return d.record(depth)
	case tagFloat, tagBytes, tagDuration, tagTime:
	default:
		return nil, errors.New("unknown form")
	}
	s, err := d.text()
	if err != nil {
		return nil, err
	}
	switch tag {
	case tagFloat:
		switch s {
		case "NaN":
			return Float(math.NaN()), nil
		case "+Inf":
			return Float(math.Inf(1)), nil
		case "-Inf":
			return Float(math.Inf(-1)), nil
		}
		return nil, fmt.Errorf("%q is none of NaN, +Inf, -Inf", clip(s))
	case tagBytes:
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		return Bytes(b), err
	case tagDuration:
		x, err := parseExact(s)
		return Duration(x), err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if y := t.UTC().Year(); err == nil && (y < 0 || y > 9999) {
		err = fmt.Errorf("the year %d", y)
	}
	return Time(t.UTC()), err
}

func (d *decoder) pairs(depth int) (Value, error) {
	if err := d.delim('['); err != nil {
		return nil, err
	}
	dict := Dict{}
	seen := map[string]bool{}
	for d.peek() != ']' {
		if err := d.delim('['); err != nil {
			return nil, err
		}
		k, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		key, err := Marshal(k)
		if err != nil {
			return nil, err
		}
		if seen[string(key)] {
			return nil, fmt.Errorf("duplicate key %s", clip(string(key)))
		}
		seen[string(key)] = true
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if err := d.delim(']'); err != nil {
			return nil, err
		}
		dict = append(dict, Entry{k, v})
	}
	return dict, d.delim(']')
}

func (d *decoder) record(depth int) (Value, error) {
	r := &Record{}
	err := d.members(func(key string) (err error) {
		switch key {
		case "type":
			r.Type, err = d.text()
		case "pos":
			r.Pos, err = d.pos()
		case "fields":
			if err := d.delim('['); err != nil {
				return err
			}
			for d.peek() != ']' {
				f, err := d.field(depth)
				if err != nil {
					return err
				}
				r.Fields = append(r.Fields, f)
			}
			err = d.delim(']')
		default:
			err = fmt.Errorf("unknown key %q", clip(key))
		}
		return err
	})
	return r, err
}

func (d *decoder) field(depth int) (Field, error) {
	f := Field{Value: Null{}}
	err := d.members(func(key string) (err error) {
		switch key {
		case "name":
			f.Name, err = d.text()
		case "value":
			f.Value, err = d.value(depth + 1)
		case "pos":
			f.Pos, err = d.pos()
		default:
			err = fmt.Errorf("unknown key %q", clip(key))
		}
		return err
	})
	return f, err
}

func (d *decoder) pos() (Pos, error) {
	var p Pos
	num := func() (int, error) {
		d.peek()
		word := d.word()
		n, err := strconv.ParseInt(word, 10, 32)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q is not a line or column", clip(word))
		}
		return int(n), nil
	}
	err := d.members(func(key string) (err error) {
		switch key {
		case "file":
			p.File, err = d.text()
		case "line":
			p.Line, err = num()
		case "col":
			p.Col, err = num()
		default:
			err = fmt.Errorf("unknown key %q", clip(key))
		}
		return err
	})
	return p, err
}

// members reads an object, calling read for the value of each key.
func (d *decoder) members(read func(key string) error) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.peek() != '}' {
		key, err := d.text()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("duplicate key %q", clip(key))
		}
		seen[key] = true
		if err := read(key); err != nil {
			return err
		}
	}
	return d.delim('}')
}

// parseExact reads what FormatDuration writes, for every int64: ParseDuration is for people, refuses
// a negative or very long duration and computes in floats.
func parseExact(s string) (time.Duration, error) {
	rest, negative := strings.CutPrefix(s, "-")
	units := []struct {
		name string
		size int64
	}{
		{"d", int64(24 * time.Hour)},
		{"h", int64(time.Hour)},
		{"m", int64(time.Minute)},
		{"s", int64(time.Second)},
		{"ms", int64(time.Millisecond)},
		{"us", int64(time.Microsecond)},
		{"ns", 1},
	}
	var total int64 // negative: its range is one larger
	bad := fmt.Errorf("invalid duration %q", clip(s))
	if rest == "" {
		return 0, bad
	}
	for rest != "" {
		i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return 0, bad
		}
		n, err := strconv.ParseInt(rest[:i], 10, 64)
		if err != nil {
			return 0, bad
		}
		rest = rest[i:]
		j := strings.IndexFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' })
		if j < 0 {
			j = len(rest)
		}
		var size int64
		for _, u := range units {
			if u.name == rest[:j] {
				size = u.size
			}
		}
		if size == 0 || n > math.MaxInt64/size || total < math.MinInt64+n*size {
			return 0, bad
		}
		total -= n * size
		rest = rest[j:]
	}
	if !negative {
		if total == math.MinInt64 {
			return 0, bad
		}
		total = -total
	}
	return time.Duration(total), nil
}
