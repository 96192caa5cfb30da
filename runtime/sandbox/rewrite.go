package sandbox

import (
	"strings"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// The hooks that the rewrite calls. Their names hold characters that the scanner rejects, so that no
// script can name, shadow or call one.
const (
	hookStmt = "‹stmt›" // (n): statement n begins
	hookCond = "‹cond›" // (n, x, operands): leaf condition n is x, and the operands of it that are names are these; returns x
	hookLeft = "‹left›" // (n, x): the left operand of leaf condition n is x; returns x
	hookRite = "‹rite›" // (n, x): the right one
	hookDrop = "‹drop›" // (n, x): x is the value of expression statement n, which nothing uses; returns x
)

// rewriter adds the hooks to one file, before names are resolved. What the script does and says
// stays the same: operators stay native, conditions still short-circuit, and a hook has the position of what it wraps,
// so that errors have theirs.
type rewriter struct {
	sites   *sites
	path    string
	lines   []string
	calls   slab[syntax.CallExpr]
	names   slab[syntax.Ident]
	numbers slab[syntax.Literal]
	args    slab[syntax.Expr]
	stmts   slab[syntax.ExprStmt]
}

// rewrite adds the hooks to a file and returns the places that they tell of.
func rewrite(f *syntax.File, path, text string) *sites {
	n := strings.Count(text, "\n") + 1
	r := &rewriter{sites: &sites{statements: make([]statement, 0, n)}, path: path, lines: make([]string, 0, n)}
	for line := range strings.Lines(text) {
		r.lines = append(r.lines, strings.TrimRight(line, "\r\n"))
	}
	f.Stmts = r.block(f.Stmts, true, true)
	return r.sites
}

// block adds a hook before each statement. A docstring stays the first statement, and a load stays bare.
func (r *rewriter) block(list []syntax.Stmt, doc, top bool) []syntax.Stmt {
	out := make([]syntax.Stmt, 0, 2*len(list))
	for i, s := range list {
		if _, ok := s.(*syntax.LoadStmt); ok || doc && i == 0 && isDoc(s) {
			out = append(out, s)
			continue
		}
		start, _ := s.Span()
		n := len(r.sites.statements)
		r.sites.statements = append(r.sites.statements, statement{pos: r.pos(start), top: top})
		begins := &r.stmts.next(1)[0]
		begins.X = r.hook(hookStmt, n, start, start)
		out = append(out, begins, s)
		r.stmt(s, n)
	}
	return out
}

func isDoc(s syntax.Stmt) bool {
	e, ok := s.(*syntax.ExprStmt)
	if !ok {
		return false
	}
	_, ok = e.X.(*syntax.Literal)
	return ok
}

func (r *rewriter) stmt(s syntax.Stmt, n int) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		r.expr(s.LHS)
		r.expr(s.RHS)
	case *syntax.DefStmt:
		r.params(s.Params)
		s.Body = r.block(s.Body, true, false)
	case *syntax.ExprStmt:
		r.expr(s.X)
		switch unparen(s.X).(type) {
		case *syntax.Literal, *syntax.Ident: // nothing is made here
		default:
			start, end := s.X.Span()
			s.X = r.hook(hookDrop, n, start, end, s.X)
		}
	case *syntax.ForStmt:
		r.expr(s.Vars)
		r.expr(s.X)
		s.Body = r.block(s.Body, false, false)
	case *syntax.WhileStmt:
		s.Cond = r.cond(s.Cond)
		s.Body = r.block(s.Body, false, false)
	case *syntax.IfStmt:
		s.Cond = r.cond(s.Cond)
		s.True = r.block(s.True, false, false)
		s.False = r.block(s.False, false, false)
	case *syntax.ReturnStmt:
		if s.Result != nil {
			r.expr(s.Result)
		}
	}
}

// params rewrites default values.
func (r *rewriter) params(list []syntax.Expr) {
	for _, p := range list {
		if b, ok := p.(*syntax.BinaryExpr); ok {
			r.expr(b.Y)
		}
	}
}

