package sdk

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// decodeArgs fills a tagged struct. The engine has checked the arguments against the manifest already; this holds for
// any peer, and a plugin that was replaced meanwhile.
func decodeArgs[A any](d value.Dict) (A, error) {
	var a A
	v := reflect.ValueOf(&a).Elem()
	if err := fillStruct(v, d); err != nil {
		return a, problem.New(problem.Argument, "%s", err)
	}
	return a, nil
}

func fillStruct(v reflect.Value, d value.Dict) error {
	fs, err := fields(v.Type())
	if err != nil {
		return err
	}
	names := make([]string, 0, len(fs))
	for _, f := range fs {
		names = append(names, f.name)
		val, given := d.Get(f.name)
		if _, none := val.(value.Null); none && f.typ != valueType {
			given = false
		}
		switch {
		case !given && f.required:
			return fmt.Errorf("%s is required", f.name)
		case !given && f.def == nil:
			continue
		case !given:
			val = f.def
		}
		if err := fill(v.Field(f.index), val); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	for _, e := range d {
		k, ok := e.Key.(value.String)
		if !ok {
			return fmt.Errorf("a name must be a string, got %s", e.Key.Kind())
		}
		if !slices.Contains(names, string(k)) {
			return fmt.Errorf("there is no %q%s", string(k), problem.DidYouMean(string(k), names))
		}
	}
	return nil
}

func fill(dst reflect.Value, v value.Value) error {
	t := dst.Type()
	if t == valueType {
		dst.Set(reflect.ValueOf(v))
		return nil
	}
	if vt := reflect.TypeOf(v); vt == t {
		dst.Set(reflect.ValueOf(v))
		return nil
	}
	if t.Kind() == reflect.Pointer && t != bigType {
		p := reflect.New(t.Elem())
		if err := fill(p.Elem(), v); err != nil {
			return err
		}
		dst.Set(p)
		return nil
	}
	switch v := v.(type) {
	case value.String:
		switch {
		case t == durationType:
			d, err := value.ParseDuration(string(v))
			dst.SetInt(int64(d))
			return err
		case t.Kind() == reflect.String:
			dst.SetString(string(v))
			return nil
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String: // one string for a list of them
			dst.Set(reflect.MakeSlice(t, 1, 1))
			return fill(dst.Index(0), v)
		}
	case value.Bool:
		if t.Kind() == reflect.Bool {
			dst.SetBool(bool(v))
			return nil
		}
	case value.Int:
		return fillInt(dst, int64(v))
	case value.Big:
		if n, ok := new(big.Int).SetString(string(v), 10); ok && t == bigType {
			dst.Set(reflect.ValueOf(n))
			return nil
		}
		return fmt.Errorf("%s is too large", v)
	case value.Float:
		if dst.CanFloat() {
			dst.SetFloat(float64(v))
			return nil
		}
	case value.Duration:
		if t == durationType {
			dst.SetInt(int64(v))
			return nil
		}
	case value.Time:
		if t == timeType {
			dst.Set(reflect.ValueOf(time.Time(v)))
			return nil
		}
	case value.Bytes:
		if t == bytesType {
			dst.SetBytes(v)
			return nil
		}
	case value.List:
		if t.Kind() == reflect.Slice && t != bytesType {
			out := reflect.MakeSlice(t, len(v), len(v))
			for i, it := range v {
				if err := fill(out.Index(i), it); err != nil {
					return fmt.Errorf("[%d]: %w", i, err)
				}
			}
			dst.Set(out)
			return nil
		}
	case value.Dict:
		switch t.Kind() {
		case reflect.Struct:
			if t != timeType {
				return fillStruct(dst, v)
			}
		case reflect.Map:
			return fillMap(dst, v)
		}
	}
	want, err := typeName(t, nil)
	if err != nil {
		return err
	}
	return fmt.Errorf("must be %s, got %s", want, v.Kind())
}

func fillInt(dst reflect.Value, n int64) error {
	t := dst.Type()
	switch {
	case t == durationType:
		return fmt.Errorf("must be a duration such as \"5m\", got int")
	case t == bigType:
		dst.Set(reflect.ValueOf(big.NewInt(n)))
	case dst.CanInt() && !dst.OverflowInt(n):
		dst.SetInt(n)
	case dst.CanUint() && n >= 0 && !dst.OverflowUint(uint64(n)):
		dst.SetUint(uint64(n))
	case dst.CanInt(), dst.CanUint():
		return fmt.Errorf("%d is out of range", n)
	case dst.CanFloat():
		dst.SetFloat(float64(n))
	default:
		want, err := typeName(t, nil)
		if err != nil {
			return err
		}
		return fmt.Errorf("must be %s, got int", want)
	}
	return nil
}

func fillMap(dst reflect.Value, d value.Dict) error {
	t := dst.Type()
	out := reflect.MakeMapWithSize(t, len(d))
	for _, e := range d {
		k, ok := e.Key.(value.String)
		if !ok {
			return fmt.Errorf("a key must be a string, got %s", e.Key.Kind())
		}
		el := reflect.New(t.Elem()).Elem()
		if err := fill(el, e.Value); err != nil {
			return fmt.Errorf("[%q]: %w", string(k), err)
		}
		out.SetMapIndex(reflect.ValueOf(string(k)).Convert(t.Key()), el)
	}
	dst.Set(out)
	return nil
}

// toValue is the value of a result: a struct with rb tags is a dict of them, in order.
func toValue(r any) (value.Value, error) { return reflectValue(reflect.ValueOf(r), 0) }

func reflectValue(v reflect.Value, depth int) (value.Value, error) {
	if !v.IsValid() {
		return value.Null{}, nil
	}
	if depth > value.MaxDepth {
		return nil, fmt.Errorf("result: nested deeper than %d", value.MaxDepth)
	}
	switch x := v.Interface().(type) {
	case value.Value:
		return x, nil
	case time.Duration:
		return value.Duration(x), nil
	case time.Time:
		return value.Time(x.UTC()), nil
	case []byte:
		return value.Bytes(x), nil
	case *big.Int:
		if x == nil {
			return value.Null{}, nil
		}
		if x.IsInt64() {
			return value.Int(x.Int64()), nil
		}
		return value.Big(x.String()), nil
	}
	switch v.Kind() {
	case reflect.String:
		return value.String(v.String()), nil
	case reflect.Bool:
		return value.Bool(v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return value.Int(v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if u := v.Uint(); u > math.MaxInt64 {
			return value.Big(new(big.Int).SetUint64(u).String()), nil
		}
		return value.Int(int64(v.Uint())), nil
	case reflect.Float32, reflect.Float64:
		return value.Float(v.Float()), nil
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return value.Null{}, nil
		}
		return reflectValue(v.Elem(), depth)
	case reflect.Slice, reflect.Array:
		l := make(value.List, 0, v.Len())
		for i := range v.Len() {
			it, err := reflectValue(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			l = append(l, it)
		}
		return l, nil
	case reflect.Map:
		m := make(map[string]value.Value, v.Len())
		for it := v.MapRange(); it.Next(); {
			el, err := reflectValue(it.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			m[it.Key().String()] = el
		}
		return value.Map(m), nil
	case reflect.Struct:
		fs, err := fields(v.Type())
		if err != nil {
			return nil, err
		}
		d := make(value.Dict, 0, len(fs))
		for _, f := range fs {
			el, err := reflectValue(v.Field(f.index), depth+1)
			if err != nil {
				return nil, err
			}
			d = append(d, value.Entry{Key: value.String(f.name), Value: el})
		}
		return d, nil
	}
	return nil, fmt.Errorf("result: %s has no value", v.Type())
}
