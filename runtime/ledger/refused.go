package ledger

import (
	"maps"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Refusing notes in the target's episode since when each guard has refused it without a break, and returns for how long each has. KeyEpisodes
// is read.
func Refusing(tx store.Tx, runbook, target string, verdicts []guard.Verdict, now action.Clock) (map[string]time.Duration, error) {
	ep, ok, err := EpisodeOf(tx, runbook, target)
	if err != nil || !ok {
		return nil, err
	}
	since := map[string]action.Clock{}
	lasts := map[string]time.Duration{}
	for _, v := range guard.Refused(verdicts) {
		at, before := ep.Refused[v.Guard]
		if !before {
			at = now
		}
		since[v.Guard], lasts[v.Guard] = at, now.Trusted-at.Trusted
	}
	if maps.Equal(ep.Refused, since) {
		return lasts, nil
	}
	ep.Refused = since
	return lasts, PutEpisode(tx, runbook, target, ep)
}
