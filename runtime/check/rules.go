package check

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// function applies the rules that are about one function.
func (l *linter) function(def *syntax.DefStmt) {
	f := &scope{linter: l, def: def, ctx: l.contextName(def)}
	f.block(def.Body, false)
	f.ignored()
}

// scope is one function that is looked at.
type scope struct {
	*linter
	def     *syntax.DefStmt
	ctx     string // what it calls its ctx
	results []assigned
	numbers map[string]string // names of values that are never None, and the call that says so
}

// assigned is a result of must = False that was given a name.
type assigned struct {
	name *syntax.Ident
	call string
}

// block looks at statements. What stands after one that ends the block is never reached.
func (f *scope) block(list []syntax.Stmt, loop bool) {
	for i, s := range list {
		f.stmt(s, loop)
		if i == len(list)-1 {
			break
		}
		switch s := s.(type) {
		case *syntax.ReturnStmt:
			f.find(problem.Unreachable, start(list[i+1]), "this is never reached: the line before returns").WithHint("put it before the return, or leave it out")
			return
		case *syntax.BranchStmt:
			if s.Token != syntax.PASS {
				f.find(problem.Unreachable, start(list[i+1]), "this is never reached: the line before is %s", s.Token).WithHint("leave it out")
				return
			}
		}
	}
}

func (f *scope) stmt(s syntax.Stmt, loop bool) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		if call, ok := f.action(s.RHS); ok && unchecked(call) {
			if id, ok := s.LHS.(*syntax.Ident); ok {
				f.results = append(f.results, assigned{id, f.name(call)})
			}
		}
		f.number(s)
		f.expr(s.LHS, loop)
		f.expr(s.RHS, loop)
	case *syntax.ExprStmt:
		f.lost(s)
		if call, ok := f.action(s.X); ok && unchecked(call) {
			f.find(problem.UnusedResult, start(s), "the result of %s is not looked at, and must = False lets the run go on whatever it is", f.name(call)).
				WithHint("write r = %s(...) and if not r.ok: ..., or leave must = False out", f.name(call))
		}
		f.expr(s.X, loop)
	case *syntax.ForStmt:
		f.expr(s.X, loop)
		f.block(s.Body, true)
	case *syntax.WhileStmt:
		f.expr(s.Cond, true)
		f.block(s.Body, true)
	case *syntax.IfStmt:
		f.threshold(s.Cond)
		f.expr(s.Cond, loop)
		f.block(s.True, loop)
		f.block(s.False, loop)
	case *syntax.ReturnStmt:
		if s.Result != nil {
			f.expr(s.Result, loop)
		}
	case *syntax.DefStmt:
		f.function(s)
	}
}

// expr looks at every call and attribute in an expression.
func (f *scope) expr(e syntax.Expr, loop bool) {
	syntax.Walk(e, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Comprehension:
			for i, clause := range n.Clauses {
				switch c := clause.(type) {
				case *syntax.ForClause:
					f.expr(c.X, loop || i > 0)
				case *syntax.IfClause:
					f.expr(c.Cond, true)
				}
			}
			f.expr(n.Body, true)
			return false
		case *syntax.CallExpr:
			if family, fn, ok := f.called(n); ok {
				f.call(n, family, fn, loop)
			}
		case *syntax.DotExpr:
			f.attribute(n)
		case *syntax.BinaryExpr:
			f.none(n)
		}
		return true
	})
}

// path is what stands behind ctx: ["exec", "run"] for ctx.exec.run.
func (f *scope) path(e syntax.Expr) ([]string, bool) {
	switch e := e.(type) {
	case *syntax.Ident:
		return nil, f.ctx != "" && e.Name == f.ctx
	case *syntax.DotExpr:
		front, ok := f.path(e.X)
		return append(front, e.Name.Name), ok
	}
	return nil, false
}

// called is the function of ctx that a call is of.
func (f *scope) called(c *syntax.CallExpr) (kit.Family, kit.Function, bool) {
	p, ok := f.path(c.Fn)
	if !ok || len(p) == 0 || len(p) > 2 {
		return kit.Family{}, kit.Function{}, false
	}
	family := ""
	if len(p) == 2 {
		family = p[0]
	}
	for _, fam := range f.vocab.Families {
		if fn, ok := fam.Lookup(p[len(p)-1]); ok && fam.Name == family {
			return fam, fn, true
		}
	}
	return kit.Family{}, kit.Function{}, false
}

