package project

import (
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// RunbookPolicy is what a runbook file can say about its own limits, beside the vocabulary of builtins.
func RunbookPolicy() kit.Family {
	return kit.Family{Doc: "Limits of one runbook, stricter than the project's.", Functions: []kit.Function{
		runbookPolicyFn(), rateFn(), weeklyFn(), onceFn(), protectFn(),
	}}
}

func policyFn() kit.Function {
	return kit.Function{
		Name: "policy", Kind: kit.Declare, Doc: "The limits of every runbook. A runbook may be stricter, never looser. docs/guards.md has each with its exact boundary.",
		Params: append([]kit.Param{
			{Name: "mode", Type: kit.StringT, Default: value.String("auto"), Doc: `how far any runbook may go: "shadow", "recommend", "approve" or "auto"; the more careful of this and the runbook's applies`},
			{Name: "cooldown", Type: kit.Duration, Default: value.Duration(time.Hour), Doc: "how long an action rests on a target after it started"},
			{Name: "attempts", Type: kit.Int, Default: value.Int(2), Doc: "how many attempts one problem of one target gets before a person is called"},
			{Name: "records", Type: kit.Int, Default: value.Int(100_000), Doc: "how many attempts may be on record; then nothing begins until older ones are forgotten"},
			{Name: "component", Type: kit.StringT, Default: value.String("component"), Doc: "the label of a target that names the component of which deploys are recorded: runbook change add"},
			{Name: "breaker", Type: kit.Int, Default: value.Int(3), Doc: "how many attempts, over all runbooks, that failed, were interrupted, are in doubt or were ineffective open the breaker"},
			{Name: "breaker_window", Type: kit.Duration, Default: value.Duration(time.Hour), Doc: "within how long"},
			{Name: "canaries", Type: kit.Int, Default: value.Int(3), Doc: "how many attempts must have helped, one at a time, to close it after a reset"},
		}, limitParams(true)...),
	}
}

func runbookPolicyFn() kit.Function {
	return kit.Function{
		Name: "policy", Kind: kit.Declare, Doc: "Limits of this runbook. Each may be stricter than the project's, never looser: runbook(policy = policy(...)).",
		Params: limitParams(false),
	}
}

// limitParams are the limits that a project and a runbook can set. A runbook's have no defaults: what it does not say is the project's.
func limitParams(project bool) []kit.Param {
	or := func(v value.Value) value.Value {
		if project {
			return v
		}
		return nil
	}
	rates := `how many attempts may start, over all runbooks; rate(3, per = "10m") and rate(10, per = "1h") if not given`
	if !project {
		rates = "how many attempts may start, over all runbooks, for this one to act; the project's alone if not given"
	}
	params := []kit.Param{
		{Name: "severity", Type: kit.StringT, Default: or(value.String("warning")), Doc: `the worst problem that may be acted on automatically: "info", "warning" or "critical"`},
		{Name: "rates", Type: kit.List, Record: []string{"rate"}, Doc: rates},
		{Name: "open", Type: kit.Int, Default: or(value.Int(1)), Doc: "how many attempts may be open at once"},
		{Name: "open_per_fleet", Type: kit.Int, Default: or(value.Int(1)), Doc: "how many attempts may be open at once in one fleet"},
		{Name: "fleet_share", Type: kit.Int, Default: or(value.Int(20)), Doc: "the percentage of a fleet, from 1 to 100, that may be bad at once for anything to act; rounded down, but one target always may"},
		{Name: "tested", Type: kit.Bool, Default: or(value.Bool(true)), Doc: "whether an action needs passing tests that cover it and the way to it: runbook test --attest"},
		{Name: "settle", Type: kit.Duration, Default: or(value.Duration(2 * time.Minute)), Doc: "how long a target rests after an attempt that is not verified"},
		{Name: "change_settle", Type: kit.Duration, Default: or(value.Duration(10 * time.Minute)), Doc: "how long a target rests after a deploy of its component"},
		{Name: "maintenance", Type: kit.List, Record: []string{"weekly", "once"}, Doc: "when nothing acts, on everything or on what is named; none if not given; persons add others with runbook maintenance add"},
		{Name: "protected", Type: kit.List, Record: []string{"protect"}, Doc: "what is never acted on automatically; nothing if not given"},
	}
	for i, p := range params {
		if !project && !strings.Contains(p.Doc, "if not given") {
			params[i].Doc += "; the project's if not given"
		}
	}
	return params
}

func rateFn() kit.Function {
	return kit.Function{
		Name: "rate", Kind: kit.Declare, Positional: 1, Doc: "A limit on how many attempts may start in any window of a length.",
		Params: []kit.Param{
			{Name: "count", Type: kit.Int, Required: true, Doc: "how many may start; the next one is refused"},
			{Name: "per", Type: kit.Duration, Required: true, Doc: "length of the window"},
		},
	}
}

// covers are the parameters that say what a window or a protection is about.
func covers(otherwise string) []kit.Param {
	return []kit.Param{
		{Name: "labels", Type: kit.Labels, Doc: "the labels that a target must have, all of them; " + otherwise},
		{Name: "target", Type: kit.StringT, Doc: "name or key of one target; any if not given"},
		{Name: "reason", Type: kit.StringT, Required: true, Doc: "why, for whoever is refused because of it"},
	}
}

func weeklyFn() kit.Function {
	return kit.Function{
		Name: "weekly", Kind: kit.Declare, Doc: "A maintenance window that opens each week.",
		Params: append([]kit.Param{
			{Name: "days", Type: kit.Strings, Required: true, Doc: `the days on which it opens: "mon", "tue", "wed", "thu", "fri", "sat", "sun"`},
			{Name: "at", Type: kit.StringT, Required: true, Doc: `when it opens, such as "02:00", by the clock on the wall of the zone`},
			{Name: "length", Type: kit.Duration, Required: true, Doc: "how long it is open, from 1m to less than 7d"},
			zoneParam(),
		}, covers("any if not given, which without a target makes it a change freeze")...),
	}
}

func onceFn() kit.Function {
	return kit.Function{
		Name: "once", Kind: kit.Declare, Doc: "A maintenance window that is open once, such as a change freeze.",
		Params: append([]kit.Param{
			{Name: "start", Type: kit.StringT, Required: true, Doc: `the moment at which it opens, such as "2026-12-20 22:00", by the clock on the wall of the zone`},
			{Name: "end", Type: kit.StringT, Required: true, Doc: "the moment from which it is no longer open"},
			zoneParam(),
		}, covers("any if not given, which without a target makes it a change freeze")...),
	}
}

func zoneParam() kit.Param {
	return kit.Param{Name: "zone", Type: kit.StringT, Default: value.String("UTC"), Doc: "time zone, as the IANA database names it: Europe/Berlin"}
}

func protectFn() kit.Function {
	return kit.Function{
		Name: "protect", Kind: kit.Declare, Doc: "What is never acted on automatically. It names labels or a target: nothing is never taken for everything.",
		Params: covers("any if not given, and then a target is needed"),
	}
}
