package sdk

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// field is one tagged field of a struct:
//
//	Expr string        `rb:"expr,required,positional" doc:"what to ask"`
//	Wait time.Duration `rb:"wait" default:"10s"`
//	Pass string        `rb:"password,sensitive"`
type field struct {
	name       string
	index      int
	typ        reflect.Type
	required   bool
	sensitive  bool
	positional bool
	def        value.Value
	doc        string
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
	bigType      = reflect.TypeFor[*big.Int]()
	valueType    = reflect.TypeFor[value.Value]()
	bytesType    = reflect.TypeFor[[]byte]()
)

// known is what fields has found, by type: most are used by several functions of a plugin, and all by each of its calls.
var known sync.Map

// fields lists the tagged fields of a struct type. The list is shared.
func fields(t reflect.Type) ([]field, error) {
	if fs, ok := known.Load(t); ok {
		return fs.([]field), nil
	}
	fs, err := readFields(t)
	if err == nil {
		known.Store(t, fs)
	}
	return fs, err
}

func readFields(t reflect.Type) ([]field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is not a struct", t)
	}
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("rb")
		if !ok {
			continue
		}
		name, flags, _ := strings.Cut(tag, ",")
		f := field{name: name, index: i, typ: sf.Type, doc: sf.Tag.Get("doc")}
		if !sf.IsExported() || !IsName(name) {
			return nil, fmt.Errorf("field %s: it must be exported and its rb name lower-case letters, digits and _", sf.Name)
		}
		for flag := range strings.SplitSeq(flags, ",") {
			switch flag {
			case "":
			case "required":
				f.required = true
			case "sensitive":
				f.sensitive = true
			case "positional":
				f.positional = true
			default:
				return nil, fmt.Errorf("field %s: unknown flag %q in its rb tag", sf.Name, flag)
			}
		}
		if text, ok := sf.Tag.Lookup("default"); ok {
			def, err := parseDefault(sf.Type, text)
			if err != nil {
				return nil, fmt.Errorf("field %s: default %q: %w", sf.Name, text, err)
			}
			f.def = def
		}
		if f.positional && len(out) != 0 {
			return nil, fmt.Errorf("field %s: only the first parameter can be positional", sf.Name)
		}
		for _, o := range out {
			if o.name == name {
				return nil, fmt.Errorf("field %s: %s is there twice", sf.Name, name)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// schema is the parameters of a struct type, and how many are positional.
func schema(t reflect.Type) ([]Param, int, error) {
	fs, err := fields(t)
	if err != nil {
		return nil, 0, err
	}
	var params []Param
	positional := 0
	for _, f := range fs {
		typ, err := typeName(f.typ, nil)
		if err != nil {
			return nil, 0, fmt.Errorf("parameter %s: %w", f.name, err)
		}
		if f.positional {
			positional = 1
		}
		params = append(params, Param{Name: f.name, Type: typ, Doc: f.doc, Required: f.required, Default: f.def, Sensitive: f.sensitive})
	}
	return params, positional, nil
}

// typeName is the schema's word for a Go type. A type without one is refused, at registration and not in production.
func typeName(t reflect.Type, above []reflect.Type) (string, error) {
	if slices.Contains(above, t) {
		return "", fmt.Errorf("%s contains itself", t)
	}
	above = append(above, t)
	switch {
	case t == durationType:
		return "duration", nil
	case t == timeType, t == bytesType, t == valueType:
		return "any", nil
	case t == bigType:
		return "int", nil
	case t.Implements(valueType):
		return valueTypeName(t)
	}
	switch t.Kind() {
	case reflect.String:
		return "string", nil
	case reflect.Bool:
		return "bool", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "int", nil
	case reflect.Float32, reflect.Float64:
		return "float", nil
	case reflect.Pointer:
		return typeName(t.Elem(), above)
	case reflect.Slice:
		elem, err := typeName(t.Elem(), above)
		if elem == "string" {
			return "strings", err
		}
		return "list", err
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return "", fmt.Errorf("%s: the keys of a map must be strings", t)
		}
		elem, err := typeName(t.Elem(), above)
		if elem == "string" {
			return "labels", err
		}
		return "dict", err
	case reflect.Struct:
		fs, err := fields(t)
		if err != nil {
			return "", err
		}
		for _, f := range fs {
			if _, err := typeName(f.typ, above); err != nil {
				return "", fmt.Errorf("field %s: %w", f.name, err)
			}
		}
		return "dict", nil
	}
	return "", fmt.Errorf("%s has no value", t)
}

func valueTypeName(t reflect.Type) (string, error) {
	switch t {
	case reflect.TypeFor[value.String]():
		return "string", nil
	case reflect.TypeFor[value.Int](), reflect.TypeFor[value.Big]():
		return "int", nil
	case reflect.TypeFor[value.Float]():
		return "float", nil
	case reflect.TypeFor[value.Bool]():
		return "bool", nil
	case reflect.TypeFor[value.Duration]():
		return "duration", nil
	case reflect.TypeFor[value.List]():
		return "list", nil
	case reflect.TypeFor[value.Dict]():
		return "dict", nil
	case reflect.TypeFor[value.Null](), reflect.TypeFor[value.Bytes](), reflect.TypeFor[value.Time]():
		return "any", nil
	}
	return "", fmt.Errorf("%s cannot cross to the engine", t)
}

// parseDefault reads a default and makes sure that it fits.
func parseDefault(t reflect.Type, text string) (value.Value, error) {
	probe := reflect.New(t).Elem()
	var v value.Value
	switch {
	case t == durationType:
		d, err := value.ParseDuration(text)
		return value.Duration(d), err
	case t.Kind() == reflect.String:
		return value.String(text), nil
	case t.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		return value.Bool(b), err
	case probe.CanFloat():
		f, err := strconv.ParseFloat(text, 64)
		return value.Float(f), err
	case probe.CanInt(), probe.CanUint():
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		v = value.Int(n)
	default:
		return nil, fmt.Errorf("%s takes none: set it in code", t)
	}
	return v, fill(probe, v)
}
