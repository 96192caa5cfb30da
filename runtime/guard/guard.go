// Package guard is every check in front of an action, as pure functions over one snapshot.
//
// All guards of the list are evaluated for every request and all refusals are reported, each with what was measured, the
// limit, and when it lifts. Nothing here reads a clock, the store or the world: the same Input gives the same verdicts.
// A guard that lacks what it needs to judge refuses.
package guard

import (
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
)

// Mode is how far a runbook may go on its own.
type Mode string

// The modes, from the most careful.
const (
	Shadow    Mode = "shadow"
	Recommend Mode = "recommend"
	Approve   Mode = "approve"
	Auto      Mode = "auto"
)

// Severity of a problem. The empty one reads as Critical.
type Severity string

// The severities, rising.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Policy is what project.star sets, tightened by the runbook. Zero values are replaced by Defaults before use.
type Policy struct {
	Mode            Mode           `json:"mode"`
	SeverityCeiling Severity       `json:"severity_ceiling"`
	Cooldown        time.Duration  `json:"cooldown"`
	Attempts        int            `json:"attempts"`
	Rates           []Rate         `json:"rates"`
	OpenTotal       int            `json:"open_total"`
	OpenPerFleet    int            `json:"open_per_fleet"`
	FleetShare      int            `json:"fleet_share"`        // percent
	Settle          time.Duration  `json:"settle"`             // after an attempt without verification
	Records         int            `json:"records"`            // attempts on record
	ChangeSettle    time.Duration  `json:"change_settle"`      // after a deploy of the target's component
	Breaker         breaker.Policy `json:"breaker"`            // of the project: it is one for all runbooks
	Component       string         `json:"component"`          // the label that names what a deploy is of
	Untested        bool           `json:"untested,omitempty"` // an action needs no test that covers it
	// Protected is never acted on, Maintenance not while one of its windows is open.
	Protected   []Protection     `json:"protected,omitempty"`
	Maintenance []control.Window `json:"maintenance,omitempty"`
}

// Protection is what project.star says is never acted on, and why.
type Protection struct {
	control.Selector
	Reason string `json:"reason"`
}

// Rate allows Count attempts in any window of length Per.
type Rate struct {
	Count int           `json:"count"`
	Per   time.Duration `json:"per"`
}

// Defaults are the limits that ship. All guards are on.
func Defaults() Policy {
	return Policy{
		Mode: Recommend, SeverityCeiling: Warning, Cooldown: time.Hour, Attempts: 2,
		Rates:     []Rate{{3, 10 * time.Minute}, {10, time.Hour}},
		OpenTotal: 1, OpenPerFleet: 1, Records: 100_000, FleetShare: 20, Settle: 2 * time.Minute, ChangeSettle: 10 * time.Minute, Breaker: breaker.Defaults(), Component: "component",
	}
}

// Input is everything that a decision may depend on: one snapshot, one policy, one request, one moment.
type Input struct {
	Now    action.Clock
	Policy Policy
	Request
	State
}

// Request is an action that a runbook asks for.
type Request struct {
	Runbook  string
	Target   action.Target
	Fleet    FleetView
	Episode  string
	Action   string
	Cooldown time.Duration // longest of plugin and call; the policy's and the previous call's are added by the guard
	Severity Severity
	// Attempt is the id of the attempt that this step continues, "" for a first step. Guards with scope Attempt are judged
	// at the first step only.
	Attempt string
	// Cleanup says that the step belongs to the cleanup of Attempt. Only guards that say so are judged.
	Cleanup bool
	// Repeats says that this attempt has done exactly this, with these arguments, before.
	Repeats bool
	// OldestRead is when the oldest value that this decision rests on was measured; zero if nothing was read.
	OldestRead time.Time
	// Coverage is what the tests of this source cover of the way to this action.
	Coverage Coverage
}

// FleetView is the population of the target as this run saw it.
type FleetView struct {
	ID      string
	Single  bool
	MaxBad  int      // fleet(max_bad=): 0 if not said
	Members []string // target keys
	Sick    []string
	Unknown []string
	Missing []string

	index *fleetIndex
}

// State is the part of the durable state that guards read, from one snapshot.
type State struct {
	Halt     []control.HaltInfo
	Disables []control.Disable
	Windows  []control.Window // of persons; those of project.star are policy
	Breaker  breaker.Doc
	Approval *Approval     // for exactly this request, nil if nobody was asked
	Deploy   *Deploy       // the last of the target's component, nil if none is known
	Open     []OpenAttempt // every attempt that holds its target, over all runbooks
	InDoubt  []DoubtfulStep
	Cooldown Cooldown  // of (action, target)
	Started  []Started // attempts started, over all runbooks, newest last, at least as far back as the longest rate
	Episode  EpisodeState
	Last     *LastAttempt // the target's last attempt, whichever runbook made it
	Kept     int          // attempts on record
	Cooling  []string     // keys of targets acted on within their cooldown
}

// OpenAttempt is an attempt that holds its target.
type OpenAttempt struct {
	ID, Runbook, Target, Fleet string
	State                      action.AttemptState
	Since                      action.Clock
	OwnerAlive                 bool
}

// DoubtfulStep is an action in doubt.
type DoubtfulStep struct {
	ID, Action, Target, Runbook string
	Since                       action.Clock
}

// Cooldown is when the action last started on the target, whichever runbook did it, and how long it holds.
type Cooldown struct {
	StartedAt action.Clock // zero: never
	For       time.Duration
	Runbook   string
	Step      string
	Attempt   string
}

// Started is one attempt that began.
type Started struct {
	Attempt string       `json:"attempt"`
	At      action.Clock `json:"at"`
}

// EpisodeState is how often this episode was tried.
type EpisodeState struct {
	ID       string
	Attempts int // begun so far
}

// LastAttempt is the target's last attempt.
type LastAttempt struct {
	ID       string
	State    action.AttemptState
	EndedAt  action.Clock
	Verifies bool // a verdict is still to come
	// Due is when the verdict is due at the latest, wall time; zero if not known.
	Due time.Time
}

// Scope says when a guard is judged.
type Scope string

// The scopes.
const (
	PerAttempt Scope = "attempt" // at the first step
	PerStep    Scope = "step"    // at every step
)

// Class says who can lift a refusal.
type Class string

// The classes.
const (
	Passes Class = "wait"   // it lifts by itself; recorded silently
	Person Class = "person" // it needs a person: the owner is told
)

// Verdict is one guard's answer.
type Verdict struct {
	Guard    string    `json:"guard"`
	Passed   bool      `json:"passed"`
	Skipped  bool      `json:"skipped,omitempty"` // judged at the first step of the attempt
	Measured string    `json:"measured"`
	Limit    string    `json:"limit"`
	LiftsAt  time.Time `json:"lifts_at,omitzero"` // wall time, zero if unknown or never by itself
	Lifts    string    `json:"lifts,omitempty"`   // how, where time alone does not: a command to type
	Class    Class     `json:"class,omitempty"`
}

// Guard is one check.
type Guard struct {
	Name  string
	Scope Scope
	Doc   string // the rule in words, with its boundary
	Set   string // its default, and how to set it
	// Cleanup says that it is judged for steps of a cleanup too, whatever its scope.
	Cleanup bool
	Check   func(Input) Verdict
}
