package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/convert"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// dialect is Starlark as the language defines it, with sets: no while, no recursion, no control flow and no second
// assignment at top level.
var dialect = syntax.FileOptions{Set: true}

// engine is the other end of the pipes, as a session sees it.
type engine interface {
	load(path string, pos value.Pos) (text string, err error)
	call(wire.Call) (value.Value, error)
	events(wire.Events) error
	note(file, line int)
}

// errStopped is what an engine returns when it has ended the run for a reason of its own.
var errStopped = problem.New(problem.Internal, "stopped by the engine")

// session is one Run inside of the worker.
type session struct {
	engine  engine
	vocab   *wire.Vocabulary
	steps   uint64 // limit
	thread  *starlark.Thread
	predecl starlark.StringDict
	tracer  *tracer

	kept    map[string]*program // of the run before: what has not changed is not compiled again
	files   map[string]*file
	paths   []string // in the order of loading; the index is the file's number
	chain   []string // files that are being loaded
	records []*value.Record
	over    bool // out of steps
}

// file is one file in one run.
type file struct {
	*program
	number  int
	globals starlark.StringDict // nil while it is being loaded
}

// program is a file as it was compiled.
type program struct {
	text  string
	tree  *syntax.File
	calls map[[2]int32]*syntax.CallExpr // by the position of the opening parenthesis
	doc   string
	defs  []string
	sites *sites
	code  *starlark.Program
}

// beat is how many steps pass between two signs of life.
const beat = 50_000

func newSession(e engine, vocab *wire.Vocabulary, steps uint64, kept map[string]*program) *session {
	s := &session{engine: e, vocab: vocab, steps: steps, kept: kept, files: map[string]*file{}}
	s.tracer = &tracer{note: e.note, flush: e.events, drop: s.dropped}
	s.thread = &starlark.Thread{Name: "runbook", Load: s.load, Print: s.print}
	s.thread.SetMaxExecutionSteps(min(beat, steps))
	// Loads run on the same thread, so that there is one count of steps for all files.
	s.thread.OnMaxSteps = func(t *starlark.Thread) {
		if t.Steps >= s.steps {
			s.over = true
			t.Cancel("too many steps")
			return
		}
		e.note(-1, 0)
		t.SetMaxExecutionSteps(min(t.Steps+beat, s.steps))
	}
	s.predecl = s.predeclared()
	return s
}

// predeclared are the names that a file may use besides its own.
func (s *session) predeclared() starlark.StringDict {
	names := helpers()
	for _, fn := range s.vocab.Declarations {
		names[fn.Name] = s.declaration(fn.Name, fn)
	}
	for _, m := range s.vocab.Modules {
		members := make(map[string]starlark.Value, len(m.Functions))
		for _, fn := range m.Functions {
			members[fn.Name] = s.declaration(m.Name+"."+fn.Name, fn)
		}
		names[m.Name] = &namespace{name: m.Name, members: members}
	}
	return names
}

// declaration is the constructor of a record.
func (s *session) declaration(name string, fn kit.Function) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		fields, pos, err := s.unpack(thread, name, fn, args, kwargs)
		if err != nil {
			return nil, err
		}
		return convert.NewRecord(&value.Record{Type: name, Pos: pos, Fields: fields})
	})
}

// declared says whether a type of record is made by a declaration.
func (s *session) declared(name string) bool {
	if module, fn, ok := strings.Cut(name, "."); ok {
		for _, m := range s.vocab.Modules {
			if m.Name == module {
				_, ok := m.Lookup(fn)
				return ok
			}
		}
		return false
	}
	return slices.ContainsFunc(s.vocab.Declarations, func(f kit.Function) bool { return f.Name == name })
}

// dropped judges the value of an expression statement. A declaration at the top level of the main file is what
// the file declares; anywhere else its value would be lost without a word: escalate(...) without return
// would go on and act.
func (s *session) dropped(x starlark.Value, pos value.Pos, number int, top bool) error {
	var rec *convert.Record
	switch x := x.(type) {
	case *convert.Record:
		rec = x
	case starlark.Indexable: // [protect(x) for x in ...] as a statement
		if x.Len() > 0 {
			rec, _ = x.Index(0).(*convert.Record)
		}
		if rec != nil && s.declared(rec.Type()) {
			return problem.New(problem.Script, "a list of %s(...) has no effect", rec.Type()).At(pos).WithHint("write each %s(...) as a line of its own", rec.Type())
		}
		return nil
	}
	switch {
	case rec == nil || !s.declared(rec.Type()):
		return nil
	case !top:
		return problem.New(problem.Script, "the result of %s(...) is not used, so it has no effect", rec.Type()).At(pos).
			WithHint("write return %s(...), or move it to the top level of the file", rec.Type())
	case number != 0:
		return problem.New(problem.Load, "%s(...) has no effect in a file that is loaded", rec.Type()).At(pos).
			WithHint("move it to %s", s.paths[0])
	}
	s.records = append(s.records, rec.Value())
	return nil
}

