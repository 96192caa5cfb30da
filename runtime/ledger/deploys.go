package ledger

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Change is a deploy of a component, as its delivery pipeline says. Every one has a record of its own; the last of each component is in
// idx/deploys, which every decision reads.
type Change struct {
	V         int       `json:"v"` // 1
	Component string    `json:"component"`
	Version   string    `json:"version,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"` // zero while it is going on
	By        string    `json:"by"`
	Reason    string    `json:"reason,omitempty"`
}

// keepDeploys is how long the last deploy of a component is of interest to a decision.
const keepDeploys = 48 * time.Hour

// goingFor is how long a deploy of which only the start is known counts as going on: a pipeline that died must not keep a component from being
// looked after for ever.
const goingFor = time.Hour

// KeyChange is the key of a change by when it was recorded.
func KeyChange(at time.Time, component string) string {
	return "change/" + stamp(at) + "/" + component
}

// AddChange records one. The end of a deploy keeps the start that was recorded before.
func AddChange(ctx context.Context, st store.Store, now Clock, c Change) (Change, error) {
	err := st.Update(ctx, []string{KeyClock, KeyDeploys}, func(tx store.Tx) error {
		at, err := Tick(tx, now)
		if err != nil {
			return err
		}
		all, err := readDeploys(tx)
		if err != nil {
			return err
		}
		if last, ok := all[c.Component]; ok && c.Started.IsZero() && last.Ended.IsZero() && !last.Started.After(c.Ended) {
			c.Started = last.Started
		}
		c.V = 1
		maps.DeleteFunc(all, func(_ string, o Change) bool { return at.Wall.Sub(o.last()) > keepDeploys })
		if last, ok := all[c.Component]; !ok || !c.last().Before(last.last()) {
			all[c.Component] = c // what is told late does not hide what is newer
		}
		if err := Write(tx, KeyChange(at.Wall, c.Component), c); err != nil {
			return err
		}
		return Write(tx, KeyDeploys, all)
	})
	return c, err
}

// last is the newest moment that is known of the change.
func (c Change) last() time.Time {
	if c.Ended.After(c.Started) {
		return c.Ended
	}
	return c.Started
}

func readDeploys(tx store.ReadTx) (map[string]Change, error) {
	all, err := Read[map[string]Change](tx, KeyDeploys)
	if all == nil {
		all = map[string]Change{}
	}
	return all, err
}

// LastChange is the last deploy of a component as it was recorded, and how it stands; nil if none is on record.
func LastChange(tx store.ReadTx, component string, now time.Time) (*Change, *guard.Deploy, error) {
	d, err := LastDeploy(tx, component, now)
	if err != nil || d == nil {
		return nil, nil, err
	}
	all, err := readDeploys(tx)
	c := all[component]
	return &c, d, err
}

// LastDeploy is the last deploy of a component, nil if none is known; KeyDeploys is read.
func LastDeploy(tx store.ReadTx, component string, now time.Time) (*guard.Deploy, error) {
	if component == "" {
		return nil, nil
	}
	all, err := readDeploys(tx)
	c, ok := all[component]
	if err != nil || !ok {
		return nil, err
	}
	d := &guard.Deploy{Component: component, EndedAt: c.Ended}
	if c.Ended.IsZero() {
		d.EndedAt = c.Started.Add(goingFor)
		d.Going = now.Before(d.EndedAt)
	}
	return d, nil
}

// Deploys are the last deploy of each component, by name.
func Deploys(ctx context.Context, st store.Store) ([]Change, error) {
	var out []Change
	err := st.View(ctx, []string{KeyDeploys}, func(tx store.ReadTx) error {
		all, err := readDeploys(tx)
		out = nil
		for _, name := range slices.Sorted(maps.Keys(all)) {
			out = append(out, all[name])
		}
		return err
	})
	return out, err
}

// Changes are those that are recorded, the newest first, at most limit.
func Changes(ctx context.Context, st store.Scanner, limit int) ([]Change, error) {
	var out []Change
	var bad error
	err := st.Scan(ctx, "change/", true, func(key string, val []byte) bool {
		c, err := Read[Change](one(val), key)
		if err != nil {
			bad = err
			return false
		}
		out = append(out, c)
		return len(out) < limit
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// one reads a value that was scanned as if it were asked for.
type one []byte

func (o one) Get(string) ([]byte, error) { return o, nil }
