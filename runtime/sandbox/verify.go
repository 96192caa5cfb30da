package sandbox

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

// What a worker sends is hostile: everything here looks at it before anything else does.

// The codes that a worker may report.
var workerCodes = []problem.Code{
	problem.Syntax, problem.UnknownName, problem.Argument, problem.Script, problem.Load, problem.Limit, problem.NoData, problem.Sandbox,
}

const maxText = 4 << 10 // of any text in an event or a problem

func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrClosed) || errors.Is(err, syscall.EPIPE)
}

// known is pos if it can be a place in a file that this worker was given.
func (r *run) known(p value.Pos) value.Pos {
	text, ok := r.w.texts[p.File]
	if !ok || !r.read[p.File] {
		return value.Pos{}
	}
	if p.Line < 0 || p.Col < 0 || p.Line > strings.Count(text, "\n")+1 || p.Col > len(text)+1 {
		return value.Pos{File: p.File}
	}
	return p
}

// clean is text without what could move a terminal's cursor, of about limit bytes.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(clip(s, limit), "\uFFFD")
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, s)
}

// take keeps events.
func (r *run) take(e wire.Events) error {
	if r.reports += len(e.List); r.reports > mostEvents || e.Dropped < 0 {
		return r.refuse("it reports more than %d events", mostEvents)
	}
	for _, x := range e.List {
		if x.Kind != "branch" && x.Kind != "print" || x.Kind == "branch" && x.Result != "true" && x.Result != "false" || len(x.Values) > 2 {
			return r.refuse("it reports an event that cannot be")
		}
		if len(x.Source) > maxText || len(x.Result) > 2*maxText {
			return r.refuse("it reports an event that is too large")
		}
		out := Event{Kind: x.Kind, Pos: r.known(x.Pos), Source: clean(x.Source, maxText), Result: clean(x.Result, 2*maxText)}
		for _, v := range x.Values {
			if len(v.Source) > maxText || len(v.Value) > maxText {
				return r.refuse("it reports an event that is too large")
			}
			out.Values = append(out.Values, Seen{Source: clean(v.Source, maxText), Value: clean(v.Value, maxText)})
		}
		r.events = append(r.events, out)
	}
	r.dropped += e.Dropped
	return nil
}

// request checks a call against the vocabulary.
func (r *run) request(c wire.Call) (kit.Request, error) {
	req := kit.Request{Family: c.Family, Function: c.Function, Pos: r.known(c.Pos), Args: make(kit.Args, len(c.Args))}
	fn, ok := find(c.Family, c.Function, r.vocab.Families, r.vocab.Methods)
	if !ok {
		return req, r.refuse("it calls %s.%s, which there is not", c.Family, c.Function)
	}
	for _, e := range c.Args {
		name, ok := e.Key.(value.String)
		if !ok {
			return req, r.refuse("it calls %s.%s with an argument without a name", c.Family, c.Function)
		}
		req.Args[string(name)] = e.Value
	}
	args, err := kit.Check(fn, req.Args)
	if err != nil {
		return req, r.refuse("it calls %s.%s with arguments that it should have refused: %v", c.Family, c.Function, err)
	}
	for _, a := range args {
		if err := r.records(a); err != nil {
			return req, err
		}
	}
	req.Args = args
	return req, nil
}

// find looks a function up in tables that may name a family several times.
func find(family, function string, tables ...[]kit.Family) (kit.Function, bool) {
	for _, table := range tables {
		for _, f := range table {
			if fn, ok := f.Lookup(function); ok && f.Name == family {
				return fn, true
			}
		}
	}
	return kit.Function{}, false
}

// records checks every record in a value.
func (r *run) records(v value.Value) error {
	switch v := v.(type) {
	case value.List:
		for _, x := range v {
			if err := r.records(x); err != nil {
				return err
			}
		}
	case value.Dict:
		for _, e := range v {
			if err := r.records(e.Value); err != nil {
				return err
			}
		}
	case *value.Record:
		// A record that the engine itself answered with is data that comes back.
		if _, declared := r.declaration(v.Type); declared {
			return r.record(v)
		}
	}
	return nil
}

