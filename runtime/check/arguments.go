package check

import (
	"errors"
	"slices"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// arguments finds arguments that there are not, that are missing, or that are written with a wrong type. It says whether there is nothing to find.
func (f *scope) arguments(c *syntax.CallExpr, name string, fn kit.Function) bool {
	params := fn.AllParams()
	given := map[string]bool{}
	position, open := 0, false
	good := true
	bad := func(at syntax.Position, err error) {
		good = false
		if p, ok := errors.AsType[*problem.Problem](err); ok {
			q := f.find(p.Code, at, "%s", p.Message)
			q.Hint = p.Hint
			q.Detail = append(q.Detail, p.Detail...)
		}
	}
	for _, a := range c.Args {
		e, arg := a, kit.Arg{}
		switch x := a.(type) {
		case *syntax.BinaryExpr:
			if id, ok := x.X.(*syntax.Ident); ok && x.Op == syntax.EQ {
				arg.Name, e = id.Name, x.Y
			}
		case *syntax.UnaryExpr:
			if x.Op == syntax.STAR || x.Op == syntax.STARSTAR {
				open = true // only a run knows what that holds
				continue
			}
		}
		i := slices.IndexFunc(params, func(p kit.Param) bool { return p.Name == arg.Name })
		if arg.Name == "" {
			i = position
			position++
		}
		if i >= 0 && i < len(params) && (arg.Name != "" || i < fn.Positional) {
			given[params[i].Name] = true
			v, known := constant(e)
			if !known {
				continue
			}
			arg.Value = v
			one := kit.Function{Name: fn.Name, Kind: kit.Query, Positional: min(fn.Positional, 1), Params: []kit.Param{params[i]}}
			if arg.Name == "" {
				arg.Name = params[i].Name
			}
			if _, err := kit.Unpack(name, one, []kit.Arg{arg}); err != nil {
				bad(start(a), withoutUsage(err))
			}
			continue
		}
		known := false
		if arg.Value, known = constant(e); !known {
			arg.Value = value.Null{}
		}
		_, err := kit.Unpack(name, kit.Function{Name: fn.Name, Kind: kit.Query, Positional: fn.Positional, Params: optional(params)}, surplus(position, arg))
		bad(start(a), err)
	}
	for _, p := range params {
		if p.Required && !given[p.Name] && !open {
			_, err := kit.Unpack(name, kit.Function{Name: fn.Name, Kind: kit.Query, Params: []kit.Param{p}}, nil)
			bad(start(c), withoutUsage(err))
		}
	}
	return good
}

// surplus are arguments by position up to the one that is too many, or one by an unknown name.
func surplus(position int, arg kit.Arg) []kit.Arg {
	if arg.Name != "" {
		return []kit.Arg{arg}
	}
	out := make([]kit.Arg, position)
	for i := range out {
		out[i] = kit.Arg{Value: value.Null{}}
	}
	out[position-1] = arg
	return out
}

func optional(params []kit.Param) []kit.Param {
	out := slices.Clone(params)
	for i := range out {
		out[i].Required, out[i].Type, out[i].Record = false, kit.Any, nil
	}
	return out
}

func withoutUsage(err error) error {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		q := *p
		q.Detail = nil
		return &q
	}
	return err
}

// constant is the value of an expression that is written out.
func constant(e syntax.Expr) (value.Value, bool) {
	switch e := e.(type) {
	case *syntax.Literal:
		switch v := e.Value.(type) {
		case string:
			return value.String(v), true
		case int64:
			return value.Int(v), true
		case float64:
			return value.Float(v), true
		}
	case *syntax.ParenExpr:
		return constant(e.X)
	case *syntax.UnaryExpr:
		v, ok := constant(e.X)
		if n, isInt := v.(value.Int); ok && isInt && e.Op == syntax.MINUS {
			return -n, true
		}
		if n, isFloat := v.(value.Float); ok && isFloat && e.Op == syntax.MINUS {
			return -n, true
		}
	case *syntax.Ident:
		switch e.Name {
		case "True", "False":
			return value.Bool(e.Name == "True"), true
		case "None":
			return value.Null{}, true
		}
	case *syntax.ListExpr:
		out := value.List{}
		for _, x := range e.List {
			v, ok := constant(x)
			if !ok {
				return nil, false
			}
			out = append(out, v)
		}
		return out, true
	case *syntax.DictExpr:
		out := value.Dict{}
		for _, x := range e.List {
			entry, ok := x.(*syntax.DictEntry)
			if !ok {
				return nil, false
			}
			k, ok1 := constant(entry.Key)
			v, ok2 := constant(entry.Value)
			if !ok1 || !ok2 {
				return nil, false
			}
			out = append(out, value.Entry{Key: k, Value: v})
		}
		return out, true
	}
	return nil, false
}

// literal is an argument that is written as text.
func (f *scope) literal(c *syntax.CallExpr, fn kit.Function, name string) (string, syntax.Position, bool) {
	e, ok := keyword(c, name)
	if !ok && fn.Positional > 0 && fn.Params[0].Name == name && len(c.Args) > 0 {
		if b, named := c.Args[0].(*syntax.BinaryExpr); !named || b.Op != syntax.EQ {
			e, ok = c.Args[0], true
		}
	}
	lit, isLit := e.(*syntax.Literal)
	if !ok || !isLit {
		return "", syntax.Position{}, false
	}
	text, isText := lit.Value.(string)
	return text, lit.TokenPos, isText
}
