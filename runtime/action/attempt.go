package action

import (
	"slices"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// AttemptEvent is something that happened to an attempt.
type AttemptEvent struct {
	To  AttemptState
	By  string // ByEngine, ByRecovery or ByPerson
	Why string
	// Steps are the records of all steps of the attempt, in order. Whoever ends or closes it must have read them in the same
	// transaction.
	Steps []Step
	// Person belongs to every event by a person: user@host(terminal).
	Person string
}

type attemptArrow struct {
	from, to AttemptState
	by       []string
}

// attemptArrows are all legal arrows of an attempt.
var attemptArrows = []attemptArrow{
	{"", Open, []string{ByEngine}},
	{Open, Complete, []string{ByEngine}},                  // the evaluation ended, its steps ok or must = False
	{Open, AttemptFailed, []string{ByEngine, ByRecovery}}, // a step failed or was refused by a guard
	{Open, Interrupted, []string{ByEngine, ByRecovery}},   // crash, deadline, halted, disabled, script error, failed query, worker death
	{Complete, Verified, []string{ByEngine, ByRecovery}},
	{Complete, Ineffective, []string{ByEngine, ByRecovery}},
	{Complete, Inconclusive, []string{ByEngine, ByRecovery}},
	{AttemptFailed, Closed, []string{ByEngine, ByRecovery, ByPerson}},
	{Interrupted, Closed, []string{ByEngine, ByRecovery, ByPerson}},
}

// Apply takes the arrow from the attempt's state to e.To, or returns an error and leaves the attempt as it was.
func (a *Attempt) Apply(e AttemptEvent, at Clock) error {
	at = normal(at)
	if !slices.ContainsFunc(attemptArrows, func(w attemptArrow) bool {
		return w.from == a.State && w.to == e.To && slices.Contains(w.by, e.By)
	}) {
		if e.By == ByPerson {
			return problem.New(problem.NotFound, "attempt %s is %s: there is nothing to close", a.ID, words(a.State)).
				WithHint("runbook actions")
		}
		return problem.New(problem.Internal, "attempt %s: no arrow from %s to %s by %q", a.ID, words(a.State), words(e.To), e.By)
	}
	if err := a.check(e); err != nil {
		return err
	}
	switch e.To {
	case Open:
		a.OpenedAt = at
	case Complete, AttemptFailed, Interrupted, Closed:
		a.EndedAt = lastEnd(e.Steps, at)
	default:
		a.Verify.Detail = e.Why
	}
	why := e.Why
	if e.By == ByPerson {
		why = e.Person + ": " + why
	}
	a.State = e.To
	a.History = append(slices.Clip(a.History), Change{To: string(e.To), At: at.Wall, Why: why})
	return nil
}

func (a *Attempt) check(e AttemptEvent) error {
	switch e.To {
	case Open, Verified, Ineffective, Inconclusive:
		return nil
	}
	if len(e.Steps) != len(a.Steps) {
		return problem.New(problem.Internal, "attempt %s: has %d steps, %d were given", a.ID, len(a.Steps), len(e.Steps))
	}
	for i := range e.Steps {
		s := &e.Steps[i]
		if s.Key != a.Steps[i] {
			return problem.New(problem.Internal, "attempt %s: step %d is %s, %s was given", a.ID, i+1, a.Steps[i], s.Key)
		}
		switch {
		case e.To == AttemptFailed || e.To == Interrupted:
		case !s.State.Settled():
			return problem.New(problem.Refused, "attempt %s cannot be %s: its action %s is %s", a.ID, e.To, s.ID, words(s.State)).
				WithHint("see what is known of it with: runbook actions %s", s.ID)
		case !s.State.Definite() && e.By != ByPerson:
			return problem.New(problem.Refused, "attempt %s cannot be %s: its action %s was abandoned", a.ID, e.To, s.ID).
				WithHint(`once the target is as it should be: runbook resolve %s --as closed --reason "how you know"`, a.ID)
		}
	}
	if e.To == Closed && e.By != ByPerson && a.CleansUp() && Began(e.Steps) {
		return problem.New(problem.Internal, "attempt %s cannot be closed: its cleanup %s", a.ID, a.Cleanup.State)
	}
	if e.By == ByPerson && (e.Why == "" || e.Person == "") {
		return problem.New(problem.Usage, "closing an attempt needs a reason and a name").
			WithHint(`runbook resolve %s --as closed --reason "how you know"`, a.ID)
	}
	return nil
}

// Began says whether any of the steps was let begin: whether the attempt counts for attempts and rate.
func Began(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.State.Began() })
}

// lastEnd is when the last step ended, or now if one has not, or there is none.
func lastEnd(steps []Step, now Clock) Clock {
	var last Clock
	for _, s := range steps {
		if s.EndedAt.IsZero() {
			return now
		}
		if s.EndedAt.Trusted >= last.Trusted {
			last = s.EndedAt
		}
	}
	if last.IsZero() {
		return now
	}
	return last
}
