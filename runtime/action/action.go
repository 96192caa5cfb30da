// Package action is the record of what was done to a target, and its state machines, as pure functions.
//
// A step is one action; an attempt is all the steps of one evaluation for one target. The states and arrows are those of
// the diagrams in runtime/README.md, as two tables: stepArrows and attemptArrows. Nothing here reads a clock, a disk or a process.
//
// Invariants, held by Apply whatever it is given, and tested with random events:
//   - A step is BEGUN at most once. No arrow leads back to RESERVED or BEGUN, so its effect starts at most once.
//   - A settled step changes no more, but for Late: an outcome that arrives after the record has moved on is kept there.
//   - FAILED comes only from the plugin's own word. A timeout, a kill and a broken stream are IN_DOUBT.
//   - Out of IN_DOUBT leads only a probe, or a person who gives the record's nonce and a reason. Only a person abandons.
//   - An attempt is complete, or closed by the engine, only when every one of its steps has a definite end; one with an abandoned
//     step is closed by a person.
//   - An attempt whose runbook has a cleanup, and of which anything began, is closed by the engine only when that is done.
//   - An arrow that is not in its table is an error that names both states and leaves the record as it was.
//   - Every arrow taken adds one Change to History.
package action

import (
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// StepState is the state of one action.
type StepState string

// The states of a step. BEGUN means that the effect may have happened.
const (
	Reserved        StepState = "reserved"
	Begun           StepState = "begun"
	NotStarted      StepState = "not_started"
	Succeeded       StepState = "succeeded"
	NoChange        StepState = "no_change"
	Failed          StepState = "failed" // definite: the plugin says how it failed
	InDoubt         StepState = "in_doubt"
	ResolvedDone    StepState = "resolved_done"
	ResolvedNotDone StepState = "resolved_not_done"
	Abandoned       StepState = "abandoned"
)

// Settled says whether the state is a definite end.
func (s StepState) Settled() bool { return s != "" && s != Reserved && s != Begun && s != InDoubt }

// Definite says whether it is known what happened: settled, and not merely given up on.
func (s StepState) Definite() bool { return s.Settled() && s != Abandoned }

// Began says whether the effect was ever let begin. A step that did not gives back its cooldown, rate and attempt.
func (s StepState) Began() bool { return s != "" && s != Reserved && s != NotStarted }

// Done says whether the target is certainly in the state that the action asks for.
func (s StepState) Done() bool { return s == Succeeded || s == NoChange || s == ResolvedDone }

// Undone says whether the effect certainly did not happen, or not as it should.
func (s StepState) Undone() bool { return s == NotStarted || s == Failed || s == ResolvedNotDone }

// AttemptState is the state of an attempt.
type AttemptState string

// The states of an attempt.
const (
	Open          AttemptState = "open"
	Complete      AttemptState = "complete"
	Verified      AttemptState = "verified"
	Ineffective   AttemptState = "ineffective"
	Inconclusive  AttemptState = "inconclusive"
	AttemptFailed AttemptState = "failed"
	Interrupted   AttemptState = "interrupted"
	Closed        AttemptState = "closed"
)

// Holds says whether an attempt in this state keeps its target from others.
func (s AttemptState) Holds() bool {
	return s == Open || s == Complete || s == AttemptFailed || s == Interrupted
}

// Owner identifies a process on a host beyond the reuse of its pid.
type Owner struct {
	Host  string `json:"host"`
	Boot  string `json:"boot"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// Child is the process group that carries an action out.
type Child struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Group int    `json:"group"`
}

// Identity names one action for ever. Its hash is the idempotency key.
type Identity struct {
	Namespace string `json:"namespace"`
	Runbook   string `json:"runbook"`
	Target    string `json:"target"`
	Episode   string `json:"episode"`
	Attempt   int    `json:"attempt"`
	Step      int    `json:"step"`
}

// Step is the durable record of one action.
type Step struct {
	V          int           `json:"v"`  // 1
	ID         string        `json:"id"` // short name for people: the first characters of the key
	Identity   Identity      `json:"identity"`
	Key        string        `json:"key"` // the idempotency key given to the back end
	Nonce      string        `json:"nonce"`
	State      StepState     `json:"state"`
	Run        string        `json:"run"`
	Action     string        `json:"action"` // "exec.run"
	Args       value.Dict    `json:"args"`   // secrets hidden
	Reason     string        `json:"reason"`
	Connection string        `json:"connection"` // name of the connection in project.star
	Cooldown   time.Duration `json:"cooldown"`   // the one that applies: the longest of plugin, policy and call
	Timeout    time.Duration `json:"timeout"`
	Settle     time.Duration `json:"settle"`
	Pos        value.Pos     `json:"pos"`
	Source     string        `json:"source"` // digest of the source closure
	Policy     string        `json:"policy"` // digest of project.star
	Owner      Owner         `json:"owner"`
	Child      Child         `json:"child,omitzero"`
	Deadline   time.Time     `json:"deadline"`
	Cleanup    bool          `json:"cleanup,omitempty"` // asked for by cleanup(ctx)
	ReservedAt Clock         `json:"reserved_at"`
	BegunAt    Clock         `json:"begun_at,omitzero"`
	EndedAt    Clock         `json:"ended_at,omitzero"`
	Receipt    []byte        `json:"receipt,omitempty"`
	Outcome    *Outcome      `json:"outcome,omitempty"`
	Late       []Outcome     `json:"late,omitempty"` // outcomes that came after the record had moved on
	Resolved   *Resolution   `json:"resolved,omitempty"`
	History    []Change      `json:"history"` // every arrow taken
}

// Clock is one moment on the clocks that matter.
type Clock struct {
	Wall    time.Time     `json:"wall"`
	Trusted time.Duration `json:"trusted"` // persisted time that never goes back
}

// IsZero says that the moment is not set.
func (c Clock) IsZero() bool { return c.Wall.IsZero() && c.Trusted == 0 }

// Outcome is what a plugin or a probe said at the end.
type Outcome struct {
	State   StepState   `json:"state,omitempty"` // what it claims; set by Apply
	Value   value.Value `json:"-"`
	Message string      `json:"message,omitempty"`
	By      string      `json:"by"`          // one of the By words
	At      time.Time   `json:"at,omitzero"` // when it arrived; set by Apply
}

// Resolution is what a person decided about an action in doubt.
type Resolution struct {
	As     StepState `json:"as"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Change is one arrow that a step or an attempt took.
type Change struct {
	To  string    `json:"to"`
	At  time.Time `json:"at"`
	Why string    `json:"why,omitempty"`
}

// Attempt is the durable record of one attempt.
type Attempt struct {
	V         int          `json:"v"` // 1
	ID        string       `json:"id"`
	Namespace string       `json:"namespace"`
	Runbook   string       `json:"runbook"`
	Path      string       `json:"path"`
	Target    Target       `json:"target"`
	Fleet     string       `json:"fleet"` // digest of the resolved fleet selector and its by
	Episode   string       `json:"episode"`
	Number    int          `json:"number"` // 1 is the first of the episode
	Run       string       `json:"run"`
	State     AttemptState `json:"state"`
	Steps     []string     `json:"steps"`            // keys of the step records, in order
	Notify    string       `json:"notify,omitempty"` // the runbook's owner: who is told
	Owner     Owner        `json:"owner"`
	OpenedAt  Clock        `json:"opened_at"`
	EndedAt   Clock        `json:"ended_at,omitzero"` // end of the last step
	Verify    Verification `json:"verify"`
	Source    string       `json:"source,omitempty"`  // digest of the source closure, which is stored
	Cleanup   *Cleanup     `json:"cleanup,omitempty"` // of a runbook that has one
	Control   bool         `json:"control,omitempty"` // a person's control ended it: that is no failure, and does not count for the breaker
	Counted   bool         `json:"counted,omitempty"` // the breaker has been told that it went badly
	History   []Change     `json:"history"`
}

// CleanupState says how far the cleanup of an attempt that ended early is.
type CleanupState string

// The states of a cleanup. One that waits is evaluated when the attempt has ended early and all its steps are settled; one that has begun to
// act and did not end well is left to a person.
const (
	CleanupWaits  CleanupState = "waits"
	CleanupRuns   CleanupState = "runs"
	CleanupDone   CleanupState = "done"
	CleanupFailed CleanupState = "failed"
)

// Cleanup is the evaluation of cleanup(ctx) for an attempt that ended early.
type Cleanup struct {
	State CleanupState `json:"state"`
	From  int          `json:"from,omitempty"` // how many steps the attempt had before it
	Run   string       `json:"run,omitempty"`  // the last one that evaluated it
	Why   string       `json:"why,omitempty"`  // how it ended, in words
}

// CleansUp says whether an attempt waits for its cleanup, or for a person because that failed: it is not to be closed meanwhile.
func (a *Attempt) CleansUp() bool { return a.Cleanup != nil && a.Cleanup.State != CleanupDone }

// Target is what an attempt acts on.
type Target struct {
	Key    string            `json:"key"`  // "instance=w3"
	Name   string            `json:"name"` // "w3"
	Labels map[string]string `json:"labels"`
}

// Verification is all that is needed to judge the attempt later, whatever became of the runbook.
type Verification struct {
	// Expr is the left side of the symptom, Op and Threshold its comparison; the target is sick where it holds. If Expect
	// is set it is asked instead, and holds where it returns a non-zero sample for the target.
	Expr      string            `json:"expr,omitempty"`
	Op        string            `json:"op,omitempty"`
	Threshold float64           `json:"threshold,omitempty"`
	Expect    string            `json:"expect,omitempty"`
	Match     map[string]string `json:"match"` // labels that pick the target
	Held      time.Duration     `json:"held"`
	Settle    time.Duration     `json:"settle"`
	Within    time.Duration     `json:"within"`
	Sampling  time.Duration     `json:"sampling"`
	MaxAge    time.Duration     `json:"max_age"`          // a measurement older than this says nothing
	Detail    string            `json:"detail,omitempty"` // the last judgement in words
}
