// Package declare is the vocabulary of a runbook file: what its top level can say, and what run(ctx)
// can return. Every function builds a record and has no effect; runtime/project gives the records their
// meaning.
package declare

import "github.com/seed1de3961f/runbook/builtins/kit"

// Families returns the declarations: the family without a name is what can be written without a prefix,
// a family with a name is what stands behind a dot.
func Families() []kit.Family {
	return []kit.Family{
		{Doc: "What a runbook says about itself, and how it ends.", Functions: []kit.Function{runbook(), every(), alert(), manual(), fleet(), single(), escalate(), nothing()}},
		{Name: "param", Doc: "Parameters: numbers and words that a runbook depends on, with the range in which they make sense.", Functions: params()},
	}
}

func runbook() kit.Function {
	return kit.Function{
		Name: "runbook", Kind: kit.Declare,
		Doc: "Declares the runbook of this file: who owns it, when it is due, what it looks at and how far it may go. A file has exactly one.",
		Params: []kit.Param{
			{Name: "owner", Type: kit.StringT, Required: true, Doc: "the team that is called when a person is needed; notification routes in project.star pick by it"},
			{Name: "trigger", Type: kit.Any, Record: []string{"every", "alert", "manual"}, Required: true, Doc: `when the runbook is due: every("1m"), alert("QueueStuck") or manual()`},
			{Name: "targets", Type: kit.Any, Record: []string{"fleet", "single"}, Required: true, Doc: "what the runbook is for and by which symptom it is sick: fleet(...) or single(...)"},
			{Name: "severity", Type: kit.StringT, Default: str("critical"), Doc: `how bad the problem is: "info", "warning" or "critical"; above the project's ceiling nothing acts automatically`},
			{Name: "mode", Type: kit.StringT, Default: str("recommend"), Doc: `how far the runbook may go: "shadow" records only, "recommend" tells a person, "approve" asks one first, "auto" acts; the more careful of this and the project's applies`},
			{Name: "params", Type: kit.Dict, Doc: "parameters by name, read as ctx.params.name and, in PromQL, as $name; none if not given"},
			{Name: "attempts", Type: kit.Int, Doc: "how many attempts one problem of one target gets before a person is called; the project's if not given, never more"},
			{Name: "cooldown", Type: kit.Duration, Doc: "how long an action rests on a target after it started; the project's if not given, never shorter"},
			{Name: "policy", Type: kit.Any, Record: []string{"policy"}, Doc: "the other limits of this runbook, such as policy(fleet_share = 10), each stricter than the project's; the project's if not given"},
		},
	}
}

func every() kit.Function {
	return kit.Function{
		Name: "every", Kind: kit.Declare, Positional: 1,
		Doc: "A trigger: the runbook is due once in each slot of this length. Missed slots collapse into one.",
		Params: []kit.Param{
			{Name: "interval", Type: kit.Duration, Required: true, Doc: `length of a slot, from "1s" to "7d"; the scheduler has to start runbook at least as often`},
		},
	}
}

func alert() kit.Function {
	return kit.Function{
		Name: "alert", Kind: kit.Declare, Positional: 1,
		Doc: "A trigger: the runbook is for targets about which this alert fires, in any of the project's Alertmanagers, which are asked at every run. The alert is the symptom, and so is sick = if that is given, too. Its label severity says how bad the problem is.",
		Params: []kit.Param{
			{Name: "name", Type: kit.StringT, Required: true, Doc: "the alert's name"},
			{Name: "labels", Type: kit.Labels, Doc: "labels that the alert must have; any if not given"},
		},
	}
}

func manual() kit.Function {
	return kit.Function{
		Name: "manual", Kind: kit.Declare,
		Doc: "A trigger: the runbook is due only when a person names it and its target: runbook run PATH --target T. Without sick = that person is the symptom, and every action needs expect.",
	}
}

func fleet() kit.Function {
	return kit.Function{
		Name: "fleet", Kind: kit.Declare,
		Doc: "The targets are a population that metrics know. Both queries are asked once a run for all targets, so that how widespread a problem is, is known before anything is touched.",
		Params: []kit.Param{
			{Name: "all", Type: kit.StringT, Required: true, Doc: "PromQL whose answer has one series for each member, sick or not; its labels become the target's"},
			{Name: "sick", Type: kit.StringT, Doc: "PromQL that compares a query with a number at its root; a member for which it holds is sick, a member without a value is unknown; needed with every(...), and if not given the alert or the person is the symptom"},
			{Name: "by", Type: kit.Strings, Required: true, Doc: "the label, or list of labels, that names a target; both queries must have it"},
			held(),
			{Name: "max_bad", Type: kit.Int, Doc: "how many targets may be bad at once for anything to act; the project's share of the fleet if not given, and needed for a fleet of one or two"},
		},
	}
}

func single() kit.Function {
	return kit.Function{
		Name: "single", Kind: kit.Declare, Positional: 1,
		Doc: "One target without a fleet, such as a database primary.",
		Params: []kit.Param{
			{Name: "name", Type: kit.StringT, Required: true, Doc: "name of the target; runbooks that use the same name mean the same target"},
			{Name: "labels", Type: kit.Labels, Doc: "labels of the target, by which connections are chosen; none if not given"},
			{Name: "sick", Type: kit.StringT, Doc: "PromQL that compares a query with a number at its root and gives one value; needed with every(...), and if not given the alert or the person is the symptom"},
			held(),
		},
	}
}

func held() kit.Param {
	return kit.Param{Name: "held", Type: kit.Duration, Default: dur(0), Doc: `how long the symptom must have held without a gap, such as "5m"; 0s if not given: the latest sample decides`}
}

func escalate() kit.Function {
	return kit.Function{
		Name: "escalate", Kind: kit.Declare, Positional: 1,
		Doc:    "An outcome: return it from run(ctx) to call the owner.",
		Params: []kit.Param{{Name: "reason", Type: kit.StringT, Required: true, Doc: "why a person is needed, in words; the same reason is told once a problem"}},
	}
}

func nothing() kit.Function {
	return kit.Function{
		Name: "nothing", Kind: kit.Declare, Positional: 1,
		Doc:    "An outcome: return it from run(ctx) to end without an action, and to record why.",
		Params: []kit.Param{{Name: "reason", Type: kit.StringT, Required: true, Doc: "why nothing is to be done, in words"}},
	}
}
