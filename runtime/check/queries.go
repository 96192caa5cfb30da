package check

import (
	"context"
	"time"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
)

// Queries are the PromQL that runbooks ask, as far as that can be read from their text.
type Queries struct {
	Reads []promexpr.Read
	// Computed are the places where a query is put together while a runbook runs, so that only a run knows it.
	Computed []value.Pos
}

// FindQueries reads what runbooks ask: their fleets and symptoms, and in their functions, and those that they load, every query that is
// written as text. A query is found wherever a function of that name and with such a parameter is called, whatever ctx is called there.
func FindQueries(ctx context.Context, p *Project, runbooks []string) (Queries, error) {
	c := &checker{Project: p, vocab: project.RunbookVocabulary(p.Families), libraries: map[string]bool{}}
	defer c.close()
	var q Queries
	for _, comp := range p.Settings.Topology.Components() {
		q.read(comp.All, 0)
		q.read(comp.Sick.Left, 0)
	}
	for _, file := range runbooks {
		w, err := c.live(ctx)
		if err != nil {
			return q, err
		}
		rb, err := project.LoadRunbook(ctx, w, c.Tree, c.Settings, file, c.vocab)
		if err != nil {
			return q, err
		}
		q.read(rb.Targets.All, rb.Targets.Held)
		q.read(rb.Targets.Sick.Left, rb.Targets.Held)
		for _, f := range rb.Closure {
			text, err := p.Tree.Read(f.Path)
			if err != nil {
				return q, err
			}
			tree, err := (&syntax.FileOptions{Set: true}).Parse(f.Path, text, 0)
			if err != nil {
				return q, err
			}
			a := &asked{q: &q, rb: rb, path: f.Path, families: p.Families, constants: constants(tree)}
			syntax.Walk(tree, func(n syntax.Node) bool {
				if call, ok := n.(*syntax.CallExpr); ok {
					a.call(call)
				}
				return true
			})
		}
	}
	return q, nil
}

// read adds what an expression reads; before is how much earlier than the run it is evaluated.
func (q *Queries) read(e *promexpr.Expr, before time.Duration) {
	if e == nil {
		return
	}
	for _, r := range e.Reads() {
		r.Back += before
		q.Reads = append(q.Reads, r)
	}
}

// asked looks for queries in one file of a runbook.
type asked struct {
	q         *Queries
	rb        *project.Runbook
	path      string
	families  []kit.Family
	constants map[string]string
}

// constants are the names to which a file gives a text, once and for all.
func constants(tree *syntax.File) map[string]string {
	out := map[string]string{}
	for _, s := range tree.Stmts {
		a, ok := s.(*syntax.AssignStmt)
		if !ok || a.Op != syntax.EQ {
			continue
		}
		id, ok := a.LHS.(*syntax.Ident)
		if text, isText := literal(a.RHS, nil); ok && isText {
			out[id.Name] = text
		}
	}
	return out
}

// literal is the text of an expression that is written as text, in pieces or under a name.
func literal(e syntax.Expr, names map[string]string) (string, bool) {
	switch e := e.(type) {
	case *syntax.Literal:
		s, ok := e.Value.(string)
		return s, ok && e.Token == syntax.STRING
	case *syntax.Ident:
		s, ok := names[e.Name]
		return s, ok
	case *syntax.ParenExpr:
		return literal(e.X, names)
	case *syntax.BinaryExpr:
		x, xok := literal(e.X, names)
		y, yok := literal(e.Y, names)
		return x + y, e.Op == syntax.PLUS && xok && yok
	}
	return "", false
}

// call looks at one call of x.family.function(...).
func (a *asked) call(c *syntax.CallExpr) {
	fn, ok := c.Fn.(*syntax.DotExpr)
	if !ok {
		return
	}
	family, ok := fn.X.(*syntax.DotExpr)
	if !ok {
		return
	}
	f, ok := a.function(family.Name.Name, fn.Name.Name)
	if !ok {
		return
	}
	for _, p := range f.Params {
		if p.Name != "expr" && p.Name != "expect" {
			continue
		}
		arg, ok := argument(c, p.Name, f)
		if !ok {
			continue
		}
		text, ok := literal(arg, a.constants)
		if ok {
			if e, err := a.rb.Parse(text); err == nil { // what does not parse is a finding of the check
				a.q.read(e, a.before(c, f))
				continue
			}
		}
		at := start(arg)
		a.q.Computed = append(a.q.Computed, value.Pos{File: a.path, Line: int(at.Line), Col: int(at.Col)})
	}
}

func (a *asked) function(family, name string) (kit.Function, bool) {
	for _, f := range a.families {
		if f.Name == family {
			return f.Lookup(name)
		}
	}
	return kit.Function{}, false
}

// argument is the expression that a call gives to a parameter.
func argument(c *syntax.CallExpr, name string, f kit.Function) (syntax.Expr, bool) {
	if e, ok := keyword(c, name); ok {
		return e, true
	}
	for i, arg := range c.Args {
		if b, ok := arg.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			break
		}
		if i < f.Positional && i < len(f.Params) && f.Params[i].Name == name {
			return arg, true
		}
	}
	return nil, false
}

// before is how far back a call looks besides what its query says: a window, or seasons. What is computed counts as the default.
func (a *asked) before(c *syntax.CallExpr, f kit.Function) time.Duration {
	if season := a.duration(c, f, "season"); season > 0 {
		n := int64(0)
		for _, p := range f.Params {
			if p.Name == "seasons" {
				i, _ := p.Default.(value.Int)
				n = int64(i)
			}
		}
		if lit, ok := keyword(c, "seasons"); ok {
			if l, ok := lit.(*syntax.Literal); ok {
				if i, ok := l.Value.(int64); ok {
					n = i
				}
			}
		}
		return season * time.Duration(n)
	}
	return a.duration(c, f, "window")
}

func (a *asked) duration(c *syntax.CallExpr, f kit.Function, name string) time.Duration {
	if arg, ok := keyword(c, name); ok {
		if text, ok := literal(arg, a.constants); ok {
			if d, err := value.ParseDuration(text); err == nil {
				return d
			}
		}
		if d, ok := arg.(*syntax.DotExpr); ok { // ctx.params.name
			if v, ok := a.rb.Param(d.Name.Name); ok {
				if d, ok := v.(value.Duration); ok {
					return time.Duration(d)
				}
			}
		}
	}
	for _, p := range f.Params {
		if d, ok := p.Default.(value.Duration); ok && p.Name == name {
			return time.Duration(d)
		}
	}
	return 0
}
