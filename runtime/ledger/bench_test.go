package ledger_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// newRuns makes a store with so many runs of 30 healthy targets, and returns the name of one in the middle.
func newRuns(b *testing.B, n int) (*pebble.Store, string) {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "store")
	if err := pebble.Create(dir); err != nil {
		b.Fatal(err)
	}
	st, err := pebble.New(pebble.Config{Dir: dir, PerTransaction: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	name := func(i int) string {
		return epoch.Add(time.Duration(i)*time.Minute).Format("20060102-150405.000") + "-AAAAAA"
	}
	run := &trace.Run{V: trace.Version, Started: epoch, Ended: epoch, Owner: action.Owner{Host: "h"}, Runbooks: []*trace.Runbook{{Name: "worker", Due: true}}}
	for i := range 30 {
		run.Runbooks[0].Targets = append(run.Runbooks[0].Targets, &trace.Target{Key: fmt.Sprintf("instance=w%d", i), Name: fmt.Sprintf("w%d", i), Condition: trace.Healthy})
	}
	const batch = 1000
	for from := 0; from < n; from += batch {
		err := st.Update(b.Context(), nil, func(tx store.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				run.ID = name(i)
				text, err := trace.Encode(run)
				if err != nil {
					return err
				}
				tx.Put(ledger.KeyRun(run.ID), text)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return st, name(n / 2)
}

// BenchmarkFindRun is opening the store and reading one run among 100,000, against one among 100: what runbook explain waits for. Goal: at most 2.
func BenchmarkFindRun(b *testing.B) {
	var stores [2]*pebble.Store
	var ids [2]string
	for i, n := range []int{100_000, 100} {
		stores[i], ids[i] = newRuns(b, n)
	}
	var took [2][]time.Duration
	for b.Loop() {
		for i := range stores {
			began := time.Now()
			if r, err := ledger.Run(b.Context(), stores[i], ids[i]); err != nil || r.ID != ids[i] {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	b.ReportMetric(float64(took[0][len(took[0])/2])/float64(took[1][len(took[1])/2]), "x-100")
	b.ReportMetric(float64(took[0][len(took[0])/2]), "ns-100000")
	b.ReportMetric(0, "ns/op")
}
