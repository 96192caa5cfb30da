package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// KeySource is the key of a source closure by its digest.
func KeySource(digest string) string { return "source/" + digest }

// Source is the text of a runbook and of all that it loads, as they were when it was evaluated: what is done about an attempt later is done by
// these, and a run is decided again by these.
type Source struct {
	Path  string            `json:"path"`
	Files map[string]string `json:"files"`
	Used  time.Time         `json:"used,omitzero"` // last, to the day
}

// Read implements sandbox.Source.
func (s *Source) Read(path string) ([]byte, error) {
	text, ok := s.Files[path]
	if !ok {
		return nil, problem.New(problem.Load, "%s is not among the files that were kept with the attempt", path)
	}
	return []byte(text), nil
}

// KeepSource stores files once, and notes when they were used last. KeySource is read.
func KeepSource(tx store.Tx, digest string, src *Source, now time.Time) error {
	before, err := Read[*Source](tx, KeySource(digest))
	day := now.UTC().Truncate(24 * time.Hour)
	if err != nil || before != nil && !before.Used.Before(day) {
		return err
	}
	kept := *src
	kept.Used = day
	return Write(tx, KeySource(digest), kept)
}

// LoadSource reads the files of a digest, nil if they were not kept.
func LoadSource(ctx context.Context, st store.Store, digest string) (src *Source, err error) {
	err = st.View(ctx, []string{KeySource(digest)}, func(tx store.ReadTx) (err error) {
		src, err = Read[*Source](tx, KeySource(digest))
		return err
	})
	return src, err
}

// ForgetSources removes files that nothing has been evaluated by since the horizon, unless an attempt that is open was made by them.
func ForgetSources(ctx context.Context, st interface {
	store.Store
	store.Scanner
}, now Clock, horizon time.Time,
) error {
	var old []string
	var bad error
	seen := 0
	err := st.Scan(ctx, KeySource(""), false, func(key string, val []byte) bool {
		var src Source
		if bad = json.Unmarshal(val, &src); bad != nil {
			return false
		}
		if !src.Used.IsZero() && src.Used.Before(horizon.Add(-24*time.Hour)) {
			old = append(old, key)
		}
		seen++
		return seen < lookAtRuns && len(old) < forgetRuns
	})
	if err != nil || bad != nil || len(old) == 0 {
		return errors.Join(err, bad)
	}
	var open []Open
	err = st.View(ctx, []string{KeyOpen}, func(tx store.ReadTx) (err error) {
		open, err = Read[[]Open](tx, KeyOpen)
		return err
	})
	if err != nil {
		return err
	}
	for _, o := range open {
		a, _, err := Attempt(ctx, st, o.ID)
		if err != nil {
			return err
		}
		old = slices.DeleteFunc(old, func(key string) bool { return key == KeySource(a.Source) })
	}
	return st.Update(ctx, append([]string{KeyClock}, old...), func(tx store.Tx) error {
		if err := Believed(tx, now); err != nil {
			return err // by a clock that may be wrong nothing is old
		}
		if _, err := Tick(tx, now); err != nil {
			return err
		}
		for _, key := range old {
			src, err := Read[*Source](tx, key)
			if err != nil {
				return err
			}
			if src != nil && src.Used.Before(horizon) {
				tx.Delete(key)
			}
		}
		return nil
	})
}
