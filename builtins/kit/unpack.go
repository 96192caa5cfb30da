package kit

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Arg is one argument as it was written in a call.
type Arg struct {
	Name  string // "" if given by position
	Value value.Value
	Pos   value.Pos
}

// AllParams are the parameters of a function with those that every action takes.
func (f Function) AllParams() []Param {
	if f.Kind != Action && f.Kind != "" {
		return f.Params
	}
	params := slices.Clone(f.Params)
	for _, r := range ReservedActionParams() {
		if !slices.ContainsFunc(params, func(p Param) bool { return p.Name == r.Name }) {
			params = append(params, r)
		}
	}
	return params
}

// Unpack matches the arguments of a call with fn's parameters and checks their types. It returns
// those that were given, in the order of the signature. name is what the author wrote: "ctx.metrics.value". An
// error is a *problem.Problem at the argument; without a position it concerns the whole call.
func Unpack(name string, fn Function, args []Arg) ([]value.Field, error) {
	params := fn.AllParams()
	given := make(map[string]value.Field, len(args))
	bad := func(pos value.Pos, format string, a ...any) *problem.Problem {
		return problem.New(problem.Argument, name+format, a...).At(pos).WithDetail("usage: " + Usage(name, fn))
	}
	position := 0
	for _, a := range args {
		i := slices.IndexFunc(params, func(p Param) bool { return p.Name == a.Name })
		if a.Name == "" {
			if position >= fn.Positional || position >= len(params) {
				return nil, tooMany(bad, fn, params, args, position, a)
			}
			i = position
			position++
		}
		if i < 0 {
			names := make([]string, len(params))
			for i, p := range params {
				names[i] = p.Name
			}
			return nil, bad(a.Pos, " has no argument %q%s", clip(a.Name), problem.DidYouMean(a.Name, names))
		}
		p := params[i]
		if _, dup := given[p.Name]; dup {
			return nil, bad(a.Pos, ": %s is given twice", p.Name)
		}
		v, ok := coerce(p, a.Value)
		if !ok {
			e := bad(a.Pos, ": %s must be %s, got %s", p.Name, wanted(p), got(p, a.Value))
			if h := typeHint(p, a.Value); h != "" {
				e.Hint = h
			}
			return nil, e
		}
		given[p.Name] = value.Field{Name: p.Name, Value: v, Pos: a.Pos}
	}
	fields := make([]value.Field, 0, len(given))
	for _, p := range params {
		f, ok := given[p.Name]
		if ok {
			fields = append(fields, f)
		} else if p.Required {
			e := bad(value.Pos{}, " needs %s", p.Name)
			if p.Doc != "" {
				e.Hint = "add " + p.Name + "=...: " + p.Doc
			}
			return nil, e
		}
	}
	return fields, nil
}

func tooMany(bad func(value.Pos, string, ...any) *problem.Problem, fn Function, params []Param, args []Arg, position int, a Arg) error {
	var e *problem.Problem
	switch fn.Positional {
	case 0:
		e = bad(a.Pos, " takes arguments by name only")
	case 1:
		e = bad(a.Pos, " takes one argument by position, the rest by name")
	default:
		e = bad(a.Pos, " takes %d arguments by position, the rest by name", fn.Positional)
	}
	// Name the first parameter that is still free: most likely the one that was meant.
	for _, p := range params[min(position, len(params)):] {
		if !slices.ContainsFunc(args, func(x Arg) bool { return x.Name == p.Name }) {
			return e.WithHint("write %s=%s", p.Name, got(p, a.Value))
		}
	}
	return e
}

// Check verifies arguments that come from a worker against the engine's own table and adds the
// defaults. It does not trust that Unpack has seen them before.
func Check(fn Function, args Args) (Args, error) {
	list := make([]Arg, 0, len(args))
	for _, name := range slices.Sorted(maps.Keys(args)) {
		if name == "" {
			return nil, problem.New(problem.Argument, "%s: an argument without a name", fn.Name)
		}
		list = append(list, Arg{Name: name, Value: args[name]})
	}
	fields, err := Unpack(fn.Name, fn, list)
	if err != nil {
		return nil, err
	}
	out := make(Args, len(fields))
	for _, f := range fields {
		out[f.Name] = f.Value
	}
	for _, p := range fn.AllParams() {
		if _, ok := out[p.Name]; !ok && p.Default != nil {
			out[p.Name] = p.Default
		}
	}
	return out, nil
}

