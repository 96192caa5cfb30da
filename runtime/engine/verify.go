package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// verify judges every complete attempt, whichever runbook made it and whether or not that still exists.
func (e *engine) verify(ctx context.Context) error {
	open, err := e.openAttempts(ctx)
	if err != nil {
		return err
	}
	for _, o := range open {
		if o.State != action.Complete {
			continue
		}
		a, _, err := ledger.Attempt(ctx, e.Store, o.ID)
		if err != nil {
			return err
		}
		asked, err := e.verifyAttempt(ctx, a)
		if err != nil {
			return fmt.Errorf("record the verdict on attempt %s: %w", a.ID, err)
		}
		if asked != nil { // that is no verdict
			e.problem(e.asProblem(problem.MetricsSource, asked, "verify attempt %s on %s", a.ID, a.Target.Name))
		}
	}
	return nil
}

// verifyAttempt returns in asked why the question could not be asked, which the run survives. It does not survive a verdict that could not be
// recorded: where nobody knows what the store holds, nothing may act.
func (e *engine) verifyAttempt(ctx context.Context, a *action.Attempt) (asked, err error) {
	now := e.wall()
	samples, asked := e.samplesAfter(ctx, a, now)
	state, detail, done := action.Judge(a.Verify, a.EndedAt.Wall, now, samples)
	if asked != nil {
		detail = "could not ask: " + asked.Error()
	}
	if asked != nil && (!done || now.Sub(a.EndedAt.Wall.Add(a.Verify.Within)) < askAgainFor) {
		e.run.Verified = append(e.run.Verified, trace.Verified{Attempt: a.ID, Runbook: a.Runbook, Target: a.Target.Key, State: a.State, Detail: detail})
		return asked, nil
	}
	found := trace.Verified{Attempt: a.ID, Runbook: a.Runbook, Target: a.Target.Key, State: state, Detail: detail}
	if !done || e.dry {
		e.run.Verified = append(e.run.Verified, found)
		return nil, nil
	}
	n := notify.Notice{
		Runbook: a.Runbook, Target: a.Target.Key, Episode: a.Episode, Owner: a.Notify, Run: e.run.ID, At: now,
		Kind: notify.Escalation, Reason: string(state) + ": attempt " + a.ID, Text: fmt.Sprintf("attempt %d on %s is %s: %s", a.Number, a.Target.Name, state, detail),
	}
	keys := append([]string{ledger.KeyClock, ledger.KeyAttempt(a.ID)}, ledger.PutKeys()...)
	keys = append(keys, notify.Keys(n)...)
	err = e.Store.Update(ctx, keys, func(tx store.Tx) error {
		at, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		cur, err := ledger.LoadAttempt(tx, a.ID)
		if err != nil || cur.State != action.Complete {
			return err
		}
		if err := cur.Apply(action.AttemptEvent{To: state, By: action.ByEngine, Why: detail}, at); err != nil {
			return err
		}
		if err := ledger.Put(tx, cur, nil); err != nil {
			return err
		}
		if state == action.Verified {
			return nil
		}
		return notify.Put(tx, n, at.Wall)
	})
	if err == nil {
		e.run.Verified = append(e.run.Verified, found)
	}
	return nil, err
}

// askAgainFor is how long after the deadline a source that does not answer is asked again: it remembers what it has measured, and an attempt
// without a verdict keeps its target meanwhile.
const askAgainFor = time.Hour

// samplesAfter are the measurements of the attempt's expectation for its target since the action ended, each at the time it was measured.
func (e *engine) samplesAfter(ctx context.Context, a *action.Attempt, now time.Time) ([]action.Sample, error) {
	vf := a.Verify
	start := a.EndedAt.Wall.Add(vf.Settle)
	end := a.EndedAt.Wall.Add(vf.Within)
	if now.Before(end) {
		end = now
	}
	if !start.Before(end) {
		return nil, nil
	}
	step := max(vf.Sampling, end.Sub(start)/500, time.Millisecond)
	x, err := verificationExpr(vf)
	if err != nil {
		return nil, err
	}
	q := &trace.Query{Function: "verify"}
	values, err := e.source.grid(ctx, x.String(), start, end, step, q)
	if err != nil {
		return nil, err
	}
	picked := pick(values, vf.Match)
	if picked == nil {
		return nil, nil
	}
	measured := map[int64]time.Time{} // of each grid point: the oldest of its selectors' newest samples
	for _, ts := range x.Timestamps() {
		series, err := e.source.grid(ctx, ts.String(), start, end, step, q)
		if err != nil {
			return nil, err
		}
		newest := map[int64]time.Time{}
		for _, s := range series {
			if !agrees(s.Labels, vf.Match) {
				continue
			}
			for _, p := range s.Points {
				if at := seconds(p.Value); at.After(newest[p.At.UnixMilli()]) {
					newest[p.At.UnixMilli()] = at
				}
			}
		}
		for k, at := range newest {
			if old, ok := measured[k]; !ok || at.Before(old) {
				measured[k] = at
			}
		}
	}
	var out []action.Sample
	for _, p := range picked.Points {
		if at, ok := measured[p.At.UnixMilli()]; ok {
			out = append(out, action.Sample{At: at, Value: p.Value})
		}
	}
	return out, nil
}