// action is e if it calls an action.
func (f *scope) action(e syntax.Expr) (*syntax.CallExpr, bool) {
	for {
		p, ok := e.(*syntax.ParenExpr)
		if !ok {
			break
		}
		e = p.X
	}
	c, ok := e.(*syntax.CallExpr)
	if !ok {
		return nil, false
	}
	_, fn, ok := f.called(c)
	return c, ok && (fn.Kind == kit.Action || fn.Kind == "")
}

func (f *scope) name(c *syntax.CallExpr) string {
	p, _ := f.path(c.Fn)
	return strings.Join(append([]string{f.ctx}, p...), ".")
}

// keyword is the argument of that name.
func keyword(c *syntax.CallExpr, name string) (syntax.Expr, bool) {
	for _, a := range c.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); ok && id.Name == name {
				return b.Y, true
			}
		}
	}
	return nil, false
}

// unchecked says whether a call has must = False.
func unchecked(c *syntax.CallExpr) bool {
	e, ok := keyword(c, "must")
	id, isName := e.(*syntax.Ident)
	return ok && isName && id.Name == "False"
}

// ignored finds results of must = False whose name is never read.
func (f *scope) ignored() {
	for _, r := range f.results {
		read := false
		for _, s := range f.def.Body {
			syntax.Walk(s, func(n syntax.Node) bool {
				if id, ok := n.(*syntax.Ident); ok && id.Name == r.name.Name && id.NamePos != r.name.NamePos {
					read = true
				}
				return true
			})
		}
		if !read {
			f.find(problem.UnusedResult, r.name.NamePos, "%s is never looked at, and must = False lets the run go on whatever %s did", r.name.Name, r.call).
				WithHint("write if not %s.ok: ..., or leave must = False out", r.name.Name)
		}
	}
}

// attribute finds what ctx, its families, its parameters and its target do not have.
func (f *scope) attribute(e *syntax.DotExpr) {
	front, ok := f.path(e.X)
	if !ok {
		return
	}
	var known []string
	what := f.ctx
	switch {
	case len(front) == 0:
		known = []string{"now", "target", "params", "attempt", "steps"}
		for _, fam := range f.vocab.Families {
			known = append(known, fam.Name)
			if fam.Name == "" {
				known = append(known, names(fam)...)
			}
		}
	case len(front) == 1 && front[0] == "target":
		known = []string{"name", "key", "labels"}
		what += ".target"
	case len(front) == 1 && front[0] == "params":
		if !f.main { // a library is handed the ctx of whoever loads it
			return
		}
		for _, p := range f.rb.Params {
			name, _ := p.Key.(value.String)
			known = append(known, string(name))
		}
		what += ".params"
	case len(front) == 1:
		for _, fam := range f.vocab.Families {
			if fam.Name == front[0] {
				known = append(known, names(fam)...)
			}
		}
		if known == nil {
			return
		}
		what += "." + front[0]
	default:
		return
	}
	if !slices.Contains(known, e.Name.Name) {
		_ = f.find(problem.UnknownName, e.Name.NamePos, "%s has no .%s%s", what, e.Name.Name, problem.DidYouMean(e.Name.Name, known))
	}
}

func names(fam kit.Family) []string {
	var out []string
	for _, fn := range fam.Functions {
		out = append(out, fn.Name)
	}
	return out
}

// call looks at the arguments of a call of ctx, and at where it stands.
func (f *scope) call(c *syntax.CallExpr, fam kit.Family, fn kit.Function, loop bool) {
	name := f.name(c)
	if !f.arguments(c, name, fn) {
		return
	}
	switch fn.Kind {
	case kit.Query, kit.Analysis:
		if loop {
			f.find(problem.QueryInLoop, start(c), "%s is asked once for each round of the loop", name).
				WithHint("ask once before the loop, with ctx.metrics.vector(...) or a sum or max over all")
		}
	default:
		_, given := keyword(c, "cooldown")
		if !given && !f.rb.OwnCooldown && f.defaultCooldown(fam.Name, fn.Name) == 0 {
			f.find(problem.NoCooldown, start(c), "%s says no cooldown: how soon it may be done again on the same target is left to the project", name).
				WithHint(`say it, such as cooldown = "2h", here or in runbook(cooldown = ...)`)
		}
	}
	for _, p := range fn.AllParams() {
		text, at, ok := f.literal(c, fn, p.Name)
		switch {
		case !ok:
		case p.Name == "expr" || p.Name == "expect":
			f.query(text, at)
		case p.Secret && text != "":
			f.find(problem.LiteralSecret, at, "%s of %s is a secret, and it is written into the code", p.Name, name).
				WithHint("give it to the plugin: connection(%q, ..., config = {...: secret.env(\"NAME\")}) in project.star, and change the one that stood here", fam.Name)
		}
	}
}

