package pebble

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// sharedDir makes a store once for each t.
func sharedDir() func(t *testing.T) string {
	var mu sync.Mutex
	dirs := map[*testing.T]string{}
	return func(t *testing.T) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if dirs[t] == "" {
			dirs[t] = newDir(t)
		}
		return dirs[t]
	}
}

func newDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// unattended is a Store that the end of the test does not close: of thousands, each would be kept until then.
func unattended(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	for name, perTransaction := range map[string]bool{"kept open": false, "open per transaction": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := sharedDir()
			storetest.Run(t, func(t *testing.T) store.Store {
				return open(t, Config{Dir: dir(t), PerTransaction: perTransaction, Wait: testWait})
			})
		})
	}
}

func put(key, val string) func(store.Tx) error {
	return func(tx store.Tx) error { tx.Put(key, []byte(val)); return nil }
}

func counter(t *testing.T, s store.Store) int {
	t.Helper()
	var n int
	if err := s.View(t.Context(), []string{"n"}, func(tx store.ReadTx) (err error) { n, err = number(tx, "n"); return err }); err != nil {
		t.Fatal(err)
	}
	return n
}