func (r *run) record(rec *value.Record) error {
	if err := kit.CheckRecord(rec, r.declaration); err != nil {
		return r.refuse("it declares what it should have refused: %v", err)
	}
	r.place(rec)
	return nil
}

// place corrects positions that cannot be.
func (r *run) place(rec *value.Record) {
	rec.Pos = r.known(rec.Pos)
	for i := range rec.Fields {
		rec.Fields[i].Pos = r.known(rec.Fields[i].Pos)
		switch v := rec.Fields[i].Value.(type) {
		case *value.Record:
			r.place(v)
		case value.List:
			for _, x := range v {
				if inner, ok := x.(*value.Record); ok {
					r.place(inner)
				}
			}
		case value.Dict:
			for _, e := range v {
				if inner, ok := e.Value.(*value.Record); ok {
					r.place(inner)
				}
			}
		}
	}
}

// declaration finds a declaration by its full name.
func (r *run) declaration(name string) (kit.Function, bool) {
	if module, member, ok := strings.Cut(name, "."); ok {
		for _, m := range r.vocab.Modules {
			if m.Name == module {
				fn, ok := m.Lookup(member)
				return fn, ok && fn.Kind == kit.Declare
			}
		}
		return kit.Function{}, false
	}
	for _, fn := range r.vocab.Declarations {
		if fn.Name == name {
			return fn, fn.Kind == kit.Declare
		}
	}
	return kit.Function{}, false
}

// done checks the end of a run.
func (r *run) done(m wire.Run, d wire.Done) (wire.Done, error) {
	if err := r.take(d.Events); err != nil {
		return wire.Done{}, r.instead(err)
	}
	for i := range d.Coverage {
		if err := r.covered(&d.Coverage[i]); err != nil {
			return wire.Done{Steps: d.Steps}, r.instead(err)
		}
	}
	steps := wire.Done{Steps: d.Steps, Coverage: d.Coverage}
	switch {
	case r.stop != nil:
		return steps, r.stop
	case d.Stopped:
		return steps, r.refuse("it says that it was stopped")
	case d.Problem != nil:
		return steps, r.reported(*d.Problem)
	case !r.read[m.Path]:
		return steps, r.refuse("it did not read %s", m.Path)
	case m.Fn == "" && d.Outcome != nil:
		return steps, r.refuse("loading has no outcome")
	case len(d.Doc) > int(r.w.limits.SourceFile):
		return steps, r.refuse("its docstring is longer than the file")
	}
	for _, name := range d.Defs {
		if strings.ContainsFunc(name, func(c rune) bool { return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
			return steps, r.refuse("it defines a function with an impossible name")
		}
	}
	records := d.Records
	if d.Outcome != nil {
		records = append(slices.Clone(records), d.Outcome)
	}
	for _, rec := range records {
		if err := r.record(rec); err != nil {
			return steps, err
		}
	}
	return d, nil
}

func (r *run) covered(c *wire.Coverage) error {
	if !r.read[c.Path] {
		return r.refuse("it covers a file that it was not given")
	}
	for i, a := range c.Conditions {
		c.Conditions[i].Pos = r.known(a.Pos)
		c.Conditions[i].Source = clean(a.Source, maxText)
	}
	return nil
}

// reported checks what the worker says went wrong.
func (r *run) reported(p problem.Problem) error {
	if !slices.Contains(workerCodes, p.Code) || len(p.Detail) > 40 {
		return r.refuse("it reports a problem that cannot be")
	}
	out := problem.New(p.Code, "%s", clean(p.Message, maxText)).At(r.known(p.Pos))
	out.Hint = clean(p.Hint, maxText)
	for _, d := range p.Detail {
		out.Detail = append(out.Detail, clean(d, maxText))
	}
	return out
}