func (s *session) print(thread *starlark.Thread, text string) {
	if err := s.tracer.print(s.callPos(thread), text); err != nil {
		thread.Cancel(err.Error())
	}
}

// load implements the load statement.
func (s *session) load(thread *starlark.Thread, module string) (starlark.StringDict, error) {
	pos := fromSyntax(thread.CallFrame(0).Pos)
	path, bad := modulePath(module)
	if bad != nil {
		return nil, bad.At(pos)
	}
	f, err := s.open(path, pos)
	if err != nil {
		return nil, err
	}
	return f.globals, nil
}

// open parses and executes a file, once.
func (s *session) open(path string, pos value.Pos) (*file, error) {
	if f, ok := s.files[path]; ok {
		if f.globals == nil {
			chain := append(s.chain[slices.Index(s.chain, path):], path)
			return nil, problem.New(problem.Load, "files load each other: %s", strings.Join(chain, " -> ")).At(pos).
				WithHint("move what both need into a third file")
		}
		return f, nil
	}
	if len(s.files) >= maxFiles {
		return nil, problem.New(problem.Limit, "more than %d files are loaded", maxFiles).At(pos)
	}
	text, err := s.engine.load(path, pos)
	if err != nil {
		return nil, err
	}
	f := &file{program: &program{text: text}, number: len(s.paths)}
	if p := s.kept[path]; p != nil && p.text == text {
		f.program = p
	}
	s.files[path] = f
	s.paths = append(s.paths, path)
	s.chain = append(s.chain, path)
	defer func() { s.chain = s.chain[:len(s.chain)-1] }()

	s.engine.note(f.number, 0)
	if f.code == nil {
		if err := f.compile(path, s.predecl.Has); err != nil {
			return nil, err
		}
	}
	names := maps.Clone(s.predecl)
	maps.Copy(names, s.tracer.hooks(s.tracer.file(f.number, f.sites)))
	globals, err := f.code.Init(s.thread, names)
	if err != nil {
		return nil, err
	}
	globals.Freeze()
	f.globals = globals
	return f, nil
}

func (p *program) compile(path string, predeclared func(name string) bool) (err error) {
	if p.tree, err = dialect.Parse(path, p.text, 0); err != nil {
		return err
	}
	p.doc, p.defs = describe(p.tree)
	p.calls = map[[2]int32]*syntax.CallExpr{}
	syntax.Walk(p.tree, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok {
			p.calls[[2]int32{c.Lparen.Line, c.Lparen.Col}] = c
		}
		return true
	})
	p.sites = rewrite(p.tree, path, p.text)
	p.code, err = starlark.FileProgram(p.tree, func(name string) bool { return isHook(name) || predeclared(name) })
	return err
}

// keptShare is which part of its memory the source may be that a worker keeps compiled from one run to the next: about a hundred times as much
// is what comes of it, and counts.
const keptShare = 2048

// programs are what the next run need not compile again, if this one was all about a few small files.
func (s *session) programs(memory int64) map[string]*program {
	kept, size := make(map[string]*program, len(s.files)), int64(0)
	for path, f := range s.files {
		kept[path] = f.program
		size += int64(len(f.text))
	}
	if size > memory/keptShare {
		return nil
	}
	return kept
}

// describe returns the docstring of a file and the names of its functions.
func describe(tree *syntax.File) (doc string, defs []string) {
	for i, stmt := range tree.Stmts {
		switch stmt := stmt.(type) {
		case *syntax.ExprStmt:
			if lit, ok := stmt.X.(*syntax.Literal); ok && i == 0 {
				doc, _ = lit.Value.(string)
			}
		case *syntax.DefStmt:
			defs = append(defs, stmt.Name.Name)
		}
	}
	return doc, defs
}

