package testrun

import (
	"cmp"
	"maps"
	"slices"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Coverage is what was executed of runbooks and of what they load, by file.
type Coverage map[string]*FileCoverage

// Covered is what tests executed of one runbook, and of what it loads.
type Covered struct {
	Runbook  *project.Runbook
	Coverage Coverage
}

// FileCoverage is what was executed of one file.
type FileCoverage struct {
	Statements map[int]bool         // by first line: whether it ran
	Conditions map[place]*Arms      // leaf conditions
	Actions    map[place]*ActionArm // actions that were reached
}

// place is a position within a file.
type place struct{ Line, Col int }

// Arms are a leaf condition and which ways it went.
type Arms struct {
	Source      string
	True, False bool
}

// ActionArm is an action and how it ended.
type ActionArm struct {
	Action     string
	OK, Failed bool
}

func placeOf(p value.Pos) place { return place{p.Line, p.Col} }

func (c Coverage) file(name string) *FileCoverage {
	f := c[name]
	if f == nil {
		f = &FileCoverage{Statements: map[int]bool{}, Conditions: map[place]*Arms{}, Actions: map[place]*ActionArm{}}
		c[name] = f
	}
	return f
}

// add adds what one evaluation executed.
func (c Coverage) add(list []sandbox.Coverage) {
	for _, x := range list {
		f := c.file(x.Path)
		for _, line := range x.Statements {
			f.Statements[line] = f.Statements[line] || false
		}
		for _, line := range x.Ran {
			f.Statements[line] = true
		}
		for _, a := range x.Conditions {
			f.arm(placeOf(a.Pos), Arms{a.Source, a.True, a.False})
		}
	}
}

func (f *FileCoverage) arm(at place, a Arms) {
	old := f.Conditions[at]
	if old == nil {
		old = &Arms{Source: a.Source}
		f.Conditions[at] = old
	}
	old.True, old.False = old.True || a.True, old.False || a.False
}

func (f *FileCoverage) action(at place, a ActionArm) {
	old := f.Actions[at]
	if old == nil {
		old = &ActionArm{Action: a.Action}
		f.Actions[at] = old
	}
	old.OK, old.Failed = old.OK || a.OK, old.Failed || a.Failed
}

// actions adds how the actions of an evaluation ended. One that was refused is not ok either; one that was only foreseen was neither.
func (c Coverage) actions(ev *trace.Evaluation) {
	if ev == nil {
		return
	}
	for _, e := range ev.Events {
		if a := e.Action; a != nil && a.Pos.File != "" {
			ok := a.State.Done()
			foreseen := a.Planned || a.Refused && guard.Foresees(a.Verdicts)
			c.file(a.Pos.File).action(placeOf(a.Pos), ActionArm{Action: a.Action, OK: ok, Failed: !ok && !foreseen})
		}
	}
}

// Merge adds what another one covers.
func (c Coverage) Merge(o Coverage) {
	for name, x := range o {
		f := c.file(name)
		for line, ran := range x.Statements {
			f.Statements[line] = f.Statements[line] || ran
		}
		for at, a := range x.Conditions {
			f.arm(at, *a)
		}
		for at, a := range x.Actions {
			f.action(at, *a)
		}
	}
}

// Points counts what there is to cover of a file, and what is covered: each statement, both ways of each leaf condition, and both ends of each
// action that was reached.
func (f *FileCoverage) Points() (covered, all int) {
	count := func(hits ...bool) {
		for _, hit := range hits {
			all++
			if hit {
				covered++
			}
		}
	}
	for _, ran := range f.Statements {
		count(ran)
	}
	for _, a := range f.Conditions {
		count(a.True, a.False)
	}
	for _, a := range f.Actions {
		count(a.OK, a.Failed)
	}
	return covered, all
}

// Gap is something that no test has covered.
type Gap struct {
	Pos  value.Pos `json:"pos"`
	What string    `json:"what"` // "never ran", "x > 1 was never true", "exec.run never failed"
	// NeverFailed says that it is an action that was only ever ok.
	NeverFailed bool `json:"-"`
}

// Gaps are what is not covered of a file, in order of the source.
func (c Coverage) Gaps(name string) []Gap {
	f := c.file(name)
	var out []Gap
	add := func(at place, what string) {
		out = append(out, Gap{Pos: value.Pos{File: name, Line: at.Line, Col: at.Col}, What: what})
	}
	for line, ran := range f.Statements {
		if !ran {
			add(place{Line: line}, "never ran")
		}
	}
	for at, a := range f.Conditions {
		switch {
		case !a.True && !a.False:
			add(at, a.Source+" was never evaluated")
		case !a.True:
			add(at, a.Source+" was never true")
		case !a.False:
			add(at, a.Source+" was never false")
		}
	}
	for at, a := range f.Actions {
		if !a.OK {
			add(at, a.Action+" was never ok")
		}
		if !a.Failed {
			add(at, a.Action+" never failed")
			out[len(out)-1].NeverFailed = true
		}
	}
	slices.SortFunc(out, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col), cmp.Compare(a.What, b.What))
	})
	return out
}

// Files are the names of the files, sorted.
func (c Coverage) Files() []string { return slices.Sorted(maps.Keys(c)) }