// expr rewrites the conditions inside of e. It never replaces e itself.
func (r *rewriter) expr(e syntax.Expr) {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		// A chain of operators leans to the left and may be long: no recursion on that side.
		for {
			r.expr(e.Y)
			left, ok := e.X.(*syntax.BinaryExpr)
			if !ok {
				r.expr(e.X)
				return
			}
			e = left
		}
	case *syntax.CallExpr:
		r.expr(e.Fn)
		for _, a := range e.Args {
			r.expr(a)
		}
	case *syntax.Comprehension:
		for _, c := range e.Clauses {
			switch c := c.(type) {
			case *syntax.ForClause:
				r.expr(c.X)
			case *syntax.IfClause:
				c.Cond = r.cond(c.Cond)
			}
		}
		r.expr(e.Body)
	case *syntax.CondExpr:
		e.Cond = r.cond(e.Cond)
		r.expr(e.True)
		r.expr(e.False)
	case *syntax.DictEntry:
		r.expr(e.Key)
		r.expr(e.Value)
	case *syntax.DictExpr:
		r.exprs(e.List)
	case *syntax.DotExpr:
		r.expr(e.X)
	case *syntax.IndexExpr:
		r.expr(e.X)
		r.expr(e.Y)
	case *syntax.LambdaExpr:
		r.params(e.Params)
		r.expr(e.Body)
	case *syntax.ListExpr:
		r.exprs(e.List)
	case *syntax.ParenExpr:
		r.expr(e.X)
	case *syntax.SliceExpr:
		r.expr(e.X)
		for _, x := range []syntax.Expr{e.Lo, e.Hi, e.Step} {
			if x != nil {
				r.expr(x)
			}
		}
	case *syntax.TupleExpr:
		r.exprs(e.List)
	case *syntax.UnaryExpr:
		if e.X != nil {
			r.expr(e.X)
		}
	}
}

func (r *rewriter) exprs(list []syntax.Expr) {
	for _, e := range list {
		r.expr(e)
	}
}

// cond wraps the leaves of a condition: what is left when and, or, not and parentheses are taken apart.
func (r *rewriter) cond(e syntax.Expr) syntax.Expr {
	switch x := e.(type) {
	case *syntax.ParenExpr:
		x.X = r.cond(x.X)
		return x
	case *syntax.UnaryExpr:
		if x.Op == syntax.NOT {
			x.X = r.cond(x.X)
			return x
		}
	case *syntax.BinaryExpr:
		if x.Op == syntax.AND || x.Op == syntax.OR {
			x.X = r.cond(x.X)
			x.Y = r.cond(x.Y)
			return x
		}
	}
	return r.leaf(e)
}

func (r *rewriter) leaf(e syntax.Expr) syntax.Expr {
	start, end := e.Span()
	c := condition{pos: r.pos(start), source: r.text(e)}
	b, compares := e.(*syntax.BinaryExpr)
	compares = compares && isComparison(b.Op)
	switch {
	case compares:
		if !isLiteral(b.X) {
			c.operand[0] = r.text(b.X)
		}
		if !isLiteral(b.Y) {
			c.operand[1] = r.text(b.Y)
		}
	case !isLiteral(e):
		c.operand[0] = c.source
	}
	n := len(r.sites.conditions)
	r.expr(e)
	args := []syntax.Expr{e}
	if compares {
		for side, x := range [2]*syntax.Expr{&b.X, &b.Y} {
			if c.operand[side] == "" {
				continue
			}
			if name, ok := (*x).(*syntax.Ident); ok { // it is the same after the comparison: one hook does for both
				args = append(args, name)
				c.given[side] = len(args)
				continue
			}
			s, t := (*x).Span()
			*x = r.hook([2]string{hookLeft, hookRite}[side], n, s, t, *x)
		}
	}
	r.sites.conditions = append(r.sites.conditions, c)
	return r.hook(hookCond, n, start, end, args...)
}

