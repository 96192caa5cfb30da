package action

import (
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Who takes an arrow.
const (
	ByEngine   = "engine"   // the run that owns the record
	ByPlugin   = "plugin"   // what the plugin said, in words that are definite
	ByRecovery = "recovery" // a later run, the owner being dead
	ByProbe    = "probe"    // the plugin's answer to "what became of it?"
	ByPerson   = "person"   // runbook resolve
)

// Event is something that happened to a step, or was learnt about it.
type Event struct {
	To  StepState
	By  string
	Why string

	Receipt []byte // To Begun: what a probe will need
	Child   Child  // To Begun: the process group that will act

	// Outcome belongs to every event by the plugin after BEGUN and to every event by a probe. State, By and At are filled in.
	Outcome *Outcome

	// Nonce and Person belong to every event by a person.
	Nonce  string
	Person string // user@host(terminal)
}

type stepArrow struct {
	from, to StepState
	by       []string
}

// stepArrows are all legal arrows of a step. What is not here does not happen.
var stepArrows = []stepArrow{
	{"", Reserved, []string{ByEngine}},
	{Reserved, Begun, []string{ByEngine}},
	{Reserved, NotStarted, []string{ByEngine, ByPlugin, ByRecovery}}, // the effect waits for Proceed, Proceed waits for BEGUN
	{Begun, NotStarted, []string{ByPlugin}},                          // Proceed{go: false}, acknowledged
	{Begun, Succeeded, []string{ByPlugin}},
	{Begun, NoChange, []string{ByPlugin}},
	{Begun, Failed, []string{ByPlugin}},
	{Begun, InDoubt, []string{ByEngine, ByRecovery}}, // owner dead, kill, timeout, broken stream, no Acting
	{InDoubt, ResolvedDone, []string{ByProbe, ByPerson}},
	{InDoubt, ResolvedNotDone, []string{ByProbe, ByPerson}},
	{InDoubt, Abandoned, []string{ByPerson}},
}

// Apply takes the arrow from the step's state to e.To, or returns an error and leaves the step as it was.
//
// An outcome that comes too late, because the record has moved on from the state that it belongs to, is kept in Late and changes nothing
// else; that is not an error, the caller must store the record. A probe that cannot tell is no event.
func (s *Step) Apply(e Event, at Clock) error {
	at = normal(at)
	if late, ok := s.late(e, at); ok {
		s.Late = append(slices.Clip(s.Late), late)
		return nil
	}
	if e.By == ByPerson && s.State != InDoubt {
		return problem.New(problem.NotFound, "action %s is %s, not in doubt: there is nothing to resolve", s.ID, words(s.State)).
			WithHint("runbook actions --in-doubt")
	}
	if !slices.ContainsFunc(stepArrows, func(a stepArrow) bool {
		return a.from == s.State && a.to == e.To && slices.Contains(a.by, e.By)
	}) {
		return problem.New(problem.Internal, "action %s: no arrow from %s to %s by %q", s.ID, words(s.State), words(e.To), e.By)
	}
	if err := s.check(e); err != nil {
		return err
	}

	switch e.To {
	case Reserved:
		s.ReservedAt = at
	case Begun:
		s.BegunAt, s.Receipt, s.Child = at, slices.Clone(e.Receipt), e.Child
	default:
		// Until it was resolved the effect of a step in doubt may have landed, so its end moves to then.
		s.EndedAt = at
	}
	if e.Outcome != nil {
		o := e.outcome(at)
		s.Outcome = &o
	}
	if e.By == ByPerson {
		s.Resolved = &Resolution{As: e.To, By: e.Person, Reason: e.Why, At: at.Wall}
	}
	s.State = e.To
	s.History = append(slices.Clip(s.History), Change{To: string(e.To), At: at.Wall, Why: e.Why})
	return nil
}

// LateContradicts says whether a late outcome claims that the action was done while the record says that it was not, or the
// other way round.
func (s *Step) LateContradicts() bool {
	return slices.ContainsFunc(s.Late, func(o Outcome) bool {
		return o.State.Done() && s.State.Undone() || o.State.Undone() && s.State.Done()
	})
}

// late returns the outcome of an event that belongs to a state which the step has left.
func (s *Step) late(e Event, at Clock) (Outcome, bool) {
	if e.Outcome == nil {
		return Outcome{}, false
	}
	switch {
	case e.By == ByPlugin && (e.To == Succeeded || e.To == NoChange || e.To == Failed || e.To == NotStarted):
		if s.State != InDoubt && !s.State.Settled() {
			return Outcome{}, false
		}
	case e.By == ByProbe && (e.To == ResolvedDone || e.To == ResolvedNotDone):
		if !s.State.Settled() {
			return Outcome{}, false
		}
	default:
		return Outcome{}, false
	}
	return e.outcome(at), true
}

func (e Event) outcome(at Clock) Outcome {
	o := *e.Outcome
	o.State, o.By, o.At = e.To, e.By, at.Wall
	return o
}

// check refuses a legal arrow that lacks what the record must have.
func (s *Step) check(e Event) error {
	switch {
	case e.To == Reserved && (s.Key == "" || s.Key != s.Identity.Key() || s.ID != ShortID(s.Key)):
		return problem.New(problem.Internal, "action %s: its key is not that of its identity", s.ID)
	case e.To == Reserved && s.Nonce == "":
		return problem.New(problem.Internal, "action %s: it has no nonce", s.ID)
	case e.To == InDoubt && e.Why == "":
		return problem.New(problem.Internal, "action %s: in doubt without a reason", s.ID)
	case e.Outcome == nil && (e.By == ByProbe || e.By == ByPlugin && e.To != NotStarted):
		return problem.New(problem.Internal, "action %s: %s by %s without an outcome", s.ID, words(e.To), e.By)
	case e.By != ByPerson:
		return nil
	case !sameNonce(s.Nonce, e.Nonce):
		return problem.New(problem.Usage, "the nonce is not that of action %s", s.ID).
			WithHint("read it with: runbook actions %s", s.ID)
	case e.Why == "" || e.Person == "":
		return problem.New(problem.Usage, "resolving an action needs a reason and a name").
			WithHint(`runbook resolve %s --nonce %s --as done|not-done|abandoned --reason "how you know"`, s.ID, s.Nonce)
	}
	return nil
}

// normal is the form of a moment that survives being stored.
func normal(c Clock) Clock {
	c.Wall = c.Wall.UTC().Round(0)
	return c
}

// words names a state in a message.
func words[S ~string](state S) string {
	if state == "" {
		return "nothing"
	}
	return strings.ReplaceAll(string(state), "_", " ")
}