// CheckRecord verifies a record that comes from a worker, and all that it holds: its type is a
// declaration that lookup knows, its fields are arguments of that. Lookup is given the full name.
func CheckRecord(r *value.Record, lookup func(name string) (Function, bool)) error {
	if r == nil {
		return problem.New(problem.Argument, "no record")
	}
	fn, ok := lookup(r.Type)
	if !ok || fn.Kind != Declare {
		return problem.New(problem.Argument, "there is no declaration %q", clip(r.Type)).At(r.Pos)
	}
	args := make([]Arg, len(r.Fields))
	for i, f := range r.Fields {
		if f.Name == "" {
			return problem.New(problem.Argument, "%s: a field without a name", r.Type)
		}
		args[i] = Arg(f)
	}
	if _, err := Unpack(r.Type, fn, args); err != nil {
		return err
	}
	for _, f := range r.Fields {
		if err := checkNested(f.Value, lookup); err != nil {
			return err
		}
	}
	return nil
}

func checkNested(v value.Value, lookup func(string) (Function, bool)) error {
	switch v := v.(type) {
	case value.List:
		for _, x := range v {
			if err := checkNested(x, lookup); err != nil {
				return err
			}
		}
	case value.Dict:
		for _, e := range v {
			if err := checkNested(e.Key, lookup); err != nil {
				return err
			}
			if err := checkNested(e.Value, lookup); err != nil {
				return err
			}
		}
	case *value.Record:
		return CheckRecord(v, lookup)
	}
	return nil
}

// coerce returns v as the parameter's type wants it, and whether it is of that type.
func coerce(p Param, v value.Value) (value.Value, bool) {
	if v == nil {
		return nil, false
	}
	if f, ok := v.(value.Float); ok && (math.IsNaN(float64(f)) || math.IsInf(float64(f), 0)) {
		return nil, false // a comparison with it would not mean anything
	}
	switch p.Type {
	case StringT:
		_, ok := v.(value.String)
		return v, ok
	case Int:
		_, ok := v.(value.Int)
		return v, ok
	case Float:
		switch n := v.(type) {
		case value.Int:
			return value.Float(n), true
		case value.Float:
			return n, true
		}
		return nil, false
	case Number:
		switch v.(type) {
		case value.Int, value.Float:
			return v, true
		}
		return nil, false
	case Bool:
		_, ok := v.(value.Bool)
		return v, ok
	case Duration:
		switch d := v.(type) {
		case value.Duration:
			return d, true
		case value.String:
			x, err := value.ParseDuration(string(d))
			return value.Duration(x), err == nil
		}
		return nil, false
	case List:
		l, ok := v.(value.List)
		if !ok || len(p.Record) == 0 {
			return v, ok
		}
		for _, x := range l {
			if !isRecord(p, x) {
				return nil, false
			}
		}
		return v, true
	case Dict, Labels:
		d, ok := v.(value.Dict)
		if !ok {
			return nil, false
		}
		for _, e := range d {
			if _, ok := e.Key.(value.String); !ok {
				return nil, false
			}
			if _, ok := e.Value.(value.String); !ok && p.Type == Labels {
				return nil, false
			}
		}
		return v, true
	case Strings:
		if s, ok := v.(value.String); ok {
			return value.List{s}, true
		}
		l, ok := v.(value.List)
		if !ok {
			return nil, false
		}
		for _, x := range l {
			if _, ok := x.(value.String); !ok {
				return nil, false
			}
		}
		return v, true
	case Any, "":
		return v, len(p.Record) == 0 || isRecord(p, v)
	}
	return nil, false // a type that is not in the list is nobody's
}

