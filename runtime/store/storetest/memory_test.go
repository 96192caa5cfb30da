package storetest_test

import (
	"sync"
	"testing"

	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	var stores sync.Map
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := stores.LoadOrStore(t, storetest.NewMemory())
		return s.(*storetest.Memory)
	})
}
