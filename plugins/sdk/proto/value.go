// Package pluginpb is the plugin protocol: generated messages, and their Value to and from value.Value.
package pluginpb

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// MaxMessage is the largest message that either side sends or accepts, in bytes.
const MaxMessage = 16 << 20

// maxValue leaves room for what surrounds a value in its message.
const maxValue = MaxMessage - 64<<10

// Encode is the wire form of v. It refuses text that is not UTF-8, nesting beyond value.MaxDepth, records, and
// values beyond 16 MiB (a list that holds another one many times over counts each time). A nil Value is None.
func Encode(v value.Value) (*Value, error) {
	e := encoder{left: maxValue}
	p, err := e.value(v, 0)
	if err != nil {
		return nil, fmt.Errorf("encode value: %w", err)
	}
	return p, nil
}

// EncodeDict is Encode for arguments and settings.
func EncodeDict(d value.Dict) (*Dict, error) {
	p, err := Encode(d)
	if err != nil {
		return nil, err
	}
	return p.GetDict(), nil
}

// Decode reads the wire form. It refuses what Encode refuses, a kind it does not know, a number or time that is not
// what it says it is, and duplicate keys.
func Decode(p *Value) (value.Value, error) {
	v, err := decode(p, 0)
	if err != nil {
		return nil, fmt.Errorf("decode value: %w", err)
	}
	return v, nil
}

// DecodeDict is Decode for arguments and settings. A nil Dict is empty.
func DecodeDict(p *Dict) (value.Dict, error) {
	d, err := decodeDict(p, 0)
	if err != nil {
		return nil, fmt.Errorf("decode value: %w", err)
	}
	return d, nil
}

var (
	errDepth = fmt.Errorf("nested deeper than %d", value.MaxDepth)
	errSize  = fmt.Errorf("larger than %d MiB", MaxMessage>>20)
	errUnset = errors.New("a value of no kind (the peer may be newer)")
)

// encoder counts down a lower bound of the encoded size, so that a shared list cannot explode.
type encoder struct{ left int }

func (e *encoder) value(v value.Value, depth int) (*Value, error) {
	if e.take(2); e.left < 0 {
		return nil, errSize
	}
	switch v := v.(type) {
	case nil, value.Null:
		return &Value{Kind: &Value_Null{Null: &Null{}}}, nil
	case value.Bool:
		return &Value{Kind: &Value_Bool{Bool: bool(v)}}, nil
	case value.Int:
		return &Value{Kind: &Value_Int{Int: int64(v)}}, nil
	case value.Big:
		if !decimal(string(v)) {
			return nil, fmt.Errorf("%q is not a decimal integer", clip(string(v)))
		}
		e.take(len(v))
		return &Value{Kind: &Value_Big{Big: string(v)}}, nil
	case value.Float:
		return &Value{Kind: &Value_Float{Float: float64(v)}}, nil
	case value.String:
		if e.take(len(v)); e.left < 0 {
			return nil, errSize
		}
		if !utf8.ValidString(string(v)) {
			return nil, fmt.Errorf("text %q is not valid UTF-8: pass bytes instead", clip(string(v)))
		}
		return &Value{Kind: &Value_String_{String_: string(v)}}, nil
	case value.Bytes:
		if e.take(len(v)); e.left < 0 {
			return nil, errSize
		}
		return &Value{Kind: &Value_Bytes{Bytes: v}}, nil
	case value.Duration:
		return &Value{Kind: &Value_DurationNs{DurationNs: int64(v)}}, nil
	case value.Time:
		t := time.Time(v)
		return &Value{Kind: &Value_Time{Time: &Time{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}}}, nil
	case value.List:
		return e.list(v, depth)
	case value.Dict:
		return e.dict(v, depth)
	}
	return nil, fmt.Errorf("a %s cannot cross to a plugin", v.Kind())
}

func (e *encoder) take(n int) { e.left -= n }

func (e *encoder) list(l value.List, depth int) (*Value, error) {
	if depth >= value.MaxDepth {
		return nil, errDepth
	}
	items := make([]*Value, 0, len(l))
	for i, it := range l {
		p, err := e.value(it, depth+1)
		if err != nil {
			return nil, at(err, "[%d]", i)
		}
		items = append(items, p)
	}
	return &Value{Kind: &Value_List{List: &List{Items: items}}}, nil
}

