// Package convert turns Starlark values into plain values and back.
//
// From is bounded: a Starlark value may be shared or cyclic, and its plain form may be exponentially
// larger than itself. To makes frozen values, and never hands NaN or an infinity to a runbook: in
// Starlark `nan > 500` is True and would start a remediation.
package convert

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"

	"go.starlark.net/starlark"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// The bounds of what From makes.
const (
	MaxNodes = 100_000
	MaxBytes = 4 << 20
)

// ErrNotFinite is why To refuses NaN and infinities.
var ErrNotFinite = errors.New("the value is not a finite number")

// To makes a frozen Starlark value. A Dict becomes a dict, a List a list, a *Record a struct-like
// *Record, a Time and a Duration their own types.
func To(v value.Value) (starlark.Value, error) {
	x, err := to(v, 0)
	if err != nil {
		return nil, err
	}
	x.Freeze()
	return x, nil
}

func to(v value.Value, depth int) (starlark.Value, error) {
	if depth > value.MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", value.MaxDepth)
	}
	switch v := v.(type) {
	case nil, value.Null:
		return starlark.None, nil
	case value.Bool:
		return starlark.Bool(v), nil
	case value.Int:
		return starlark.MakeInt64(int64(v)), nil
	case value.Big:
		n, ok := new(big.Int).SetString(string(v), 10)
		if !ok {
			return nil, errors.New("not an integer")
		}
		return starlark.MakeBigInt(n), nil
	case value.Float:
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, ErrNotFinite
		}
		return starlark.Float(v), nil
	case value.String:
		return starlark.String(v), nil
	case value.Bytes:
		return starlark.Bytes(v), nil
	case value.Duration:
		return Duration(v), nil
	case value.Time:
		return Time(v), nil
	case value.List:
		elems := make([]starlark.Value, len(v))
		for i, e := range v {
			x, err := to(e, depth+1)
			if err != nil {
				return nil, err
			}
			elems[i] = x
		}
		return starlark.NewList(elems), nil
	case value.Dict:
		d := starlark.NewDict(len(v))
		for _, e := range v {
			k, err := to(e.Key, depth+1)
			if err != nil {
				return nil, err
			}
			if l, ok := k.(*starlark.List); ok { // a tuple that was a key
				k = tuple(l)
			}
			x, err := to(e.Value, depth+1)
			if err != nil {
				return nil, err
			}
			if err := d.SetKey(k, x); err != nil {
				return nil, err
			}
		}
		return d, nil
	case *value.Record:
		return NewRecord(v)
	}
	return nil, fmt.Errorf("unknown type %T", v)
}

func tuple(l *starlark.List) starlark.Tuple {
	t := make(starlark.Tuple, l.Len())
	for i := range t {
		t[i] = l.Index(i)
		if inner, ok := t[i].(*starlark.List); ok {
			t[i] = tuple(inner)
		}
	}
	return t
}

// From makes a plain value. A tuple, a set and a range become a List. Functions and other values
// that are more than data are an error.
func From(x starlark.Value) (value.Value, error) {
	c := converter{nodes: MaxNodes, bytes: MaxBytes}
	return c.from(x, 0)
}

type converter struct{ nodes, bytes int }

var errLarge = fmt.Errorf("too large: at most %d elements and %d MiB", MaxNodes, MaxBytes>>20)

func (c *converter) text(s string) (value.String, error) {
	if c.bytes -= len(s); c.bytes < 0 {
		return "", errLarge
	}
	if !utf8.ValidString(s) {
		return "", errors.New("text is not valid UTF-8")
	}
	return value.String(s), nil
}

func (c *converter) from(x starlark.Value, depth int) (value.Value, error) {
	if c.nodes--; c.nodes < 0 {
		return nil, errLarge
	}
	if depth > value.MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", value.MaxDepth)
	}
	switch x := x.(type) {
	case starlark.NoneType:
		return value.Null{}, nil
	case starlark.Bool:
		return value.Bool(x), nil
	case starlark.Int:
		return c.int(x)
	case starlark.Float:
		return value.Float(x), nil
	case starlark.String:
		return c.text(string(x))
	case starlark.Bytes:
		if c.bytes -= len(x); c.bytes < 0 {
			return nil, errLarge
		}
		return value.Bytes(x), nil
	case Duration:
		return value.Duration(x), nil
	case Time:
		return value.Time(x), nil
	case *Record:
		return x.rec, c.count(x.rec, depth)
	case *starlark.Dict:
		d := make(value.Dict, 0, min(x.Len(), c.nodes))
		for k, v := range x.Entries() {
			key, err := c.from(k, depth+1)
			if err != nil {
				return nil, err
			}
			val, err := c.from(v, depth+1)
			if err != nil {
				return nil, err
			}
			d = append(d, value.Entry{Key: key, Value: val})
		}
		return d, nil
	case starlark.Callable:
		return nil, fmt.Errorf("the function %s is not data", x.Name())
	case starlark.Sequence: // list, tuple, set, range
		l := make(value.List, 0, min(x.Len(), c.nodes))
		for e := range starlark.Elements(x) {
			v, err := c.from(e, depth+1)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		return l, nil
	}
	return nil, fmt.Errorf("a %s is not data", x.Type())
}

// count charges what a record holds: records may share parts as lists do.
func (c *converter) count(v value.Value, depth int) error {
	if c.nodes--; c.nodes < 0 {
		return errLarge
	}
	if depth > value.MaxDepth {
		return fmt.Errorf("nested deeper than %d", value.MaxDepth)
	}
	switch v := v.(type) {
	case value.String:
		c.bytes -= len(v)
	case value.Bytes:
		c.bytes -= len(v)
	case value.Big:
		c.bytes -= len(v)
	case value.List:
		for _, e := range v {
			if err := c.count(e, depth+1); err != nil {
				return err
			}
		}
	case value.Dict:
		for _, e := range v {
			if err := errors.Join(c.count(e.Key, depth+1), c.count(e.Value, depth+1)); err != nil {
				return err
			}
		}
	case *value.Record:
		for _, f := range v.Fields {
			if err := c.count(f.Value, depth+1); err != nil {
				return err
			}
		}
	}
	if c.bytes < 0 {
		return errLarge
	}
	return nil
}

func (c *converter) int(x starlark.Int) (value.Value, error) {
	if n, ok := x.Int64(); ok {
		return value.Int(n), nil
	}
	// Decimal text of a number takes time that grows with the square of its length.
	if x.BigInt().BitLen() > 4096 {
		return nil, errors.New("an integer of more than 4096 bits")
	}
	s := x.String()
	if c.bytes -= len(s); c.bytes < 0 {
		return nil, errLarge
	}
	return value.Big(s), nil
}
