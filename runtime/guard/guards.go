package guard

import (
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// All is the list of guards, in the order in which refusals are reported.
func All() []Guard {
	return []Guard{
		halt, mode, tested, disabled, maintenance, protected, severity, inDoubt, busy, settling, cooldown, attempts, rate, fleet, globalBreaker, records,
	}
}

// Named returns the guard of that name.
func Named(name string) (Guard, bool) {
	for _, g := range All() {
		if g.Name == name {
			return g, true
		}
	}
	return Guard{}, false
}

// Evaluate asks every guard, whatever the others say. The same Input gives the same verdicts.
func Evaluate(in Input) []Verdict {
	in.Policy = in.Policy.WithDefaults()
	all := All()
	verdicts := make([]Verdict, len(all))
	for i, g := range all {
		verdicts[i] = g.judge(in)
	}
	return verdicts
}

// judge asks one guard. Guards are written as if every request were a first step.
func (g Guard) judge(in Input) Verdict {
	if in.Cleanup {
		if !g.Cleanup {
			return Verdict{Guard: g.Name, Passed: true, Skipped: true, Measured: "not judged for a cleanup"}
		}
	} else if g.Scope == PerAttempt && in.Attempt != "" {
		return Verdict{Guard: g.Name, Passed: true, Skipped: true, Measured: "judged at the first step of attempt " + in.Attempt}
	}
	v := g.Check(in)
	v.Guard = g.Name
	v.LiftsAt = v.LiftsAt.UTC().Round(0)
	return v
}

// Refused are the verdicts that keep the action from being done; none means that it may be reserved.
func Refused(verdicts []Verdict) []Verdict {
	var refused []Verdict
	for _, v := range verdicts {
		if !v.Passed && !v.Skipped {
			refused = append(refused, v)
		}
	}
	return refused
}

// NeedsPerson says whether any of the refusals does not lift by itself, so that the owner must be told.
func NeedsPerson(verdicts []Verdict) bool {
	for _, v := range Refused(verdicts) {
		if v.Class != Passes {
			return true
		}
	}
	return false
}

// String is one line: "cooldown: exec.run started 12m ago by worker; at most once per 1h; lifts at 10:48:00Z".
func (v Verdict) String() string {
	out := v.Guard + ": " + v.Measured
	if v.Limit != "" {
		out += "; " + v.Limit
	}
	if !v.LiftsAt.IsZero() {
		out += "; lifts at " + v.LiftsAt.UTC().Format(time.RFC3339)
	}
	if v.Lifts != "" {
		out += "; " + v.Lifts
	}
	return out
}

// WithDefaults replaces what is not set. A limit below zero is nonsense and reads as not set.
func (p Policy) WithDefaults() Policy {
	d := Defaults()
	if p.Mode == "" {
		p.Mode = d.Mode
	}
	if p.SeverityCeiling == "" {
		p.SeverityCeiling = d.SeverityCeiling
	}
	if len(p.Rates) == 0 {
		p.Rates = d.Rates
	}
	for _, f := range []struct {
		field   *int
		assumed int
	}{
		{&p.Attempts, d.Attempts}, {&p.Records, d.Records}, {&p.OpenTotal, d.OpenTotal}, {&p.OpenPerFleet, d.OpenPerFleet}, {&p.FleetShare, d.FleetShare},
	} {
		if *f.field <= 0 {
			*f.field = f.assumed
		}
	}
	p.Breaker = p.Breaker.WithDefaults()
	if p.Component == "" {
		p.Component = d.Component
	}
	if p.Cooldown <= 0 {
		p.Cooldown = d.Cooldown
	}
	if p.Settle <= 0 {
		p.Settle = d.Settle
	}
	if p.ChangeSettle <= 0 {
		p.ChangeSettle = d.ChangeSettle
	}
	return p
}

func pass(limit, measured string, args ...any) Verdict {
	return Verdict{Passed: true, Limit: limit, Measured: fmt.Sprintf(measured, args...)}
}

func refuse(class Class, limit, measured string, args ...any) Verdict {
	return Verdict{Class: class, Limit: limit, Measured: fmt.Sprintf(measured, args...)}
}

// lacks refuses because the guard was not told what it needs to judge. It is our fault, so a person hears of it.
func lacks(limit, measured string, args ...any) Verdict {
	v := refuse(Person, limit, measured, args...)
	v.Lifts = "this is a fault of runbook: please report it with the output of runbook explain"
	return v
}

// since is how long ago something was, on the clock that never goes back. A record from its future is as new as can be.
func (in *Input) since(c action.Clock) time.Duration { return max(0, in.Now.Trusted-c.Trusted) }

// at is the moment of trusted time as wall time.
func (in *Input) at(trusted time.Duration) time.Time {
	return in.Now.Wall.Add(trusted - in.Now.Trusted)
}

// span is a length of time for people, cut rather than rounded, so that what is refused never reads as having reached the limit.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		d = d.Truncate(time.Hour)
	case d >= 2*time.Hour:
		d = d.Truncate(time.Minute)
	default:
		d = d.Truncate(time.Second)
	}
	return value.FormatDuration(d)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
