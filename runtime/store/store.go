// Package store is the port to durable state, and the contract that every adapter keeps.
//
// Invariants, checked by storetest.Run over each adapter:
//   - Update applies everything that fn wrote or nothing; it returns nil only when that is durable.
//   - fn reads a snapshot in which nothing changes, and only keys that were declared; it is pure and
//     may run again.
//   - Two Updates, in one process or in several, are as if one ran after the other.
//   - After an error other than ErrUnknown nothing was written. After ErrUnknown nobody knows: the
//     caller must not act.
//   - A store that has lost an acknowledged record by damage does not open: the error says so. After a power cut that reaches as
//     far as the last commit that was marked, and all before it.
package store

import (
	"context"
	"errors"
)

// ErrUnknown means that a commit may or may not have happened.
var ErrUnknown = errors.New("the outcome of the commit is unknown")

// ReadTx reads a snapshot.
type ReadTx interface {
	// Get returns nil, nil for a key that is absent.
	Get(key string) ([]byte, error)
}

// Tx is a ReadTx that collects writes. Writes are seen by later Gets of the same Tx.
type Tx interface {
	ReadTx
	Put(key string, val []byte)
	Delete(key string)
}

// Marker is an optional ability of a Tx. Mark asks that losing this commit later, or one before it, by damage to the store, cannot go
// unnoticed from the moment Update returns, not even if the power is cut first.
type Marker interface {
	Mark()
}

// Mark marks a commit: one after which an effect may begin, or on which a person relies.
func Mark(tx Tx) {
	if m, ok := tx.(Marker); ok {
		m.Mark()
	}
}

// Store is what decides and records. Keys are printable ASCII with '/' between parts.
type Store interface {
	// Update runs fn over the declared keys and commits what it wrote, synced. fn may write keys that it did not declare
	// to read.
	Update(ctx context.Context, keys []string, fn func(Tx) error) error
	// View runs fn over a snapshot of the declared keys.
	View(ctx context.Context, keys []string, fn func(ReadTx) error) error
}

// Scanner lists records for people and for recovery. What it returns decides nothing by itself: a decision reads
// the keys again in an Update.
type Scanner interface {
	// Scan calls fn for each key with the prefix, in order (newest last for time-ordered keys), or in reverse; fn
	// returns false to stop. The value is valid only during the call.
	Scan(ctx context.Context, prefix string, reverse bool, fn func(key string, val []byte) bool) error
}