// run is the whole of a Run, after which Done can be sent.
func (s *session) run(r *wire.Run) (d wire.Done, err error) {
	f, err := s.open(r.Path, value.Pos{})
	if err != nil {
		return d, err
	}
	d.Doc, d.Defs, d.Records = f.doc, f.defs, s.records
	if r.Fn == "" {
		return d, nil
	}
	fn, ok := f.globals[r.Fn].(*starlark.Function)
	if !ok {
		return d, problem.New(problem.UnknownName, "%s has no function %s%s", r.Path, r.Fn, problem.DidYouMean(r.Fn, f.defs)).
			At(value.Pos{File: r.Path}).WithHint("write def %s(ctx):", r.Fn)
	}
	if fn.NumParams() != 1 || fn.NumKwonlyParams() > 0 {
		return d, problem.New(problem.Script, "%s must take one argument", r.Fn).At(fromSyntax(fn.Position())).WithHint("write def %s(ctx):", r.Fn)
	}
	arg, _ := fn.Param(0)
	ctx, err := s.context(r.Context, arg)
	if err != nil {
		return d, err
	}
	out, err := starlark.Call(s.thread, fn, starlark.Tuple{ctx}, nil)
	if err != nil {
		return d, err
	}
	switch out := out.(type) {
	case starlark.NoneType:
		return d, nil
	case *convert.Record:
		if s.declared(out.Type()) {
			d.Outcome = out.Value()
			return d, nil
		}
	}
	bad := problem.New(problem.Script, "%s returned a value of type %s, which is not an outcome", r.Fn, out.Type()).At(fromSyntax(fn.Position()))
	if s.declared("escalate") {
		bad.Hint = `return escalate("...") to call a person, or nothing at all`
	}
	return d, bad
}

func fromSyntax(p syntax.Position) value.Pos {
	return value.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}

// unpack matches and checks the arguments of a call, each with its position. pos is that of the call.
func (s *session) unpack(thread *starlark.Thread, name string, fn kit.Function, args starlark.Tuple, kwargs []starlark.Tuple) (fields []value.Field, pos value.Pos, err error) {
	call := s.callExpr(thread)
	pos = s.callPos(thread)
	list := make([]kit.Arg, 0, len(args)+len(kwargs))
	add := func(arg string, x starlark.Value, at value.Pos) error {
		v, err := convert.From(x)
		if err != nil {
			label := arg
			if label == "" {
				label = fmt.Sprintf("argument %d", len(list)+1)
			}
			if at == (value.Pos{}) {
				at = pos
			}
			return problem.New(problem.Argument, "%s: %s: %v", name, label, err).At(at).WithDetail("usage: " + kit.Usage(name, fn))
		}
		list = append(list, kit.Arg{Name: arg, Value: v, Pos: at})
		return nil
	}
	where := argPositions(call)
	for i, x := range args {
		if err := add("", x, where.positional(i)); err != nil {
			return nil, pos, err
		}
	}
	for _, kv := range kwargs {
		k := string(kv[0].(starlark.String))
		if err := add(k, kv[1], where.named[k]); err != nil {
			return nil, pos, err
		}
	}
	fields, err = kit.Unpack(name, fn, list)
	if p := (*problem.Problem)(nil); asProblem(err, &p) && p.Pos == (value.Pos{}) {
		p.Pos = pos
	}
	return fields, pos, err
}

// callExpr is the call that the running builtin answers, or nil if that is not written in a file.
func (s *session) callExpr(thread *starlark.Thread) *syntax.CallExpr {
	if thread.CallStackDepth() < 2 {
		return nil
	}
	at := thread.CallFrame(1).Pos
	if f := s.files[at.Filename()]; f != nil {
		return f.calls[[2]int32{at.Line, at.Col}]
	}
	return nil
}

// callPos is where the running builtin was called from.
func (s *session) callPos(thread *starlark.Thread) value.Pos {
	if c := s.callExpr(thread); c != nil {
		start, _ := c.Span()
		return fromSyntax(start)
	}
	for i := range thread.CallStackDepth() {
		if at := thread.CallFrame(i).Pos; s.files[at.Filename()] != nil {
			return fromSyntax(at)
		}
	}
	return value.Pos{}
}

type positions struct {
	ordinal []value.Pos
	named   map[string]value.Pos
}

func (p positions) positional(i int) value.Pos {
	if i < len(p.ordinal) {
		return p.ordinal[i]
	}
	return value.Pos{}
}

// argPositions are the places of the arguments that are written one by one; those of *args and **kwargs are unknown.
func argPositions(call *syntax.CallExpr) positions {
	p := positions{named: map[string]value.Pos{}}
	if call == nil {
		return p
	}
	for _, a := range call.Args {
		start, _ := a.Span()
		switch a := a.(type) {
		case *syntax.BinaryExpr:
			if name, ok := a.X.(*syntax.Ident); ok && a.Op == syntax.EQ {
				p.named[name.Name] = fromSyntax(start)
				continue
			}
		case *syntax.UnaryExpr:
			if a.Op == syntax.STAR || a.Op == syntax.STARSTAR {
				continue
			}
		}
		p.ordinal = append(p.ordinal, fromSyntax(start))
	}
	return p
}
