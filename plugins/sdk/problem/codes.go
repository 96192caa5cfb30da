package problem

// Code is the stable name of a kind of problem.
type Code string

// Exit is the exit code of a process that ends because of a problem.
type Exit int

// The exit codes of every command.
const (
	ExitOK          Exit = 0   // done
	ExitFailed      Exit = 1   // ran and failed
	ExitUsage       Exit = 2   // wrong usage, or a runbook or project that cannot be read
	ExitFindings    Exit = 3   // findings only
	ExitRefused     Exit = 4   // refused by a guard, halted, or waiting for a person
	ExitInternal    Exit = 5   // our fault
	ExitInterrupted Exit = 130 // interrupted by a signal
)

// The codes. Each has a line in All and a page docs/errors/<code>.md.
const (
	Usage       Code = "usage"
	Syntax      Code = "syntax"
	UnknownName Code = "unknown-name"
	Argument    Code = "argument"
	Script      Code = "script"
	Load        Code = "load"
	Limit       Code = "limit"
	Sandbox     Code = "sandbox"
	Project     Code = "project"
	Query       Code = "query"
	Recording   Code = "recording"
	// What runbook check finds in files that can be run.
	UnusedResult     Code = "unused-result"
	NoCooldown       Code = "no-cooldown"
	Unreachable      Code = "unreachable"
	QueryInLoop      Code = "query-in-loop"
	DeadLoad         Code = "dead-load"
	LiteralThreshold Code = "literal-threshold"
	LiteralSecret    Code = "literal-secret"
	NeverNone        Code = "never-none"
	NotFormatted     Code = "not-formatted"
	TestFailed       Code = "test-failed"
	NoData           Code = "no-data"
	MetricsSource    Code = "metrics-source"
	PluginMissing    Code = "plugin-missing"
	PluginChanged    Code = "plugin-changed"
	PluginFailed     Code = "plugin-failed"
	PluginTimeout    Code = "plugin-timeout"
	NoConnection     Code = "no-connection"
	StateMissing     Code = "state-missing"
	StateUnusable    Code = "state-unusable"
	StoreBusy        Code = "store-busy"
	StoreDamaged     Code = "store-damaged"
	Halted           Code = "halted"
	HaltUnsure       Code = "halt-not-confirmed"
	Refused          Code = "refused"
	InDoubt          Code = "in-doubt"
	ActionFailed     Code = "action-failed"
	Deadline         Code = "deadline"
	NotFound         Code = "not-found"
	NoticeFailed     Code = "notice-failed"
	Internal         Code = "internal"
	Interrupted      Code = "interrupted"
)

// Info describes a code.
type Info struct {
	Code  Code
	Exit  Exit
	Title string
}

// All is the list of codes: the manual of what can go wrong, in the order of a run.
func All() []Info {
	return []Info{
		{Usage, ExitUsage, "the command line is not understood"},
		{Syntax, ExitUsage, "a file is not valid Starlark"},
		{UnknownName, ExitUsage, "a name is not defined"},
		{Argument, ExitUsage, "a function was called with a wrong argument"},
		{Load, ExitUsage, "a file could not be loaded"},
		{Project, ExitUsage, "project.star is missing or says something impossible"},
		{Query, ExitUsage, "a query is not valid PromQL, or not of the shape that is needed"},
		{Recording, ExitUsage, "a recording, rules or their tests could not be read"},
		{UnusedResult, ExitFindings, "an action's result is not looked at"},
		{NoCooldown, ExitFindings, "an action says no cooldown"},
		{Unreachable, ExitFindings, "a line is never reached"},
		{QueryInLoop, ExitFindings, "a query is asked in a loop"},
		{DeadLoad, ExitFindings, "a name is loaded and never used"},
		{LiteralThreshold, ExitFindings, "a threshold is written into the code"},
		{LiteralSecret, ExitFindings, "a secret is written into the code"},
		{NeverNone, ExitFindings, "a value is compared with None that it never is"},
		{NotFormatted, ExitFindings, "a file is not as runbook fmt writes it"},
		{TestFailed, ExitFailed, "a test failed"},
		{Script, ExitFailed, "a runbook failed while it ran"},
		{Limit, ExitFailed, "a runbook used more time, memory or steps than it may"},
		{Sandbox, ExitInternal, "the worker process that evaluates runbooks could not be trusted"},
		{NoData, ExitFailed, "a query returned nothing that can be compared"},
		{MetricsSource, ExitFailed, "the metrics source did not answer properly"},
		{PluginMissing, ExitUsage, "a plugin is not known or not installed"},
		{PluginChanged, ExitUsage, "a plugin is not the one that was locked"},
		{PluginFailed, ExitFailed, "a plugin process failed"},
		{PluginTimeout, ExitFailed, "a plugin did not answer in time"},
		{NoConnection, ExitRefused, "no connection in project.star says where to act for this target"},
		{StateMissing, ExitRefused, "the state directory is missing: halted"},
		{StateUnusable, ExitInternal, "the state directory cannot be read or written"},
		{StoreBusy, ExitFailed, "another process holds the store"},
		{StoreDamaged, ExitInternal, "the store has lost records: stopped"},
		{Halted, ExitRefused, "an emergency stop is set"},
		{HaltUnsure, ExitFailed, "the stop is set, but an action may be beginning right now"},
		{Refused, ExitRefused, "a guard refused an action"},
		{InDoubt, ExitRefused, "an action began and its outcome is unknown"},
		{ActionFailed, ExitFailed, "an action was carried out and failed"},
		{Deadline, ExitFailed, "the run's deadline does not leave time for the action"},
		{NotFound, ExitUsage, "there is no such run, action or target"},
		{NoticeFailed, ExitFailed, "a notice could not be delivered yet"},
		{Internal, ExitInternal, "a bug in runbook"},
		{Interrupted, ExitInterrupted, "interrupted by a signal"},
	}
}

// ExitOf is the exit code of a code; an unknown one is our fault.
func ExitOf(c Code) Exit {
	for _, i := range All() {
		if i.Code == c {
			return i.Exit
		}
	}
	return ExitInternal
}
