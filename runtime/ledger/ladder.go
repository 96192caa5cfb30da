package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Ladder is how a runbook did over a window, so that a person can decide how far it may go: shadow, recommend, approve, auto. What happened to a
// problem is counted once for each problem, however many runs met it.
type Ladder struct {
	Runbook string     `json:"runbook"`
	Owner   string     `json:"owner,omitempty"`
	Mode    guard.Mode `json:"mode,omitempty"` // in its last run
	Runs    int        `json:"runs"`           // that looked
	// Problems are the episodes that were evaluated.
	Problems  int            `json:"problems"`
	Targets   int            `json:"targets"`
	WouldAct  int            `json:"would_act"` // problems on which every guard but the mode would have let it act
	Refused   map[string]int `json:"refused"`   // problems by guard, the mode left out
	Escalated int            `json:"escalated"` // problems for which it called a person
	Failed    int            `json:"failed"`    // problems of which the evaluation failed
	Asked     int            `json:"asked"`     // requests for approval
	Approved  int            `json:"approved"`
	Declined  int            `json:"declined"`
	Expired   int            `json:"expired"`
	Acted     int            `json:"acted"`    // attempts that began
	Outcomes  map[string]int `json:"outcomes"` // of those, by state

	problems, targets, would, escalated, failed map[string]bool
	refused                                     map[string]map[string]bool
}

// ladders collects them by runbook.
type ladders map[string]*Ladder

func (l ladders) of(runbook string) *Ladder {
	if l[runbook] == nil {
		l[runbook] = &Ladder{
			Runbook: runbook, Refused: map[string]int{}, Outcomes: map[string]int{},
			problems: map[string]bool{}, targets: map[string]bool{}, would: map[string]bool{}, escalated: map[string]bool{}, failed: map[string]bool{},
			refused: map[string]map[string]bool{},
		}
	}
	return l[runbook]
}

// run adds what one run met; runs come newest first.
func (l ladders) run(r *trace.Run) {
	if r.DryRun {
		return
	}
	for _, rb := range r.Runbooks {
		if !rb.Due {
			continue
		}
		x := l.of(rb.Name)
		if x.Runs++; x.Mode == "" {
			x.Mode, x.Owner = rb.Mode, rb.Owner
		}
		for _, t := range rb.Targets {
			if ev := t.Evaluation; ev != nil && ev.Episode != "" {
				x.evaluation(t.Key, ev)
			}
		}
	}
}

func (x *Ladder) evaluation(target string, ev *trace.Evaluation) {
	problem := target + "/" + ev.Episode
	x.problems[problem], x.targets[target] = true, true
	switch ev.Outcome {
	case trace.Escalated:
		x.escalated[problem] = true
	case trace.Failed, trace.Interrupted, trace.DoubtRemains:
		x.failed[problem] = true
	}
	for _, e := range ev.Events {
		if e.Action == nil {
			continue
		}
		if guard.ByMode(e.Action.Verdicts) {
			x.would[problem] = true
		}
		for _, v := range guard.Refused(e.Action.Verdicts) {
			if v.Guard == "mode" {
				continue
			}
			if x.refused[v.Guard] == nil {
				x.refused[v.Guard] = map[string]bool{}
			}
			x.refused[v.Guard][problem] = true
		}
		break // the first step decides; what follows it in a plan was never asked
	}
}

func (x *Ladder) count() {
	x.Problems, x.Targets, x.WouldAct, x.Escalated, x.Failed = len(x.problems), len(x.targets), len(x.would), len(x.escalated), len(x.failed)
	for name, of := range x.refused {
		x.Refused[name] = len(of)
	}
}

// maxReported bounds how many runs a report reads: a month of a run each minute.
const maxReported = 45_000

// Ladders reports every runbook over the time since a moment, by name.
func Ladders(ctx context.Context, st Records, read Clock, since time.Time) ([]*Ladder, error) {
	l := ladders{}
	runs := 0
	var bad error
	err := st.Scan(ctx, "run/", true, func(_ string, val []byte) bool {
		var r *trace.Run
		if r, bad = trace.Decode(val); bad != nil || r.Started.Before(since) {
			return false
		}
		l.run(r)
		runs++
		return runs < maxReported
	})
	if err := errors.Join(err, bad); err != nil {
		return nil, err
	}
	if err := l.attempts(ctx, st, since); err != nil {
		return nil, err
	}
	if err := l.approvals(ctx, st, read, since); err != nil {
		return nil, err
	}
	out := slices.SortedFunc(maps.Values(l), func(a, b *Ladder) int { return cmp.Compare(a.Runbook, b.Runbook) })
	for _, x := range out {
		x.count()
	}
	return out, nil
}

// attempts adds how attempts turned out. One of which nothing began is none.
func (l ladders) attempts(ctx context.Context, st Records, since time.Time) error {
	var bad error
	err := st.Scan(ctx, "attempt/", false, func(_ string, val []byte) bool {
		var a *action.Attempt
		if a, bad = action.DecodeAttempt(val); bad != nil {
			return false
		}
		state := a.State
		nothing := false
		for _, c := range a.History {
			if c.To == string(action.AttemptFailed) || c.To == string(action.Interrupted) {
				state = action.AttemptState(c.To) // closed says nothing of how it went
			}
			nothing = nothing || c.To == string(action.Closed) && strings.Contains(c.Why, nothingBegan)
		}
		if !a.OpenedAt.Wall.Before(since) && !nothing {
			x := l.of(a.Runbook)
			x.Acted++
			x.Outcomes[string(state)]++
		}
		return true
	})
	return errors.Join(err, bad)
}

func (l ladders) approvals(ctx context.Context, st Records, read Clock, since time.Time) error {
	var now action.Clock
	if err := st.View(ctx, []string{KeyClock}, func(tx store.ReadTx) (err error) {
		now, err = Moment(tx, read)
		return err
	}); err != nil {
		return err
	}
	var bad error
	err := st.Scan(ctx, "approval/", false, func(key string, val []byte) bool {
		var a guard.Approval
		if err := json.Unmarshal(val, &a); err != nil {
			bad = problem.Wrap(problem.StoreDamaged, err, "record %s cannot be read", key).WithHint("runbook doctor")
			return false
		}
		if a.AskedAt.Wall.Before(since) {
			return true
		}
		x := l.of(a.Runbook)
		x.Asked++
		switch {
		case a.Answer == guard.Approved:
			x.Approved++
		case a.Answer == guard.Declined:
			x.Declined++
		case a.Expired(now):
			x.Expired++
		}
		return true
	})
	return errors.Join(err, bad)
}
