// Package kit is the contract between the engine and everything that a runbook can name.
//
// A Family is one capability under ctx ("metrics", or one per plugin). It is a table: names,
// typed parameters, docs. Both processes read the same table: the worker uses it to offer the
// functions, unpack arguments and word errors with a position; the engine, in the parent, looks the
// function up again, checks the arguments again (a worker is hostile) and calls Function.Call. So a
// family's Go code never runs in the worker and never sees Starlark.
//
// Declarations (runbook, fleet, every, project, ...) are the same tables with Kind Declare: a call
// of one builds a *value.Record and has no effect.
package kit

import (
	"context"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Kind says what a function does.
type Kind string

// The kinds. The zero Kind reads as the strictest, Action.
const (
	Declare  Kind = "declare"  // builds a record, no effect
	Query    Kind = "query"    // reads the world
	Analysis Kind = "analysis" // an expensive query
	Action   Kind = "action"   // changes the world
)

// Type is the type of a parameter or result.
type Type string

// The types. Number takes int or float. Duration is written as text and arrives as value.Duration.
const (
	Any      Type = "any"
	StringT  Type = "string"
	Int      Type = "int"
	Float    Type = "float" // an int is accepted and arrives as a float
	Number   Type = "number"
	Bool     Type = "bool"
	Duration Type = "duration"
	List     Type = "list"
	Dict     Type = "dict"    // string keys
	Labels   Type = "labels"  // dict of string to string
	Strings  Type = "strings" // list of strings, or one string
)

// Param is one parameter of a function.
type Param struct {
	Name     string      `json:"name"`
	Type     Type        `json:"type"`
	Record   []string    `json:"record,omitempty"` // Type Any: only records of these types are accepted
	Required bool        `json:"required,omitzero"`
	Default  value.Value `json:"-"` // what the engine assumes when it is not given; shown in docs
	Doc      string      `json:"doc,omitempty"`
	Secret   bool        `json:"secret,omitzero"` // hidden in traces and records
}

// Function is one function of a family or one declaration.
type Function struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	Doc  string `json:"doc,omitempty"`
	// Positional is how many leading parameters may be given by position: 0 or 1, and 2 for what only tests use.
	// Everything else is keyword-only.
	Positional int     `json:"positional,omitzero"`
	Params     []Param `json:"params,omitempty"`
	Returns    Type    `json:"returns,omitempty"`
	// Target says that the call also needs ctx.target (every action does).
	// Call runs in the engine's process. It is nil for Declare and for Action: the engine carries
	// actions out itself.
	Call func(ctx context.Context, h Host, args Args) (value.Value, error) `json:"-"`
}

// Family is a named set of functions.
type Family struct {
	Name      string     `json:"name"`
	Doc       string     `json:"doc,omitempty"`
	Functions []Function `json:"functions"`
}

// Lookup returns the function of that name.
func (f Family) Lookup(name string) (Function, bool) {
	for _, fn := range f.Functions {
		if fn.Name == name {
			return fn, true
		}
	}
	return Function{}, false
}

// Args are unpacked and type-checked arguments. A parameter that was not given and has no default
// is absent.
type Args map[string]value.Value

// Host is what a family may ask of the engine while a query is answered.
type Host interface {
	// Now is the time of this run; it does not move during a run.
	Now() time.Time
	// Metrics reads the metric source of the project. Parameters ($name) and where= matchers are
	// put into the parsed expression, and the question and its answer into the trace.
	Metrics() Metrics
	// Alerts reads the Alertmanagers of the project.
	Alerts() Alerts
}

// Alerts are all Alertmanagers of the project together. An error says that one of them could not be asked.
type Alerts interface {
	// Firing are the alerts of that name, or all if it is empty, that have these labels, in order of their labels.
	Firing(ctx context.Context, name string, where map[string]string) ([]Alert, error)
}

// Alert is one that fires.
type Alert struct {
	Name        string
	Labels      map[string]string // the name included
	Annotations map[string]string
	Since       time.Time
	Updated     time.Time // when its Alertmanager was last told of it
	Silenced    bool      // by a person, or by another alert
}

