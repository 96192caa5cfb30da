// Package ledger is what the store holds: the keys, the small documents that decisions read, and the few transactions that
// keep them in line with each other.
//
// Invariants, each kept by one function here:
//   - An attempt is in idx/open exactly while it holds its target, a step in idx/doubt exactly while it is in doubt (Put).
//   - A step has booked its cooldown, and the first of an attempt the attempt's rate and try. A step that certainly never started has
//     given its cooldown back (Charge, SettleStep), and an attempt that ended without a step that began its rate and try (EndAttempt).
//   - What went badly, held or ended is in the breaker in the transaction that records it (Put, EndAttempt, PutLate).
//   - Trusted time never goes back (Tick).
package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// The keys of the store. Records are named by what they are; idx/ holds the small documents that decisions read whole, so
// that a decision needs no range.
//
//	attempt/<id>            action.Attempt
//	step/<key>              action.Step
//	idx/open                attempts that hold their target
//	idx/doubt               steps in doubt
//	idx/kept                how many attempts are on record
//	idx/started             attempts started lately, for rates
//	idx/cooling             targets acted on within their cooldown
//	idx/controls            what persons have disabled, and their maintenance windows
//	idx/approvals           requests that still decide something
//	approval/<id>           guard.Approval, every request and its answer
//	idx/deploys             the last deploy of each component
//	change/<when>/<what>    Change, every deploy
//	control/<when>-<name>   every control that was set or lifted
//	cool/<action>/<target>  when the action last started on the target
//	last/<target>           the target's last attempt
//	episodes/<runbook>      open episodes of a runbook, by target
//	state/<runbook>/<target> what the runbook remembers about the target
//	slot/<every>/<runbook>  the last slot of its schedule that was run
//	breaker                 breaker.Doc, the global breaker
//	clock                   trusted time
//	analysis/<digest>       Analysis, the last answer to an expensive question
//	source/<digest>         Source, the files of a runbook that was evaluated
//	run/<id>                trace.Run
const (
	KeyOpen      = "idx/open"
	KeyDoubt     = "idx/doubt"
	KeyKept      = "idx/kept"
	KeyStarted   = "idx/started"
	KeyCooling   = "idx/cooling"
	KeyDeploys   = "idx/deploys"
	KeyControls  = "idx/controls"
	KeyApprovals = "idx/approvals"
	KeyBreaker   = "breaker"
	KeyClock     = "clock"
)

// KeyAttempt is the key of an attempt by its id.
func KeyAttempt(id string) string { return "attempt/" + id }

// KeyStep is the key of a step by its idempotency key, which begins with its id.
func KeyStep(key string) string { return "step/" + key }

// KeyCool is the key of the last start of an action on a target. Target keys may hold any printable character, so they
// come last.
func KeyCool(act, target string) string { return "cool/" + act + "/" + target }

// KeyLast is the key of a target's last attempt.
func KeyLast(target string) string { return "last/" + target }

// KeyEpisodes is the key of a runbook's open episodes.
func KeyEpisodes(runbook string) string { return "episodes/" + runbook }

// KeySlot is the key of the last slot of a runbook's schedule. Another interval counts its slots differently.
func KeySlot(runbook string, every time.Duration) string {
	return "slot/" + every.String() + "/" + runbook
}

// KeyState is the key of what a runbook remembers about a target: values by name.
func KeyState(runbook, target string) string { return "state/" + runbook + "/" + target }

// KeyAnalysis is the key of the last answer to an expensive question, by the digest of what was asked.
func KeyAnalysis(digest string) string { return "analysis/" + digest }

// Analysis is the last answer to an expensive question.
type Analysis struct {
	At    action.Clock `json:"at"`
	Value value.JSON   `json:"value"`
}

// KeyRun is the key of a trace by the run's id.
func KeyRun(id string) string { return "run/" + id }

// Open is an attempt that holds its target, as idx/open keeps it.
type Open struct {
	ID      string              `json:"id"`
	Runbook string              `json:"runbook"`
	Target  string              `json:"target"`
	Fleet   string              `json:"fleet"`
	State   action.AttemptState `json:"state"`
	Since   action.Clock        `json:"since"`
	Owner   action.Owner        `json:"owner"`
}

// Doubt is a step in doubt, as idx/doubt keeps it.
type Doubt struct {
	Key     string       `json:"key"`
	ID      string       `json:"id"`
	Action  string       `json:"action"`
	Target  string       `json:"target"`
	Runbook string       `json:"runbook"`
	Nonce   string       `json:"nonce"`
	Since   action.Clock `json:"since"`
	Episode string       `json:"episode"`
	Notify  string       `json:"notify,omitempty"` // who is told
}

// Cool is the last start of an action on a target. Before keeps what it replaced, so that a step that never started
// gives the cooldown back.
type Cool struct {
	StartedAt action.Clock  `json:"started_at"`
	For       time.Duration `json:"for"`
	Runbook   string        `json:"runbook"`
	Step      string        `json:"step"`
	Attempt   string        `json:"attempt"`
	Before    *Cool         `json:"before,omitempty"`
}

// Started is one attempt for the rate guard, which reads them as they are kept.
type Started = guard.Started

// Cooling is one cooldown for the fleet guard.
type Cooling struct {
	Target string        `json:"target"`
	Step   string        `json:"step"`
	At     action.Clock  `json:"at"`
	For    time.Duration `json:"for"`
}

