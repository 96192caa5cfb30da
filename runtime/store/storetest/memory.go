package storetest

import "github.com/seed1de3961f/runbook/runtime/store/memory"

// Memory is the store in memory, under the name by which tests know it.
type Memory = memory.Store

// NewMemory makes an empty store.
func NewMemory() *Memory { return memory.New() }
