// Package memory is a store in memory, for what ends with its process: simulations and tests. It keeps the store's contract, and nothing else.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// Store is an adapter of store.Store. It is safe for concurrent use.
type Store struct {
	mu   sync.Mutex
	data map[string][]byte
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Scanner = (*Store)(nil)
)

// New makes an empty store.
func New() *Store { return &Store{data: map[string][]byte{}} }

// Update implements store.Store.
func (m *Store) Update(ctx context.Context, keys []string, fn func(store.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &memoryTx{m: m, declared: keys, writes: map[string][]byte{}}
	if err := t.run(ctx, func() error { return fn(t) }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: nothing written: %w", err)
	}
	for k, v := range t.writes {
		if v == nil {
			delete(m.data, k)
		} else {
			m.data[k] = v
		}
	}
	return nil
}

// View implements store.Store.
func (m *Store) View(ctx context.Context, keys []string, fn func(store.ReadTx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &memoryTx{m: m, declared: keys}
	return t.run(ctx, func() error { return fn(memoryRead{t}) })
}

// Scan implements store.Scanner.
func (m *Store) Scan(ctx context.Context, prefix string, reverse bool, fn func(key string, val []byte) bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	m.mu.Lock()
	var keys []string
	vals := map[string][]byte{}
	for k, v := range m.data {
		if strings.HasPrefix(k, prefix) {
			keys, vals[k] = append(keys, k), bytes.Clone(v)
		}
	}
	m.mu.Unlock()
	slices.Sort(keys)
	if reverse {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		if !fn(k, vals[k]) {
			break
		}
	}
	return nil
}

type memoryTx struct {
	m        *Store
	declared []string
	writes   map[string][]byte // nil: deleted
	err      error             // a misuse spoils the transaction even if fn ignores it
}

func (t *memoryTx) run(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, k := range t.declared {
		t.check(k)
	}
	if t.err != nil {
		return t.err
	}
	if err := fn(); err != nil && t.err == nil {
		return err
	}
	return t.err
}

func (t *memoryTx) Get(key string) ([]byte, error) {
	if v, ok := t.writes[key]; ok {
		return bytes.Clone(v), t.err
	}
	if !slices.Contains(t.declared, key) {
		t.fail("key %q is read but was not declared", key)
	}
	if t.err != nil {
		return nil, t.err
	}
	return bytes.Clone(t.m.data[key]), nil
}

func (t *memoryTx) Put(key string, val []byte) {
	t.check(key)
	t.writes[key] = append([]byte{}, val...)
}

func (t *memoryTx) Delete(key string) {
	t.check(key)
	t.writes[key] = nil
}

func (t *memoryTx) check(key string) {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.fail("key %q is not printable ASCII", key)
	}
}

func (t *memoryTx) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("store: "+format, args...)
	}
}

// memoryRead hides the writing half.
type memoryRead struct{ t *memoryTx }

func (r memoryRead) Get(key string) ([]byte, error) { return r.t.Get(key) }
