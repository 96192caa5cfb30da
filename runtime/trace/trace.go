// Package trace is what a run saw and decided, and why: the record types, their codec, and the tree that `runbook explain`
// prints.
//
// A trace is complete enough to answer why an action was taken and why one was not: the trigger, the digests of source and
// policy, every query with its answer, every branch with the values compared, every guard's verdict, every message to and
// from the plugin, and the outcome. It is written once before the first action of a run begins and again when the run
// ends; a run without an end was killed. `runbook run --json` prints the same document.
package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Version is the version of the record. Fields are only ever added.
const Version = 1

// Run is one process's pass over the runbooks.
type Run struct {
	V         int                `json:"v"`
	ID        string             `json:"id"`
	Engine    string             `json:"engine"` // version of the binary
	Namespace string             `json:"namespace"`
	Owner     action.Owner       `json:"owner"`
	Trigger   string             `json:"trigger"` // "schedule", "manual" or "approval ID"
	DryRun    bool               `json:"dry_run,omitempty"`
	Started   time.Time          `json:"started"`
	Ended     time.Time          `json:"ended,omitzero"`
	Policy    string             `json:"policy"`             // digest of project.star
	Untested  bool               `json:"untested,omitempty"` // what acts needed no test
	Halt      []control.HaltInfo `json:"halt,omitempty"`
	Recovered []Recovered        `json:"recovered,omitempty"`
	Verified  []Verified         `json:"verified,omitempty"`
	Cleanups  []*Cleanup         `json:"cleanups,omitempty"`
	Runbooks  []*Runbook         `json:"runbooks"`
	// InDoubt lists every action that is in doubt when the run ends, whoever began it.
	InDoubt  []Doubt            `json:"in_doubt,omitempty"`
	Breaker  string             `json:"breaker_state,omitempty"` // where the global breaker stands when the run ends, unless it is closed
	Problems []*problem.Problem `json:"problems,omitempty"`      // that belong to no runbook
	Exit     problem.Exit       `json:"exit"`
}

// Recovered is one record of a dead process that this run brought to an end.
type Recovered struct {
	Attempt string           `json:"attempt"`
	Step    string           `json:"step"`
	Action  string           `json:"action"`
	Target  string           `json:"target"`
	Runbook string           `json:"runbook"`
	To      action.StepState `json:"to"`
	Why     string           `json:"why"`
}

// Cleanup is one evaluation of cleanup(ctx), for an attempt that ended early.
type Cleanup struct {
	Attempt    string              `json:"attempt"`
	Runbook    string              `json:"runbook"`
	Path       string              `json:"path"`
	Target     string              `json:"target"`
	State      action.CleanupState `json:"state"` // when the run ended
	Why        string              `json:"why"`   // why the attempt ended early
	Name       string              `json:"name,omitempty"`
	Labels     map[string]string   `json:"labels,omitempty"`
	Digest     string              `json:"digest,omitempty"` // of the source closure that the attempt was made by
	Params     value.Dict          `json:"params,omitempty"`
	Steps      value.List          `json:"steps,omitempty"` // ctx.steps
	Evaluation *Evaluation         `json:"evaluation"`
}

// Verified is a judgement of whether an earlier attempt helped.
type Verified struct {
	Attempt string              `json:"attempt"`
	Runbook string              `json:"runbook"`
	Target  string              `json:"target"`
	State   action.AttemptState `json:"state"` // "complete" while it is too early to tell
	Detail  string              `json:"detail"`
}

// Doubt is an action in doubt and what closes it.
type Doubt struct {
	Step    string    `json:"step"`
	Action  string    `json:"action"`
	Target  string    `json:"target"`
	Runbook string    `json:"runbook"`
	Since   time.Time `json:"since"`
	Nonce   string    `json:"nonce"`
}

// Runbook is one runbook in a run.
type Runbook struct {
	Name    string           `json:"name"`
	Path    string           `json:"path"`
	Owner   string           `json:"owner,omitempty"`
	Mode    guard.Mode       `json:"mode,omitempty"`
	Digest  string           `json:"digest,omitempty"` // of the source closure
	Params  value.Dict       `json:"params,omitempty"`
	Due     bool             `json:"due"`
	Why     string           `json:"why"` // why it was due or not
	Symptom string           `json:"symptom,omitempty"`
	Held    string           `json:"held,omitempty"`
	Queries []*Query         `json:"queries,omitempty"` // of the fleet and the symptom
	Fleet   *Fleet           `json:"fleet,omitempty"`
	Targets []*Target        `json:"targets,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

// Fleet counts the population as it was seen.
type Fleet struct {
	Members int `json:"members"`
	Sick    int `json:"sick"`
	Pending int `json:"pending"`
	Unknown int `json:"unknown"`
	Missing int `json:"missing"`
}

// Condition is what was seen of one target.
type Condition string

// The conditions.
const (
	Healthy Condition = "healthy"
	Sick    Condition = "sick"
	Pending Condition = "pending" // the symptom is there, but has not held long enough
	Unknown Condition = "unknown" // no data, stale data, or not a number: never evidence of a problem
	Missing Condition = "missing" // was there lately and is gone
)

// Target is one target in a run.
type Target struct {
	Key        string            `json:"key"`
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"` // of targets that are not healthy
	Condition  Condition         `json:"condition"`
	Value      *float64          `json:"value,omitempty"` // the newest value of the symptom's left side
	MeasuredAt time.Time         `json:"measured_at,omitzero"`
	Why        string            `json:"why"`
	Severity   guard.Severity    `json:"severity,omitempty"` // that the alert says; the runbook's if it is about none
	Evaluation *Evaluation       `json:"evaluation,omitempty"`
}

