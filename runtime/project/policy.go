package project

import (
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
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
	p.OpenTotal = f.integer("open", 1, 1000)
	p.OpenPerFleet = f.integer("open_per_fleet", 1, 1000)
	p.FleetShare = f.integer("fleet_share", 1, 100)
	p.Settle = f.duration("settle", time.Millisecond, day)
	if f.has("rates") {
		p.Rates = nil
		for _, r := range f.records("rates") {
			rf := d.record(r)
			p.Rates = append(p.Rates, guard.Rate{
				Count: rf.integer("count", 0, 10_000),
				Per:   rf.duration("per", time.Second, 30*day),
			})
		}
		if len(p.Rates) == 0 {
			f.fail("rates", "is empty: there must be a limit").hint(`write rates = [rate(3, per = "10m")], or a large count`)
		}
	}
	return p
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
