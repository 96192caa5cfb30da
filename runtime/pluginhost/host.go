// Package pluginhost finds, starts, supervises and ends plugin processes.
//
// Promise: a plugin gets none of the host's environment and not its stdin; it never outlives the host, also not after kill
// -9; no call, stop or start blocks beyond its deadline whatever the plugin does; an error carries the plugin's own last
// words; an action that may have happened is never reported as not started.
package pluginhost

import (
	"context"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// Connection is a named, configured use of a plugin, from project.star.
type Connection struct {
	Name   string
	Plugin string
	Config value.Dict // secrets resolved; never logged, never in argv or environment
	// Confine takes from its processes what they need not touch; nil: nothing beyond what every plugin is without.
	Confine *Confine
}

// Host starts each connection's plugin at its first use and ends all of them in Close.
type Host interface {
	// Manifest describes a plugin, without starting it if it is bundled or locked.
	Manifest(ctx context.Context, plugin string) (sdk.Manifest, error)
	Query(ctx context.Context, c Connection, function string, args value.Dict) (value.Value, error)
	// Execute begins an action and returns once the plugin has said Started or ended without it. An error means that the
	// effect has certainly not happened.
	Execute(ctx context.Context, c Connection, x Execute) (Execution, error)
	Probe(ctx context.Context, c Connection, p Probe) (ProbeResult, error)
	Close()
}

// Prestarter starts the plugin of a connection in the background, because it is going to be used. An error comes with that use.
type Prestarter interface {
	Prestart(c Connection)
}

// Releaser is a Host that can be told that nothing more will be asked of it. It begins to end what it has started; Close waits for that.
type Releaser interface {
	Release()
}

// Direct is a Host that has the samples of a metric source in this process, so that an answer need not be written down to be read again.
// What it answers is shared: nobody changes it. It is false for what has to be asked with Query.
type Direct interface {
	Series(ctx context.Context, c Connection, function string, args value.Dict) ([]kit.Series, bool, error)
}

// Execute is one action to carry out.
type Execute struct {
	Function string
	Args     value.Dict
	Target   action.Target
	Key      string // idempotency key
	Deadline time.Time
}

// Execution is an action that waits for leave to act, or acts. Methods are called in order, by one goroutine, except Kill.
type Execution interface {
	// Started returns the receipt and the process group that will act. An error means that the effect has
	// certainly not happened.
	Started() (receipt []byte, child action.Child, err error)
	// Proceed lets the plugin act and returns when it says Acting. An error means that the effect may have happened.
	Proceed(ctx context.Context) error
	// Decline tells the plugin not to act. nil means that it acknowledged: certainly no effect.
	Decline(ctx context.Context, reason string) error
	// Wait returns how the action ended. An error means that the outcome is unknown.
	Wait(ctx context.Context) (Finished, error)
	// Kill ends the plugin's process group at once.
	Kill()
}

// Finished is a definite end.
type Finished struct {
	State   action.StepState // Succeeded, NoChange or Failed
	Value   value.Value
	Message string
}

// Probe asks what became of an action.
type Probe struct {
	Function string
	Args     value.Dict
	Target   action.Target
	Key      string
	Receipt  []byte
}

// ProbeResult is the answer.
type ProbeResult struct {
	State   action.StepState // ResolvedDone, ResolvedNotDone, or InDoubt if it cannot tell
	Message string
}

// Planner tells what an action would do, for a dry run. It has no effect.
type Planner interface {
	Plan(ctx context.Context, c Connection, p Plan) (PlanResult, error)
}

// Plan asks what an action would do.
type Plan struct {
	Function string
	Args     value.Dict
	Target   action.Target
}

// PlanResult is the answer.
type PlanResult struct {
	NoChange bool
	Changes  []PlannedChange
}

// PlannedChange is one thing that an action would change.
type PlannedChange struct{ What, Before, After string }