// Outcome is how an evaluation ended.
type Outcome string

// The outcomes.
const (
	Acted        Outcome = "acted"
	Nothing      Outcome = "nothing"
	Escalated    Outcome = "escalated"
	Refused      Outcome = "refused"
	Failed       Outcome = "failed"
	DoubtRemains Outcome = "in_doubt"
	Interrupted  Outcome = "interrupted"
	Skipped      Outcome = "skipped" // not evaluated: settling, or in doubt
)

// Evaluation is one call of run(ctx) for one target.
type Evaluation struct {
	Episode string              `json:"episode,omitempty"`
	Number  int                 `json:"number"` // ctx.attempt
	Outcome Outcome             `json:"outcome"`
	Reason  string              `json:"reason,omitempty"`
	Events  []Event             `json:"events,omitempty"`
	Dropped int                 `json:"dropped,omitempty"`
	Steps   uint64              `json:"steps,omitempty"`
	Attempt string              `json:"attempt,omitempty"`
	State   action.AttemptState `json:"state,omitempty"` // of the attempt when the run ended
	Problem *problem.Problem    `json:"problem,omitempty"`
}

// Event is one thing that happened in an evaluation, in order. Exactly one of the pointers is set.
type Event struct {
	Branch *sandbox.Event `json:"branch,omitempty"`
	Query  *Query         `json:"query,omitempty"`
	Action *Action        `json:"action,omitempty"`
}

// Query is a question to the world and its answer.
type Query struct {
	Function string            `json:"function"` // "metrics.value", "symptom", "fleet"
	Expr     string            `json:"expr,omitempty"`
	Args     value.Dict        `json:"args,omitempty"`
	Where    map[string]string `json:"where,omitempty"`
	At       time.Time         `json:"at,omitzero"`
	Pos      value.Pos         `json:"pos,omitzero"`
	Answer   string            `json:"answer,omitempty"` // bounded rendering
	Error    string            `json:"error,omitempty"`
	Took     time.Duration     `json:"took"`
	// Value is the answer as the runbook got it, in the codec of package value, so that the decision can be made again. It is missing if
	// there was none, or if it was too long to keep.
	Value json.RawMessage `json:"value,omitempty"`
}

// Action is one action that a runbook asked for.
type Action struct {
	ID         string           `json:"id,omitempty"` // of the step record; empty if refused
	Action     string           `json:"action"`
	Args       value.Dict       `json:"args,omitempty"`
	Reason     string           `json:"reason"`
	Pos        value.Pos        `json:"pos"`
	Connection string           `json:"connection,omitempty"`
	Verdicts   []guard.Verdict  `json:"verdicts,omitempty"`
	Refused    bool             `json:"refused,omitempty"`
	Planned    bool             `json:"planned,omitempty"` // dry run: nothing was done
	State      action.StepState `json:"state,omitempty"`
	Message    string           `json:"message,omitempty"`
	Messages   []Message        `json:"messages,omitempty"`
	Problem    *problem.Problem `json:"problem,omitempty"`
	// Value is what the runbook got from it, as Query has it. It is missing if the evaluation ended there.
	Value json.RawMessage `json:"value,omitempty"`
}

// Message is one arrow or one message to or from the plugin.
type Message struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Sources are the digests of what was evaluated.
func (r *Run) Sources() []string {
	var out []string
	add := func(digest string) {
		if digest != "" && !slices.Contains(out, digest) {
			out = append(out, digest)
		}
	}
	for _, rb := range r.Runbooks {
		if slices.ContainsFunc(rb.Targets, func(t *Target) bool { return t.Evaluation != nil }) {
			add(rb.Digest)
		}
	}
	for _, c := range r.Cleanups {
		add(c.Digest)
	}
	return out
}

// Encode renders the durable form.
func Encode(r *Run) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the trace of run %s: %w", r.ID, err)
	}
	return b, nil
}

// Decode reads the durable form. A record of a newer version is refused, and so is one with holes, which nothing that prints it expects.
func Decode(b []byte) (*Run, error) {
	var r Run
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, damaged(err)
	}
	if r.V > Version {
		return nil, problem.New(problem.StateUnusable, "the trace of run %s has version %d, this binary knows %d", r.ID, r.V, Version).
			WithHint("use the newer runbook binary that wrote it")
	}
	if err := r.whole(); err != nil {
		return nil, damaged(err)
	}
	return &r, nil
}

func damaged(err error) error {
	return problem.Wrap(problem.StoreDamaged, err, "the trace of a run cannot be read").WithHint("runbook doctor")
}

// whole says what a record lacks.
func (r *Run) whole() error {
	if r.V < 1 || r.ID == "" {
		return errors.New("it has no version or no id")
	}
	if slices.Contains(r.Problems, nil) || slices.Contains(r.Runbooks, nil) {
		return errors.New("a problem or a runbook is empty")
	}
	for _, c := range r.Cleanups {
		if c == nil || c.Evaluation == nil || slices.ContainsFunc(c.Evaluation.Events, Event.empty) {
			return errors.New("a cleanup is empty")
		}
	}
	for _, rb := range r.Runbooks {
		if slices.Contains(rb.Queries, nil) || slices.Contains(rb.Targets, nil) {
			return errors.New("a query or a target is empty")
		}
		for _, t := range rb.Targets {
			if t.Evaluation != nil && slices.ContainsFunc(t.Evaluation.Events, Event.empty) {
				return errors.New("an event is empty")
			}
		}
	}
	return nil
}

func (e Event) empty() bool { return e.Branch == nil && e.Query == nil && e.Action == nil }
