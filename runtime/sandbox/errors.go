package sandbox

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func asProblem(err error, p **problem.Problem) bool { return err != nil && errors.As(err, p) }

// explain turns an error of the parser, the resolver or the interpreter into one for a person.
func (s *session) explain(err error) *problem.Problem {
	stack := innermost(err)
	p := s.classify(err, stack)
	if stack != nil {
		if p.Pos == (value.Pos{}) {
			p.Pos = s.where(stack)
		}
		p.Detail = append(p.Detail, s.callers(stack)...)
	}
	return p
}

func (s *session) classify(err error, stack *starlark.EvalError) *problem.Problem {
	if s.over {
		return overSteps(s.steps)
	}
	var p *problem.Problem
	if asProblem(err, &p) {
		return p
	}
	if bad, ok := errors.AsType[syntax.Error](err); ok {
		return s.advise(problem.New(problem.Syntax, "%s", bad.Msg).At(fromSyntax(bad.Pos)))
	}
	if list, ok := errors.AsType[resolve.ErrorList](err); ok {
		return s.unresolved(list)
	}
	if stack != nil {
		p = problem.New(problem.Script, "%s", stack.Msg)
		p.Pos = s.where(stack)
		return s.advise(p)
	}
	return problem.New(problem.Script, "%s", err)
}

// innermost is the error of the frame that failed: a load wraps that of the file that it loads.
func innermost(err error) *starlark.EvalError {
	var found *starlark.EvalError
	for e := (*starlark.EvalError)(nil); errors.As(err, &e); err = e.Unwrap() {
		found = e
		if e.Unwrap() == nil {
			break
		}
	}
	return found
}

// frames are those in files, the innermost first. A call that could not begin is the caller's mistake, so
// the frame of the function that was called is left out.
func (s *session) frames(e *starlark.EvalError) []starlark.CallFrame {
	var list []starlark.CallFrame
	for _, fr := range slices.Backward(e.CallStack) {
		if s.files[fr.Pos.Filename()] != nil {
			list = append(list, fr)
		}
	}
	if len(list) > 1 && notBegun().MatchString(e.Msg) {
		return list[1:]
	}
	return list
}

var notBegun = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^function \S+ (accepts|missing|got|called)\b`) })

// where is the innermost place in a file.
func (s *session) where(e *starlark.EvalError) value.Pos {
	if list := s.frames(e); len(list) > 0 {
		return fromSyntax(list[0].Pos)
	}
	return value.Pos{}
}

// callers are the frames around the innermost one.
func (s *session) callers(e *starlark.EvalError) []string {
	var lines []string
	for i, fr := range s.frames(e) {
		if i == 0 {
			continue
		}
		in := "in " + fr.Name
		if fr.Name == "<toplevel>" {
			in = "at top level"
		}
		lines = append(lines, fmt.Sprintf("called from %s %s", fromSyntax(fr.Pos), in))
	}
	if len(lines) > 10 {
		lines = append(lines[:10], fmt.Sprintf("and %d more", len(lines)-10))
	}
	return lines
}

var undefined = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^undefined: (\w+)`) })

// unresolved reports the first error of the resolver with the nearest name over all names, the others as details.
func (s *session) unresolved(list resolve.ErrorList) *problem.Problem {
	slices.SortStableFunc(list, func(a, b resolve.Error) int {
		if a.Pos.Line != b.Pos.Line {
			return int(a.Pos.Line) - int(b.Pos.Line)
		}
		return int(a.Pos.Col) - int(b.Pos.Col)
	})
	first := s.unresolvedOne(list[0])
	for i, e := range list[1:] {
		if i == 5 {
			first.Detail = append(first.Detail, fmt.Sprintf("and %d more", len(list)-6))
			break
		}
		first.Detail = append(first.Detail, "also "+s.unresolvedOne(e).Error())
	}
	return first
}

func (s *session) unresolvedOne(e resolve.Error) *problem.Problem {
	pos := fromSyntax(e.Pos)
	m := undefined().FindStringSubmatch(e.Msg)
	if m == nil {
		return s.advise(problem.New(problem.Syntax, "%s", e.Msg).At(pos))
	}
	name := clip(m[1], 100)
	if hint, ok := pythonNames[name]; ok {
		return problem.New(problem.UnknownName, "undefined: %s", name).At(pos).WithHint("%s", hint)
	}
	for _, f := range s.vocab.Families {
		if f.Name == name {
			return problem.New(problem.UnknownName, "undefined: %s", name).At(pos).
				WithHint("write ctx.%s, in a function that is given ctx", name)
		}
	}
	return problem.New(problem.UnknownName, "undefined: %s%s", name, problem.DidYouMean(name, s.names(e.Pos))).At(pos)
}

// names are all that could be meant at a place in a file: what is predeclared, and every name that the file binds.
func (s *session) names(at syntax.Position) []string {
	var names []string
	for n := range s.predecl {
		if !strings.HasPrefix(n, "‹") {
			names = append(names, n)
		}
	}
	for n := range starlark.Universe {
		names = append(names, n)
	}
	if f := s.files[at.Filename()]; f != nil && f.tree != nil {
		syntax.Walk(f.tree, func(n syntax.Node) bool {
			if id, ok := n.(*syntax.Ident); ok && id.Binding != nil {
				if b, ok := id.Binding.(*resolve.Binding); ok && b.First != nil && b.Scope != resolve.Undefined {
					names = append(names, id.Name)
				}
			}
			return true
		})
	}
	return names
}

// advise adds what to write instead where the error comes from a habit of Python or other languages.
func (s *session) advise(p *problem.Problem) *problem.Problem {
	line := ""
	if f := s.files[p.Pos.File]; f != nil {
		n := 0
		for l := range strings.Lines(f.text) {
			if n++; n == p.Pos.Line {
				line = clip(strings.TrimRight(l, "\r\n"), 1000)
				break
			}
		}
	}
	for _, h := range habits() {
		if h.message.MatchString(p.Message) && (h.line == nil || h.line.MatchString(line)) {
			if h.say != "" {
				p.Message = h.say
			}
			p.Hint = h.hint
			return p
		}
	}
	return p
}