func (f *scope) defaultCooldown(plugin, function string) int64 {
	for _, m := range f.Manifests {
		for _, fn := range m.Functions {
			if m.Name == plugin && fn.Name == function {
				return int64(fn.DefaultCooldown)
			}
		}
	}
	return 0
}

// query finds PromQL that does not parse, and $names that are no parameters.
func (f *scope) query(text string, at syntax.Position) {
	if !f.main {
		return
	}
	_, err := f.rb.Parse(text)
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		q := f.find(p.Code, at, "%s", p.Message)
		q.Hint = p.Hint
	}
}

// threshold finds comparisons of a measurement with a number that is written into the code.
func (f *scope) threshold(cond syntax.Expr) {
	syntax.Walk(cond, func(n syntax.Node) bool {
		b, ok := n.(*syntax.BinaryExpr)
		if !ok {
			return true
		}
		switch b.Op {
		case syntax.LT, syntax.GT, syntax.LE, syntax.GE:
		default:
			return true
		}
		for _, side := range [][2]syntax.Expr{{b.X, b.Y}, {b.Y, b.X}} {
			lit, ok := side[0].(*syntax.Literal)
			if !ok || small(lit) || f.ofContext(side[1]) {
				continue
			}
			f.find(problem.LiteralThreshold, lit.TokenPos, "%s is a threshold that is written into the code", lit.Raw).
				WithHint(`make it a parameter, which has a range and a meaning: params = {"limit": param.%s(%s, doc = "...")}, and ctx.params.limit here`, paramType(lit), lit.Raw)
			break
		}
		return true
	})
}

// ofContext says whether something is what the engine counts, such as ctx.attempt, or a length: no measurement.
func (f *scope) ofContext(e syntax.Expr) bool {
	if c, ok := e.(*syntax.CallExpr); ok {
		id, ok := c.Fn.(*syntax.Ident)
		return ok && id.Name == "len"
	}
	p, ok := f.path(e)
	return ok && len(p) == 1 && p[0] == "attempt"
}

// small says whether a literal is no threshold: 0 and 1 stand for themselves, and text is none.
func small(l *syntax.Literal) bool {
	switch v := l.Value.(type) {
	case int64:
		return v >= -1 && v <= 1
	case float64:
		return v == 0 || v == 1
	}
	return true
}

func paramType(l *syntax.Literal) string {
	if _, err := strconv.ParseInt(l.Raw, 0, 64); err == nil {
		return "int"
	}
	return "float"
}

// lost finds an outcome that is not returned.
func (f *scope) lost(s *syntax.ExprStmt) {
	c, ok := s.X.(*syntax.CallExpr)
	if !ok {
		return
	}
	id, ok := c.Fn.(*syntax.Ident)
	if !ok || !slices.ContainsFunc(f.vocab.Declarations, func(fn kit.Function) bool { return fn.Name == id.Name }) {
		return
	}
	f.find(problem.UnusedResult, start(s), "the result of %s(...) is not used, so it has no effect", id.Name).
		WithHint("write return %s(...), or move it to the top level of the file", id.Name)
}

// number notes a name that holds what ctx.metrics.value answered without a default: a number, or the run would have ended.
func (f *scope) number(s *syntax.AssignStmt) {
	id, ok := s.LHS.(*syntax.Ident)
	if !ok {
		return
	}
	delete(f.numbers, id.Name)
	c, ok := s.RHS.(*syntax.CallExpr)
	if !ok {
		return
	}
	fam, fn, ok := f.called(c)
	_, given := keyword(c, "default")
	if ok && fam.Name == "metrics" && fn.Name == "value" && !given {
		if f.numbers == nil {
			f.numbers = map[string]string{}
		}
		f.numbers[id.Name] = f.name(c)
	}
}

// none finds a comparison with None that can only go one way.
func (f *scope) none(b *syntax.BinaryExpr) {
	if b.Op != syntax.EQL && b.Op != syntax.NEQ {
		return
	}
	for _, side := range [][2]syntax.Expr{{b.X, b.Y}, {b.Y, b.X}} {
		x, ok := side[0].(*syntax.Ident)
		y, both := side[1].(*syntax.Ident)
		if !ok || !both || y.Name != "None" || f.numbers[x.Name] == "" {
			continue
		}
		f.find(problem.NeverNone, start(b), "%s is never None: without data %s ends the run, and nothing is done", x.Name, f.numbers[x.Name]).
			WithHint("leave it out, or say what no data means: %s(..., default = None)", f.numbers[x.Name])
	}
}
