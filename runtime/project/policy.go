package project

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// modes in the order of guard.Mode: each may do more than the one before.
var modes = []guard.Mode{guard.Shadow, guard.Recommend, guard.Approve, guard.Auto}

var severities = []guard.Severity{guard.Info, guard.Warning, guard.Critical}

const (
	day     = 24 * time.Hour
	longest = 365 * day
)

// policy decodes policy(...); r is nil if project.star has none.
func (d *decoder) policy(r *value.Record) guard.Policy {
	p := guard.Defaults()
	p.Mode = guard.Auto // the project's is a ceiling; how far a runbook goes is said by the runbook
	if r == nil {
		return p
	}
	f := d.record(r)
	if d.err != nil {
		return p
	}
	p.Mode = oneOf(f, "mode", modes...)
	p.SeverityCeiling = oneOf(f, "severity", severities...)
	// Nothing may be 0 that the guards would take for "not said".
	p.Cooldown = f.duration("cooldown", time.Millisecond, longest)
	p.Attempts = f.integer("attempts", 1, 100)
	p.Records = f.integer("records", 1, 10_000_000)
	p.OpenTotal = f.integer("open", 1, maxOpen)
	p.OpenPerFleet = f.integer("open_per_fleet", 1, maxOpen)
	p.FleetShare = f.integer("fleet_share", 1, 100)
	p.Settle = f.duration("settle", time.Millisecond, day)
	p.ChangeSettle = f.duration("change_settle", time.Millisecond, day)
	p.Component = f.words("component")
	p.Untested = !bool(field[value.Bool](f, "tested"))
	p.Breaker.Count = f.integer("breaker", 1, 1000)
	p.Breaker.Window = f.duration("breaker_window", time.Minute, 30*day)
	p.Breaker.Canaries = f.integer("canaries", 1, 100)
	if f.has("rates") {
		p.Rates = f.rates()
	}
	p.Maintenance, p.Protected = f.windows(), f.protections()
	return p
}

const maxOpen = 1000

func (f fields) rates() []guard.Rate {
	var rates []guard.Rate
	for _, r := range f.records("rates") {
		rf := f.d.record(r)
		rates = append(rates, guard.Rate{
			Count: rf.integer("count", 0, 10_000),
			Per:   rf.duration("per", time.Second, 30*day),
		})
	}
	if len(rates) == 0 {
		f.fail("rates", "is empty: there must be a limit").hint(`write rates = [rate(3, per = "10m")], or a large count`)
	}
	return rates
}

// windows are the maintenance windows. A window that names no target covers everything, which is the careful reading.
func (f fields) windows() []control.Window {
	var out []control.Window
	for _, r := range f.records("maintenance") {
		wf := f.d.record(r)
		if f.d.err != nil {
			return nil
		}
		w := control.Window{Name: r.Type, Selector: wf.selector(), Reason: wf.words("reason"), By: r.Pos.String(), Zone: wf.text("zone")}
		w.All = w.Target == "" && len(w.Labels) == 0
		var err error
		if r.Type == "weekly" {
			w.Length = wf.duration("length", time.Minute, control.MaxWindow)
			if w.Days, err = control.ParseDays(wf.strings("days")); err != nil {
				wf.wrong("days", err)
			}
			if w.At, err = control.ParseTimeOfDay(wf.text("at")); err != nil {
				wf.wrong("at", err)
			}
		} else {
			if w.Start, err = control.ParseMoment(wf.text("start"), w.Zone); err != nil {
				wf.wrong("start", err)
			}
			if w.End, err = control.ParseMoment(wf.text("end"), w.Zone); err != nil {
				wf.wrong("end", err)
			}
		}
		if f.d.err == nil {
			if err := w.Check(); err != nil {
				f.d.fail(r.Pos, "%s: %s", r.Type, err.Error())
			}
		}
		out = append(out, w)
	}
	return out
}

// wrong keeps what is wrong with a text that another package reads.
func (f fields) wrong(name string, err error) {
	x := f.fail(name, "%s", err.Error())
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Hint != "" {
		x.hint("%s", p.Hint)
	}
}

func (f fields) protections() []guard.Protection {
	var out []guard.Protection
	for _, r := range f.records("protected") {
		pf := f.d.record(r)
		if f.d.err != nil {
			return nil
		}
		p := guard.Protection{Selector: pf.selector(), Reason: pf.words("reason")}
		if err := p.Check(); f.d.err == nil && err != nil {
			f.d.fail(r.Pos, "protect: %s", err.Error()).hint(`name what is protected: protect(labels = {"component": "db"}, reason = "...")`)
		}
		out = append(out, p)
	}
	return out
}

func (f fields) selector() control.Selector {
	s := control.Selector{Labels: f.labels("labels")}
	if f.has("target") {
		if s.Target = f.words("target"); strings.Contains(s.Target, "*") {
			f.fail("target", "has a pattern: %q", s.Target).hint("names are compared as they are; write the name itself, or labels =")
		}
	}
	return s
}

