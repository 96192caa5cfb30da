package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// EpisodeOf reads the open episode of a target under a runbook; false if it has none. The others are not decoded: a fleet may have many. KeyEpisodes is read.
func EpisodeOf(tx store.ReadTx, runbook, target string) (ep Episode, ok bool, err error) {
	key := KeyEpisodes(runbook)
	all, err := Read[map[string]json.RawMessage](tx, key)
	if err != nil {
		return ep, false, err
	}
	b, ok := all[target]
	if !ok {
		return ep, false, nil
	}
	return ep, true, decode(key, b, &ep)
}

// PutEpisode writes the open episode of a target under a runbook. KeyEpisodes is read.
func PutEpisode(tx store.Tx, runbook, target string, ep Episode) error {
	key := KeyEpisodes(runbook)
	all, err := Read[map[string]json.RawMessage](tx, key)
	if err != nil {
		return err
	}
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	if all[target], err = json.Marshal(ep); err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return Write(tx, key, all)
}