// Memory is what the engine has on record. A Host that has it implements it, as the following.
type Memory interface {
	// LastAttempt is what was last done to ctx.target, nil if nothing is on record.
	LastAttempt(ctx context.Context) (*Attempt, error)
	// LastStarted is how long ago an action, such as "exec.run", last started on ctx.target, whichever runbook did it.
	LastStarted(ctx context.Context, action string) (age time.Duration, ok bool, err error)
	// LastChange is the last deploy of a component, that of ctx.target if it is empty; nil if none is on record.
	LastChange(ctx context.Context, component string) (*Change, error)
}

// Attempt is what was done to a target once.
type Attempt struct {
	Runbook string
	State   string        // "verified", "ineffective", "complete", ...
	Age     time.Duration // since it ended
	Actions []string      // in order
}

// Change is a deploy.
type Change struct {
	Component, Version string
	Going              bool
	Started            time.Time
	Ended              time.Time // zero if it is not known
}

// State is what a runbook remembers about ctx.target from one run to the next.
type State interface {
	Get(ctx context.Context, key string) (v value.Value, ok bool, err error)
	// Set is durable when it returns. value.Null forgets the key.
	Set(ctx context.Context, key string, v value.Value) error
}

// Notifier tells the runbook's owner something, once for a problem.
type Notifier interface {
	Tell(ctx context.Context, text string) error
}

// Topology is which component needs which, as topology.star says.
type Topology interface {
	// Component is that of ctx.target.
	Component() (string, error)
	// Around are the components that one needs, or that need it with down, directly and through others, the nearest first. Without a name it is
	// ctx.target that is asked about: then the components that its own labels name are among them.
	Around(component string, down bool) ([]string, error)
	// Symptom is when a component is sick.
	Symptom(component string) (Symptom, error)
}

// Symptom is when a component is sick, and how many parts of it there should be. The zero Symptom says that nothing is known.
type Symptom struct {
	Expr  string             // PromQL: what Holds judges
	Holds func(float64) bool // nil if nothing says when the component is sick
	All   string             // PromQL: its parts; empty if Expr has one answer for all of it
	By    []string           // the labels that tell the parts apart, in both
}

// Metrics is the metric source, asked at the time of the run.
type Metrics interface {
	Instant(ctx context.Context, expr string, where map[string]string) ([]Sample, error)
	Range(ctx context.Context, expr string, where map[string]string, window, step time.Duration) ([]Series, error)
}

// Sample is one element of an instant vector. Value may be NaN or infinite: the family decides.
type Sample struct {
	Labels map[string]string
	Value  float64
	// At is when the value was measured, not when it was asked for.
	At time.Time
}

// Series is one element of a range answer, points in time order.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is a value at a time.
type Point struct {
	At    time.Time
	Value float64
}

// Request is one call that a worker asks its engine to make on its behalf: "metrics.value", or an
// action of a plugin family.
type Request struct {
	Family   string
	Function string
	Args     Args
	Pos      value.Pos
}

// Caller answers a worker's requests. An error ends the evaluation: the worker does nothing after it
// but report.
type Caller interface {
	Call(ctx context.Context, req Request) (value.Value, error)
}

// ReservedAnalysisParams are the arguments that every analysis of a plugin takes and no plugin may define.
func ReservedAnalysisParams() []Param {
	return []Param{
		{Name: "cooldown", Type: Duration, Doc: "for how long the result is kept and handed out again, with its age; the longer of the plugin's and this applies, and the plugin's if not given"},
	}
}

// ReservedActionParams are the arguments that every action takes and no plugin may define.
func ReservedActionParams() []Param {
	return []Param{
		{Name: "reason", Type: StringT, Required: true, Doc: "why, in words; kept in the record and shown to people"},
		{Name: "cooldown", Type: Duration, Doc: "refuse if the same action on the same target started less than this ago; the longest of plugin, policy and this applies"},
		{Name: "timeout", Type: Duration, Doc: "how long the action may take before it is stopped and in doubt; the plugin's default if not given"},
		{Name: "expect", Type: StringT, Doc: "PromQL that holds when the action helped; default: the target is no longer sick"},
		{Name: "within", Type: Duration, Default: value.Duration(10 * time.Minute), Doc: "how long after the action the expectation may take to hold"},
		{Name: "must", Type: Bool, Default: value.Bool(true), Doc: "False returns the result instead of ending the run when the action is not ok"},
	}
}