// careful is the more careful of two modes.
func careful(a, b guard.Mode) guard.Mode {
	for _, m := range modes {
		if m == a || m == b {
			return m
		}
	}
	return guard.Shadow
}

// tighten applies what a runbook says about its own limits to the project's policy. It may be stricter; a looser limit is an
// error rather than ignored, because its author believes that it holds.
func (f fields) tighten(p guard.Policy) guard.Policy {
	p.Mode = careful(p.Mode, oneOf(f, "mode", modes...))
	if f.has("attempts") {
		n := f.integer("attempts", 1, 100)
		if f.d.err == nil && n > p.Attempts {
			f.fail("attempts", "is %d, more than the project's %d", n, p.Attempts).
				hint("a runbook may be stricter than the project, not looser: raise policy(attempts=) in %s", File)
		}
		p.Attempts = n
	}
	if f.has("cooldown") {
		c := f.duration("cooldown", 0, longest)
		if f.d.err == nil && c < p.Cooldown {
			f.fail("cooldown", "is %q, shorter than the project's %q", value.FormatDuration(c), value.FormatDuration(p.Cooldown)).
				hint("a runbook may be stricter than the project, not looser: lower policy(cooldown=) in %s", File)
		}
		p.Cooldown = c
	}
	if r := f.one("policy"); r != nil {
		if pf := f.d.record(r); f.d.err == nil {
			p = pf.stricter(p)
		}
	}
	return p
}

// stricter applies a runbook's policy(...) to the project's.
func (f fields) stricter(p guard.Policy) guard.Policy {
	looser := func(name, is, than string) {
		f.fail(name, "is %s, looser than the project's %s", is, than).
			hint("a runbook may be stricter than the project, not looser: change policy(%s=) in %s", name, File)
	}
	number := func(name string, most int64, field *int) {
		if !f.has(name) {
			return
		}
		if n := f.integer(name, 1, most); f.d.err == nil {
			if n > *field {
				looser(name, strconv.Itoa(n), strconv.Itoa(*field))
			}
			*field = n
		}
	}
	number("open", maxOpen, &p.OpenTotal)
	number("open_per_fleet", maxOpen, &p.OpenPerFleet)
	number("fleet_share", 100, &p.FleetShare)
	for name, field := range map[string]*time.Duration{"settle": &p.Settle, "change_settle": &p.ChangeSettle} {
		if !f.has(name) {
			continue
		}
		if d := f.duration(name, time.Millisecond, day); f.d.err == nil {
			if d < *field {
				looser(name, value.FormatDuration(d), value.FormatDuration(*field))
			}
			*field = d
		}
	}
	if f.has("severity") {
		if s := oneOf(f, "severity", severities...); f.d.err == nil {
			if slices.Index(severities, s) > slices.Index(severities, p.SeverityCeiling) {
				looser("severity", string(s), string(p.SeverityCeiling))
			}
			p.SeverityCeiling = s
		}
	}
	if f.has("tested") {
		asked := bool(field[value.Bool](f, "tested"))
		if !asked && !p.Untested {
			looser("tested", "False", "True")
		}
		p.Untested = !asked
	}
	if f.has("rates") {
		own := f.rates()
		for _, r := range own {
			for _, theirs := range p.Rates {
				// More in a shorter time than the project allows in a longer one could never come to pass.
				if f.d.err == nil && r.Count > theirs.Count && r.Per <= theirs.Per {
					looser("rates", fmt.Sprintf("%d per %s", r.Count, value.FormatDuration(r.Per)), fmt.Sprintf("%d per %s", theirs.Count, value.FormatDuration(theirs.Per)))
				}
			}
		}
		p.Rates = slices.Concat(p.Rates, own)
	}
	p.Maintenance = slices.Concat(p.Maintenance, f.windows())
	p.Protected = slices.Concat(p.Protected, f.protections())
	return p
}

// limits decodes limits(...); a zero field means the sandbox's default.
func (d *decoder) limits(r *value.Record) sandbox.Limits {
	if r == nil {
		return sandbox.Limits{}
	}
	f := d.record(r)
	if d.err != nil {
		return sandbox.Limits{}
	}
	l := sandbox.Limits{
		Steps:      uint64(f.integer("steps", 1000, 1_000_000_000)), //nolint:gosec // checked to be positive
		Time:       f.duration("time", 100*time.Millisecond, 10*time.Minute),
		Memory:     f.size("memory", 64*mib, 4*gib),
		SourceFile: f.size("source_file", kib, maxSource),
		SourceAll:  f.size("source", kib, 4*maxSource),
	}
	if d.err == nil && l.SourceAll < l.SourceFile {
		f.fail("source", "is smaller than source_file, which it includes")
	}
	return l
}