// isRecord says whether v is a record of one of p's types. "param" stands for every "param.x".
func isRecord(p Param, v value.Value) bool {
	r, ok := v.(*value.Record)
	return ok && r != nil && slices.ContainsFunc(p.Record, func(t string) bool {
		return r.Type == t || strings.HasPrefix(r.Type, t+".")
	})
}

func wanted(p Param) string {
	if len(p.Record) > 0 {
		calls := make([]string, len(p.Record))
		for i, r := range p.Record {
			calls[i] = r + "(...)"
		}
		text := strings.Join(calls, " or ")
		if p.Type == List {
			return "a list of " + text
		}
		return text
	}
	switch p.Type {
	case StringT:
		return "a string"
	case Int:
		return "an int"
	case Float, Number:
		return "a number"
	case Bool:
		return "True or False"
	case Duration:
		return "a duration"
	case List:
		return "a list"
	case Dict:
		return "a dict with string keys"
	case Labels:
		return "a dict of strings to strings"
	case Strings:
		return "a string or a list of strings"
	}
	return "a value"
}

// got names a value in an error: short ones as written, others by type; a secret never.
func got(p Param, v value.Value) string {
	if v == nil {
		return "nothing"
	}
	if !p.Secret {
		switch v := v.(type) {
		case value.Null:
			return "None"
		case value.Bool:
			if v {
				return "True"
			}
			return "False"
		case value.Int:
			return strconv.FormatInt(int64(v), 10)
		case value.Float:
			return strconv.FormatFloat(float64(v), 'g', -1, 64)
		case value.String:
			return strconv.Quote(clip(string(v)))
		case value.Duration:
			return strconv.Quote(value.FormatDuration(time.Duration(v)))
		}
	}
	switch v := v.(type) {
	case value.Big:
		return "an int beyond 64 bits"
	case *value.Record:
		return v.Kind() + "(...)"
	}
	return "a " + v.Kind()
}

// typeHint says what to write instead, where that is clear.
func typeHint(p Param, v value.Value) string {
	if _, none := v.(value.Null); none {
		if !p.Required {
			return "leave " + p.Name + " out"
		}
		return ""
	}
	if p.Secret || len(p.Record) > 0 {
		return ""
	}
	text := got(p, v)
	if s, ok := v.(value.String); ok {
		text = clip(string(s))
	}
	_, isString := v.(value.String)
	_, err := strconv.ParseFloat(text, 64)
	number := err == nil
	switch p.Type {
	case Duration:
		if number {
			return fmt.Sprintf("write %s=%q", p.Name, text+"s")
		}
		return fmt.Sprintf("write it like %s=%q: units are ms, s, m, h, d, w", p.Name, "5m")
	case Int, Float, Number:
		if isString && number {
			return "write " + p.Name + "=" + text + " without quotes"
		}
	case StringT:
		if number {
			return fmt.Sprintf("write %s=%q", p.Name, text)
		}
	case Bool:
		if b, ok := map[string]string{"true": "True", "false": "False"}[strings.ToLower(text)]; ok {
			return "write " + p.Name + "=" + b
		}
	case Labels:
		if _, ok := v.(value.Dict); ok {
			return "write the values as text, for example with str(x)"
		}
	case List:
		if isString {
			return fmt.Sprintf("write %s=[%s]", p.Name, got(p, v))
		}
	}
	return ""
}

// Usage is one line that shows how a function is called; what may be left out is in brackets.
func Usage(name string, fn Function) string {
	var must, may []string
	for i, p := range fn.AllParams() {
		arg := p.Name + "=..."
		switch {
		case i < fn.Positional && p.Required:
			must = append(must, p.Name)
			continue
		case i < fn.Positional:
			arg = p.Name
		case p.Required:
			must = append(must, arg)
			continue
		}
		may = append(may, arg)
	}
	if len(may) > 0 {
		must = append(must, "["+strings.Join(may, ", ")+"]")
	}
	return name + "(" + strings.Join(must, ", ") + ")"
}

func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