// hook is a call name(n, x...), at the place of x.
func (r *rewriter) hook(name string, n int, start, end syntax.Position, x ...syntax.Expr) *syntax.CallExpr {
	fn := &r.names.next(1)[0]
	*fn = syntax.Ident{NamePos: start, Name: name}
	number := &r.numbers.next(1)[0]
	*number = syntax.Literal{Token: syntax.INT, TokenPos: start, Value: int64(n)}
	args := r.args.next(1 + len(x))
	args[0] = number
	copy(args[1:], x)
	call := &r.calls.next(1)[0]
	*call = syntax.CallExpr{Fn: fn, Lparen: start, Args: args, Rparen: end}
	return call
}

// slab hands out memory of which it takes much at a time: nodes of a tree live and die together.
type slab[T any] []T

func (s *slab[T]) next(n int) []T {
	if len(*s) < n {
		*s = make([]T, 64)
	}
	out := (*s)[:n:n]
	*s = (*s)[n:]
	return out
}

func isComparison(op syntax.Token) bool {
	switch op {
	case syntax.EQL, syntax.NEQ, syntax.LT, syntax.GT, syntax.LE, syntax.GE, syntax.IN, syntax.NOT_IN:
		return true
	}
	return false
}

func isLiteral(e syntax.Expr) bool {
	switch e := unparen(e).(type) {
	case *syntax.Literal:
		return true
	case *syntax.UnaryExpr:
		return e.X != nil && isLiteral(e.X)
	case *syntax.Ident:
		return e.Name == "None" || e.Name == "True" || e.Name == "False"
	}
	return false
}

func unparen(e syntax.Expr) syntax.Expr {
	for {
		p, ok := e.(*syntax.ParenExpr)
		if !ok {
			return e
		}
		e = p.X
	}
}

func (r *rewriter) pos(p syntax.Position) value.Pos {
	return value.Pos{File: r.path, Line: int(p.Line), Col: int(p.Col)}
}

// maxSource bounds the text of a condition in bytes.
const maxSource = 200

// text is the source of e on one line.
func (r *rewriter) text(e syntax.Expr) string {
	start, _ := e.Span()
	end := endOf(e)
	var b strings.Builder
	for n := int(start.Line); n <= int(end.Line) && n <= len(r.lines) && b.Len() <= maxSource; n++ {
		from, to := 0, len(r.lines[n-1])
		if n == int(end.Line) {
			to = int(end.Col) - 1
		}
		if n == int(start.Line) {
			from = int(start.Col) - 1
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(strings.TrimSpace(between(r.lines[n-1], from, min(to, from+maxSource+1)))) // a line may be long, and hold many conditions
	}
	return clip(strings.TrimSpace(b.String()), maxSource)
}

// between is what of a line stands from one character to before another.
func between(line string, from, to int) string {
	n, begin := 0, len(line)
	for i := range line {
		if n == from {
			begin = i
		}
		if n >= to {
			return line[min(begin, i):i]
		}
		n++
	}
	return line[begin:]
}

// endOf is the end of e; Span leaves out the closing bracket of an index, a slice and a tuple.
func endOf(e syntax.Expr) syntax.Position {
	_, end := e.Span()
	switch e := e.(type) {
	case *syntax.IndexExpr, *syntax.SliceExpr:
		end.Col++
	case *syntax.TupleExpr:
		if !e.Lparen.IsValid() {
			return endOf(e.List[len(e.List)-1])
		}
		end.Col++
	case *syntax.BinaryExpr:
		return endOf(e.Y)
	case *syntax.UnaryExpr:
		if e.X != nil {
			return endOf(e.X)
		}
	case *syntax.CondExpr:
		return endOf(e.False)
	case *syntax.LambdaExpr:
		return endOf(e.Body)
	}
	return end
}

// clip shortens s to about limit bytes.
func clip(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