// Last is the target's last attempt.
type Last struct {
	ID       string              `json:"id"`
	State    action.AttemptState `json:"state"`
	EndedAt  action.Clock        `json:"ended_at"`
	Verifies bool                `json:"verifies"`
	Idle     bool                `json:"idle,omitempty"` // nothing of it began: the target is as it was
	Due      time.Time           `json:"due,omitzero"`   // when the verdict is there at the latest
}

// Episode is one continuing problem of one target under one runbook.
type Episode struct {
	ID       string       `json:"id"`
	OpenedAt action.Clock `json:"opened_at"`
	Begun    int          `json:"begun"`  // attempts that began
	Number   int          `json:"number"` // of the last attempt; only grows
	SickAt   action.Clock `json:"sick_at"`
	// Healthy is how much healthy time has been observed since SickAt, up to SeenAt.
	Healthy time.Duration `json:"healthy"`
	SeenAt  action.Clock  `json:"seen_at"`
	// Refused is since when each guard has refused without a break, at every evaluation that asked for an action.
	Refused map[string]action.Clock `json:"refused,omitempty"`
}

// stable is how long a target must have been observed healthy before its episode ends.
const stable = time.Hour

// Seen is the episode after its target was looked at: sick begins it anew, healthy is added as far back as the look reaches, and neither,
// which is no data, adds nothing.
func (ep Episode) Seen(sick, healthy bool, reach time.Duration, now action.Clock) Episode {
	switch {
	case sick:
		ep.Healthy, ep.SickAt = 0, now
	case healthy:
		ep.Healthy += min(now.Trusted-ep.SeenAt.Trusted, reach)
	}
	ep.SeenAt = now
	return ep
}

// Stable says whether the target has been healthy for so long that its problem is over. A brief recovery is not.
func (ep Episode) Stable() bool { return ep.Healthy >= stable }

// Read reads a small document; an absent one is the zero value.
func Read[T any](tx store.ReadTx, key string) (T, error) {
	var v T
	b, err := tx.Get(key)
	if err != nil || b == nil {
		return v, err
	}
	return v, decode(key, b, &v)
}

func decode(key string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return problem.Wrap(problem.StoreDamaged, err, "record %s cannot be read", key).
			WithHint("run `runbook status`; the record was written by another version or is damaged")
	}
	return nil
}

// Write writes a small document.
func Write(tx store.Tx, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	tx.Put(key, b)
	return nil
}

// Clock reads the machine's clocks: clock.Read.
type Clock func() (clock.Sample, error)

// Tick advances trusted time in tx by what the machine's clocks say now and returns the moment. KeyClock is read. What has
// happened is recorded whatever the clock says; a decision to act asks Believed too.
func Tick(tx store.Tx, read Clock) (action.Clock, error) {
	next, err := advance(tx, read)
	if err != nil {
		return action.Clock{}, err
	}
	return next.Clock(), writeClock(tx, next)
}

// writeClock writes the clock and, into a store that never had one, the closed breaker: from then on a store without its breaker
// has lost it.
func writeClock(tx store.Tx, next clock.Saved) error {
	saved, err := readClock(tx)
	if err != nil {
		return err
	}
	b, err := next.Encode()
	if err != nil {
		return err
	}
	tx.Put(KeyClock, b)
	if saved.V != 0 {
		return nil
	}
	if b, err = breaker.New().Encode(); err == nil {
		tx.Put(KeyBreaker, b)
	}
	return err
}

// Moment is the time as a decision that writes nothing sees it. KeyClock is read.
func Moment(tx store.ReadTx, read Clock) (action.Clock, error) {
	next, err := advance(tx, read)
	return next.Clock(), err
}

// Believed returns nil unless the clock has jumped so far that nothing may act on it. KeyClock is read.
func Believed(tx store.ReadTx, read Clock) error {
	next, err := advance(tx, read)
	if err != nil {
		return err
	}
	return next.Problem()
}

func advance(tx store.ReadTx, read Clock) (clock.Saved, error) {
	saved, err := readClock(tx)
	if err != nil {
		return saved, err
	}
	now, err := read()
	if err != nil {
		return saved, err
	}
	next, _ := clock.Advance(saved, now)
	return next, nil
}

func readClock(tx store.ReadTx) (clock.Saved, error) {
	b, err := tx.Get(KeyClock)
	if err != nil || b == nil {
		return clock.Saved{}, err
	}
	return clock.Decode(b)
}

// AcceptClock believes the machine's clocks as they are now: a person has looked, and that is on record. It returns the clock before and after.
func AcceptClock(ctx context.Context, st store.Store, read Clock, by string, dry bool) (before, after clock.Saved, err error) {
	now, err := read()
	if err != nil {
		return before, after, err
	}
	look := func(tx store.ReadTx) error {
		saved, err := readClock(tx)
		if err != nil {
			return err
		}
		before, _ = clock.Advance(saved, now)
		after = clock.Accept(saved, now)
		return nil
	}
	if dry {
		return before, after, st.View(ctx, []string{KeyClock}, look)
	}
	err = st.Update(ctx, []string{KeyClock}, func(tx store.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		ev := ControlEvent{What: "clock accept", Name: "clock", By: by, At: after.Wall, Reason: fmt.Sprintf("%s were not believed", before.Ahead)}
		if err := Write(tx, keyControl(ev), ev); err != nil {
			return err
		}
		return writeClock(tx, after)
	})
	return before, after, err
}
