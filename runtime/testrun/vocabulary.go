package testrun

import (
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// The types of the records that a test is given.
const (
	typeRun         = "run"
	typeTarget      = "target"
	typeAction      = "action"
	typeNotice      = "notice"
	typeExpectation = "expectation"
)

// Vocabulary is what a file of tests may name, and what t has.
func Vocabulary() sandbox.Vocabulary {
	families := Families()
	return sandbox.Vocabulary{Declarations: families[0].Functions, Families: []kit.Family{{Functions: families[1].Functions}}, Methods: families[2:]}
}

// Families are the same tables under the names that a reference shows: the declarations of a file, t, and what t answers with.
func Families() []kit.Family {
	return []kit.Family{
		{Doc: "What a file of tests declares, besides its functions test_...(t).", Functions: []kit.Function{scenarioFn(), actionFn(kit.Declare)}},
		{Name: "t", Doc: "The test: its clock, its metrics, how actions end, and what is expected.", Functions: []kit.Function{
			nowFn(), advanceFn(), durationFn(), metricsFn(), seriesFn(), promtoolFn(), alertFn(), rulesFn(), changeFn(), fakeFn(), haltFn(), resumeFn(), runFn(), actionFn(kit.Query), expectFn(),
		}},
		{Name: typeRun, Doc: "What t.run answers: due, problem, targets and notices.", Functions: []kit.Function{targetFn()}},
		{Name: typeExpectation, Doc: "What t.expect answers. One that nothing is asked of fails the test.", Functions: []kit.Function{
			comparison("equal", "Fails the test unless the value is that one. Lists are equal in order, dicts in any."),
			comparison("differ", "Fails the test if the value is that one."),
			comparison("contain", "Fails the test unless a list has that element, a dict that key or a text that part."),
			comparison("lack", "Fails the test if a list has that element, a dict that key or a text that part."),
		}},
	}
}

func nowFn() kit.Function {
	return kit.Function{Name: "now", Kind: kit.Query, Positional: 1, Returns: kit.Any, Doc: "Returns the time of the test's clock, after setting it if a time is given. It does not go back.", Params: []kit.Param{
		{Name: "at", Type: kit.Any, Doc: `a time such as "2026-03-01T10:20:00Z", or how long after the beginning of the test, such as "20m"; the clock stays if not given`},
	}}
}

func advanceFn() kit.Function {
	return kit.Function{Name: "advance", Kind: kit.Query, Positional: 1, Doc: "Lets time pass.", Params: []kit.Param{
		{Name: "by", Type: kit.Duration, Required: true, Doc: `how long, such as "15m"`},
	}}
}

func durationFn() kit.Function {
	return kit.Function{Name: "duration", Kind: kit.Query, Positional: 1, Returns: kit.Any, Doc: "Returns a duration, for what a plugin answers.", Params: []kit.Param{
		{Name: "text", Type: kit.Duration, Required: true, Doc: `such as "90s", "20m" or "3h"`},
	}}
}

func metricsFn() kit.Function {
	return kit.Function{Name: "metrics", Kind: kit.Query, Positional: 1, Doc: "Adds a recording: what runbook record writes (.jsonl), OpenMetrics with times (.om, .txt), an answer of Prometheus' API (.json) or a table (.csv), each also packed (.gz).", Params: []kit.Param{
		{Name: "path", Type: kit.StringT, Required: true, Doc: "the file, from the test's directory, or from the project's root if it begins with //"},
		{Name: "time", Type: kit.StringT, Default: value.String("timestamp"), Doc: "of a table: the column of the time"},
		{Name: "layout", Type: kit.StringT, Doc: `of a table: how the time is written, as Go's time package has it, or "unix" or "unix_ms"; RFC 3339 if not given`},
		{Name: "values", Type: kit.Labels, Doc: "of a table: the metric that each column holds, by column; a table needs it, nothing else has it if not given"},
		{Name: "labels", Type: kit.Labels, Doc: "of a table: the label that each column holds, by column; none if not given"},
		{Name: "add", Type: kit.Labels, Doc: "of a table: labels of every series; none if not given"},
		{Name: "disorder", Type: kit.StringT, Default: value.String("refuse"), Doc: `what becomes of a sample that is older than the one before it: "refuse" or "drop"`},
	}}
}

func seriesFn() kit.Function {
	return kit.Function{Name: "series", Kind: kit.Query, Positional: 2, Doc: "Adds a series in the notation of Prometheus' unit tests.", Params: []kit.Param{
		{Name: "series", Type: kit.StringT, Required: true, Doc: `name and labels, such as queue_depth{instance="w3"}`},
		{Name: "values", Type: kit.StringT, Required: true, Doc: `its values: "10x5 2000x30", "0+10x60", "_" for no sample, "stale" for the end`},
		{Name: "step", Type: kit.Duration, Default: value.Duration(minute), Doc: "the time between two samples"},
		{Name: "start", Type: kit.Any, Doc: "when the first sample was taken, written as for t.now; the beginning of the test if not given"},
	}}
}

func promtoolFn() kit.Function {
	return kit.Function{Name: "promtool", Kind: kit.Query, Positional: 1, Doc: "Adds the input series of a unit test file of Prometheus rules, from the beginning of the test on.", Params: []kit.Param{
		{Name: "path", Type: kit.StringT, Required: true, Doc: "the file, as for t.metrics"},
		{Name: "group", Type: kit.StringT, Doc: "the name of the test group; the only one if not given"},
	}}
}

func alertFn() kit.Function {
	return kit.Function{Name: "alert", Kind: kit.Query, Positional: 1, Doc: "Lets an alert fire, in the project's first Alertmanager.", Params: []kit.Param{
		{Name: "name", Type: kit.StringT, Required: true, Doc: "the alert's name"},
		{Name: "labels", Type: kit.Labels, Doc: `its labels, such as {"instance": "w3", "severity": "warning"}; none if not given`},
		{Name: "since", Type: kit.Any, Doc: "when it began to fire, written as for t.now; now if not given"},
		{Name: "until", Type: kit.Any, Doc: "when it ends, written as for t.now; never if not given"},
		{Name: "silenced", Type: kit.Bool, Default: value.Bool(false), Doc: "whether a person has silenced it"},
	}}
}

func rulesFn() kit.Function {
	return kit.Function{Name: "rules", Kind: kit.Query, Positional: 1, Doc: "Evaluates the rules of a Prometheus rule file over the metrics of the test: alerts fire exactly when Prometheus would have fired them.", Params: []kit.Param{
		{Name: "path", Type: kit.StringT, Required: true, Doc: "the file, as for t.metrics"},
	}}
}

func changeFn() kit.Function {
	return kit.Function{Name: "change", Kind: kit.Query, Positional: 1, Doc: "Records a deploy, as a delivery pipeline would with runbook change add.", Params: []kit.Param{
		{Name: "component", Type: kit.StringT, Required: true, Doc: "the component"},
		{Name: "version", Type: kit.StringT, Doc: "what was deployed; nothing if not given"},
		{Name: "started", Type: kit.Any, Doc: "when it began, written as for t.now; now if not given"},
		{Name: "ended", Type: kit.Any, Doc: "when it ended, written as for t.now; it goes on if not given"},
	}}
}

func fakeFn() kit.Function {
	return kit.Function{Name: "fake", Kind: kit.Query, Positional: 1, Doc: "Says how a plugin's function ends from here on. Without it every action succeeds, and a query of a plugin has no answer.", Params: []kit.Param{
		{Name: "function", Type: kit.StringT, Required: true, Doc: `the function, such as "exec.run"`},
		{Name: "outcome", Type: kit.StringT, Default: value.String("ok"), Doc: `of an action: "ok", "no_change", "failed", "not_started", "timeout" or "in_doubt"; of a query or an analysis: "ok" or "failed"`},
		{Name: "value", Type: kit.Any, Doc: "what it answers; None if not given"},
		{Name: "message", Type: kit.StringT, Doc: "what the plugin says; nothing if not given"},
		{Name: "target", Type: kit.StringT, Doc: "the name of the target on which it ends so; every target if not given"},
		{Name: "times", Type: kit.Int, Doc: "how often; always if not given"},
	}}
}

func haltFn() kit.Function {
	return kit.Function{Name: "halt", Kind: kit.Query, Positional: 1, Doc: "Halts, as a person would with runbook halt.", Params: []kit.Param{
		{Name: "reason", Type: kit.StringT, Default: value.String("a test"), Doc: "why"},
	}}
}

func resumeFn() kit.Function {
	return kit.Function{Name: "resume", Kind: kit.Query, Doc: "Ends t.halt."}
}

func runFn() kit.Function {
	return kit.Function{Name: "run", Kind: kit.Query, Positional: 1, Returns: kit.Any, Doc: "Runs a runbook, as the scheduler would, and returns what came of it.", Params: []kit.Param{
		{Name: "runbook", Type: kit.StringT, Required: true, Doc: "the runbook's file, from the test's directory, or from the project's root if it begins with //"},
		{Name: "at", Type: kit.Any, Doc: "when, written as for t.now; now if not given"},
		{Name: "target", Type: kit.StringT, Doc: "the only target to look at, as with runbook run --target; all if not given"},
		{Name: "mode", Type: kit.StringT, Default: value.String("auto"), Doc: `"shadow", "recommend", "approve" or "auto", whatever the runbook and the project say`},
		{Name: "tested", Type: kit.Bool, Default: value.Bool(true), Doc: "False: the guard of that name refuses, as it does where no test has been"},
	}}
}

func targetFn() kit.Function {
	return kit.Function{Name: "target", Kind: kit.Query, Positional: 1, Returns: kit.Any, Doc: "Returns a target of the run: name, key, condition, value, outcome, reason, attempt, state, actions, states, refused and branches.", Params: []kit.Param{
		{Name: "run", Type: kit.Any, Record: []string{typeRun}, Required: true, Doc: "the run"},
		{Name: "name", Type: kit.StringT, Required: true, Doc: "its name or key"},
	}}
}

func actionFn(kind kit.Kind) kit.Function {
	return kit.Function{Name: typeAction, Kind: kind, Positional: 2, Doc: "An action that is expected. An argument that has a default need not be written; reason, cooldown and the like are not compared.", Params: []kit.Param{
		{Name: "name", Type: kit.StringT, Required: true, Doc: `the plugin and the action, such as "systemd.restart"`},
		{Name: "first", Type: kit.Any, Doc: "what the action takes by position; nothing if not given"},
		{Name: "args", Type: kit.Dict, Doc: "its other arguments by name; none if not given"},
	}}
}

func expectFn() kit.Function {
	return kit.Function{Name: "expect", Kind: kit.Query, Positional: 1, Returns: kit.Any, Doc: "Begins an expectation: t.expect(x).equal(y).", Params: []kit.Param{
		{Name: "got", Type: kit.Any, Required: true, Doc: "the value"},
	}}
}

func comparison(name, doc string) kit.Function {
	return kit.Function{Name: name, Kind: kit.Query, Positional: 1, Doc: doc, Params: []kit.Param{
		{Name: "expectation", Type: kit.Any, Record: []string{typeExpectation}, Required: true, Doc: "the expectation"},
		{Name: "want", Type: kit.Any, Required: true, Doc: "what is expected"},
	}}
}

func scenarioFn() kit.Function {
	return kit.Function{Name: "scenario", Kind: kit.Declare, Positional: 1, Doc: "A test without code: the metrics, one run, and what is expected of one target.", Params: []kit.Param{
		{Name: "name", Type: kit.StringT, Required: true, Doc: "what the test shows, in words"},
		{Name: "runbook", Type: kit.StringT, Required: true, Doc: "as for t.run"},
		{Name: "metrics", Type: kit.Strings, Doc: "recordings, as for t.metrics; none if not given"},
		{Name: "series", Type: kit.Labels, Doc: "series and their values, as for t.series; none if not given"},
		{Name: "step", Type: kit.Duration, Default: value.Duration(minute), Doc: "the time between two samples of series"},
		{Name: "fake", Type: kit.Labels, Doc: `how functions end, such as {"exec.run": "failed"}; every action succeeds if not given`},
		{Name: "at", Type: kit.Any, Required: true, Doc: "when the runbook runs, written as for t.now"},
		{Name: "mode", Type: kit.StringT, Default: value.String("auto"), Doc: "as for t.run"},
		{Name: "target", Type: kit.StringT, Required: true, Doc: "the name or key of the target that this is about"},
		{Name: "condition", Type: kit.StringT, Doc: "what the target is expected to be; not looked at if not given"},
		{Name: "outcome", Type: kit.StringT, Doc: "how the evaluation is expected to end; not looked at if not given"},
		{Name: "reason", Type: kit.StringT, Doc: "a part of the reason; not looked at if not given"},
		{Name: "refused", Type: kit.Strings, Doc: "the guards that are expected to refuse; not looked at if not given"},
		{Name: "actions", Type: kit.List, Record: []string{typeAction}, Doc: "the actions that are expected to be done, [] for none; not looked at if not given"},
	}}
}
