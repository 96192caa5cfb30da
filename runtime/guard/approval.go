package guard

import (
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// ApprovalFor is how long a request for approval waits. After that the answer is no.
const ApprovalFor = 30 * time.Minute

// Approval is a request to let one attempt begin, and a person's answer.
type Approval struct {
	ID      string        `json:"id"`
	Runbook string        `json:"runbook"`
	Path    string        `json:"path"`
	Target  action.Target `json:"target"`
	Episode string        `json:"episode"`
	Owner   string        `json:"owner,omitempty"`
	Run     string        `json:"run"`
	// Binding is what the answer is about: source, target, first action and its arguments. Anything else is another request.
	Binding string       `json:"binding"`
	Source  string       `json:"source"` // digest of the source closure
	Steps   []Foreseen   `json:"steps"`  // of a dry evaluation; the first is what is bound
	AskedAt action.Clock `json:"asked_at"`
	// Answer is "" while it waits.
	Answer  Answer       `json:"answer,omitempty"`
	By      string       `json:"by,omitempty"`
	Why     string       `json:"why,omitempty"`
	At      action.Clock `json:"at,omitzero"`
	Attempt string       `json:"attempt,omitempty"` // that has used it up
}

// Foreseen is one step that the attempt would take.
type Foreseen struct {
	Action string     `json:"action"`
	Args   value.Dict `json:"args"` // secrets hidden
	Reason string     `json:"reason"`
}

// Answer is what a person said.
type Answer string

// The answers.
const (
	Approved Answer = "approved"
	Declined Answer = "declined"
)

// Expired says whether the request has waited for 30 minutes: at 29m59s it has not. From then on it is a no, also if it was approved and
// not used. Either clock can say so, and so does a wall clock that went back: trusted time may have missed what the machine was off for, and
// that must not make an approval last longer.
func (a Approval) Expired(now action.Clock) bool {
	trusted, wall := now.Trusted-a.AskedAt.Trusted, now.Wall.Sub(a.AskedAt.Wall)
	return trusted >= ApprovalFor || wall >= ApprovalFor || trusted < 0 || wall < -slewed
}

// slewed is by how much a wall clock is set back that is well.
const slewed = 5 * time.Second

// LiftsAt is when it expires, on the clock on the wall of now.
func (a Approval) LiftsAt(now action.Clock) time.Time {
	return now.Wall.Add(ApprovalFor - max(now.Trusted-a.AskedAt.Trusted, now.Wall.Sub(a.AskedAt.Wall)))
}

// ByMode says whether the refusals are the mode's alone: all else would let it act.
func ByMode(verdicts []Verdict) bool {
	refused := Refused(verdicts)
	return len(refused) == 1 && refused[0].Guard == "mode"
}

// Foresees says whether the refusals are those of the mode, or of an action that was never tested, alone: the rest is evaluated without
// doing it, so that a person can be told all of it.
func Foresees(verdicts []Verdict) bool {
	refused := Refused(verdicts)
	for _, v := range refused {
		if v.Guard != "mode" && v.Guard != "tested" {
			return false
		}
	}
	return len(refused) > 0
}