func (e *encoder) dict(d value.Dict, depth int) (*Value, error) {
	if depth >= value.MaxDepth {
		return nil, errDepth
	}
	entries := make([]*Entry, 0, len(d))
	for _, en := range d {
		k, err := e.value(en.Key, depth+1)
		if err != nil {
			return nil, fmt.Errorf("key of a dict: %w", err)
		}
		v, err := e.value(en.Value, depth+1)
		if err != nil {
			return nil, at(err, "[%s]", name(en.Key))
		}
		entries = append(entries, &Entry{Key: k, Value: v})
	}
	return &Value{Kind: &Value_Dict{Dict: &Dict{Entries: entries}}}, nil
}

func decode(p *Value, depth int) (value.Value, error) {
	switch k := p.GetKind().(type) {
	case *Value_Null:
		return value.Null{}, nil
	case *Value_Bool:
		return value.Bool(k.Bool), nil
	case *Value_Int:
		return value.Int(k.Int), nil
	case *Value_Big:
		return decodeBig(k.Big)
	case *Value_Float:
		return value.Float(k.Float), nil
	case *Value_String_:
		if !utf8.ValidString(k.String_) {
			return nil, fmt.Errorf("text %q is not valid UTF-8", clip(k.String_))
		}
		return value.String(k.String_), nil
	case *Value_Bytes:
		return value.Bytes(k.Bytes), nil
	case *Value_DurationNs:
		return value.Duration(k.DurationNs), nil
	case *Value_Time:
		if n := k.Time.GetNanos(); n < 0 || n > 999_999_999 {
			return nil, fmt.Errorf("a time with %d nanoseconds", n)
		}
		return value.Time(time.Unix(k.Time.GetSeconds(), int64(k.Time.GetNanos())).UTC()), nil
	case *Value_List:
		if depth >= value.MaxDepth {
			return nil, errDepth
		}
		l := make(value.List, 0, len(k.List.GetItems()))
		for i, it := range k.List.GetItems() {
			v, err := decode(it, depth+1)
			if err != nil {
				return nil, at(err, "[%d]", i)
			}
			l = append(l, v)
		}
		return l, nil
	case *Value_Dict:
		return decodeDict(k.Dict, depth)
	}
	return nil, errUnset
}

func decodeDict(p *Dict, depth int) (value.Dict, error) {
	if depth >= value.MaxDepth {
		return nil, errDepth
	}
	d := make(value.Dict, 0, len(p.GetEntries()))
	seen := make(map[string]bool, len(p.GetEntries()))
	for _, en := range p.GetEntries() {
		k, err := decode(en.GetKey(), depth+1)
		if err != nil {
			return nil, fmt.Errorf("key of a dict: %w", err)
		}
		switch k.(type) {
		case value.List, value.Dict:
			return nil, fmt.Errorf("key of a dict: a %s cannot be a key", k.Kind())
		}
		id := fmt.Sprintf("%T:%v", k, k)
		if seen[id] {
			return nil, fmt.Errorf("key %s of a dict appears twice", name(k))
		}
		seen[id] = true
		v, err := decode(en.GetValue(), depth+1)
		if err != nil {
			return nil, at(err, "[%s]", name(k))
		}
		d = append(d, value.Entry{Key: k, Value: v})
	}
	return d, nil
}

// decodeBig also reads an integer that would have fitted, as an Int, so that equal numbers stay equal.
func decodeBig(s string) (value.Value, error) {
	if !decimal(s) {
		return nil, fmt.Errorf("%q is not a decimal integer", clip(s))
	}
	n, ok := new(big.Int).SetString(s, 10)
	switch {
	case !ok:
		return nil, fmt.Errorf("%q is not a decimal integer", clip(s))
	case n.IsInt64():
		return value.Int(n.Int64()), nil
	}
	return value.Big(n.String()), nil
}

// maxDigits bounds the quadratic cost of reading a decimal.
const maxDigits = 4096

func decimal(s string) bool {
	digits := s
	if digits != "" && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > maxDigits {
		return false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// pathError says where in a value the trouble is.
type pathError struct {
	path string
	err  error
}

func (p *pathError) Error() string { return p.path + ": " + p.err.Error() }
func (p *pathError) Unwrap() error { return p.err }

// at puts one step in front of err's path, up to a few steps: a deep path is no help.
func at(err error, format string, args ...any) error {
	step := fmt.Sprintf(format, args...)
	if pe, ok := err.(*pathError); ok { //nolint:errorlint // only its own, unwrapped form
		if len(pe.path) < 80 {
			pe.path = step + pe.path
		}
		return pe
	}
	return &pathError{step, err}
}

func name(k value.Value) string {
	if s, ok := k.(value.String); ok {
		return strconv.Quote(clip(string(s)))
	}
	return clip(fmt.Sprint(k))
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
