package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// goneFor is how long a target must have been away for its episode to end.
const goneFor = 24 * time.Hour

// observe moves the open episodes of a runbook on by what was seen: healthy time counts only where it was observed, and an
// episode ends after an hour of it, or when the target has been gone for a day. None ends while an attempt holds the target.
//
// found is what was seen of the target with a key, false if it was not there. The breaker learns in the same transaction whether the fleet is over its
// share. A healthy fleet without episodes costs no write, and neither does a dry run.
func (e *engine) observe(ctx context.Context, rb *project.Runbook, found func(key string) (trace.Condition, bool), looked breaker.Looked) error {
	if e.dry {
		return nil
	}
	if idle, err := e.idle(ctx, rb, looked); err != nil || idle {
		return err
	}
	return e.Store.Update(ctx, []string{ledger.KeyClock, ledger.KeyOpen, ledger.KeyEpisodes(rb.Name), ledger.KeyBreaker}, func(tx store.Tx) error {
		now, err := ledger.Tick(tx, e.Sample)
		if err != nil {
			return err
		}
		if d, err := ledger.ReadBreaker(tx); err != nil {
			return err
		} else if looked.Relevant(d) {
			if _, err := ledger.TellBreaker(tx, now, looked); err != nil {
				return err
			}
		}
		eps, err := ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes(rb.Name))
		if err != nil {
			return err
		}
		open, err := ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
		if err != nil {
			return err
		}
		held := map[string]bool{}
		for _, o := range open {
			held[o.Target] = true
		}
		for key, ep := range eps {
			ended := false
			if is, there := found(key); there {
				// What was observed reaches back as far as the window of the symptom, never to the last tick.
				reach := max(rb.Targets.Held, e.Settings.MaxAge)
				ep = ep.Seen(is == trace.Sick || is == trace.Pending, is == trace.Healthy, reach, now)
				ended, eps[key] = ep.Stable(), ep
			} else {
				ended = now.Trusted-ep.SeenAt.Trusted >= goneFor
			}
			if ended && !held[key] {
				delete(eps, key)
			}
		}
		return ledger.Write(tx, ledger.KeyEpisodes(rb.Name), eps)
	})
}

// idle says that nothing in the records waits to be moved on by what was seen: no episode, and not the breaker.
func (e *engine) idle(ctx context.Context, rb *project.Runbook, looked breaker.Looked) (yes bool, err error) {
	err = e.Store.View(ctx, []string{ledger.KeyClock, ledger.KeyEpisodes(rb.Name), ledger.KeyBreaker}, func(tx store.ReadTx) error {
		eps, err := ledger.Read[map[string]json.RawMessage](tx, ledger.KeyEpisodes(rb.Name))
		if err != nil {
			return err
		}
		d, err := ledger.ReadBreaker(tx)
		yes = len(eps) == 0 && !looked.Relevant(d)
		return err
	})
	return yes, err
}

// over says whether more of the fleet is sick or unknown than its share allows. One target that is, is no share of anything.
func over(rb *project.Runbook, f guard.FleetView) breaker.Looked {
	l := breaker.Looked{Fleet: f.ID, Runbook: rb.Name, Members: len(f.Members), Bad: len(f.Sick) + len(f.Unknown)}
	l.Over = !f.Single && l.Bad > guard.Share(l.Members, rb.Policy.WithDefaults().FleetShare)
	return l
}
