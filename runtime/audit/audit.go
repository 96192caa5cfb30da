// Package audit keeps a log of what was recorded, in which a later change of a record, or of the log, shows.
//
// Every transaction that writes a record of the kinds that are covered (attempts, steps, controls, approvals, the breaker, runs, policies, halts)
// appends one entry in the same commit: which records it wrote, what that was in words, and the SHA-256 of each. An entry holds the SHA-256 of
// the entry before it, so that the last one, the head, stands for all of them.
//
// Invariants:
//   - A record is written if and only if its entry is (Log.Update: one commit).
//   - The hash of an entry is that of its bytes as they are stored and exported, so that sha256sum of a line says the same.
//   - Verify finds every record that was changed, added or removed without an entry, and every entry that was changed, removed or put
//     elsewhere, and names it.
//
// What a chain cannot show: whoever can write the store can write the records, all entries and the head anew. Against that, keep heads
// elsewhere (Export, or only the head's line) and compare: Verify takes one.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// prefix is before the number of an entry, which has 20 digits; keyHead is the key of the Head. Neither is covered by itself.
const (
	prefix  = "audit/"
	keyHead = "idx/audit"
)

// Digest is a SHA-256 in hexadecimal.
type Digest string

func digest(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(hex.EncodeToString(sum[:]))
}

// Entry is one commit.
type Entry struct {
	N      int       `json:"n"` // 1 is the first that there ever was
	At     time.Time `json:"at"`
	Prev   Digest    `json:"prev"` // of the entry before; "" for the first
	Writes []Write   `json:"writes"`
	// Carried says that the entries in which these records were written have been forgotten, while the records are kept.
	Carried bool `json:"carried,omitempty"`
}

// Write is one record that was written, or removed: then Digest is "".
type Write struct {
	Key    string `json:"key"`
	Digest Digest `json:"digest,omitempty"`
	What   string `json:"what,omitempty"` // for people; not the whole record
}

// Head is what stands for the log.
type Head struct {
	V    int    `json:"v"`    // 1
	N    int    `json:"n"`    // of the last entry
	Hash Digest `json:"hash"` // of the last entry
	// First is the number of the first entry that is kept, and Before the hash of the one before it.
	First  int    `json:"first"`
	Before Digest `json:"before,omitempty"`
}

// String is how a head is written down: "17:9f86d0...".
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.N, h.Hash) }

// Log appends to the log of a store.
type Log struct {
	Covers   func(key string) bool
	Describe func(key string, val []byte) string // nil val: it was removed
	Now      func() time.Time
}

func keyOf(n int) string { return fmt.Sprintf("%s%020d", prefix, n) }

// Update is st.Update, with an entry for what fn writes.
func (l Log) Update(ctx context.Context, st store.Store, keys []string, fn func(store.Tx) error) error {
	return st.Update(ctx, append(slices.Clone(keys), keyHead), func(tx store.Tx) error {
		r := &recorder{Tx: tx, log: l}
		if err := fn(r); err != nil || len(r.writes) == 0 {
			return err
		}
		h, err := readHead(tx)
		if err != nil {
			return err
		}
		return l.write(tx, h, Entry{Writes: r.writes})
	})
}

// recorder is a transaction that is looked at.
type recorder struct {
	store.Tx
	log    Log
	writes []Write
}

func (r *recorder) Put(key string, val []byte) {
	r.Tx.Put(key, val)
	r.note(key, digest, val)
}

func (r *recorder) Delete(key string) {
	r.Tx.Delete(key)
	r.note(key, func([]byte) Digest { return "" }, nil)
}

// Mark implements store.Marker.
func (r *recorder) Mark() { store.Mark(r.Tx) }

// note keeps the last write of each key.
func (r *recorder) note(key string, sum func([]byte) Digest, val []byte) {
	if !r.log.Covers(key) {
		return
	}
	r.writes = slices.DeleteFunc(r.writes, func(w Write) bool { return w.Key == key })
	r.writes = append(r.writes, Write{Key: key, Digest: sum(val), What: r.log.Describe(key, val)})
}

// write appends an entry.
func (l Log) write(tx store.Tx, h Head, e Entry) error {
	e.N, e.At, e.Prev = h.N+1, l.Now().UTC(), h.Hash
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	h.V, h.N, h.Hash = 1, e.N, digest(b)
	if h.First == 0 {
		h.First = e.N
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	tx.Put(keyOf(e.N), b)
	tx.Put(keyHead, head)
	return nil
}

func readHead(tx store.ReadTx) (Head, error) {
	var h Head
	b, err := tx.Get(keyHead)
	if err != nil || b == nil {
		return h, err
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, problem.Wrap(problem.StoreDamaged, err, "the head of the audit log cannot be read")
	}
	if h.V > 1 {
		return h, problem.New(problem.StateUnusable, "the audit log was written by a newer version (format %d, this one knows 1)", h.V).
			WithHint("use the newer runbook binary that wrote it")
	}
	return h, nil
}

// forgetAtMost bounds what one Forget removes.
const forgetAtMost = 1000

// Forget removes the oldest entries, of before the horizon. Records of which they tell and that are kept are written down anew, in one entry at the
// end, so that a change of them still shows.
func (l Log) Forget(ctx context.Context, st interface {
	store.Store
	store.Scanner
}, horizon time.Time,
) error {
	var old []string
	last := map[string]Write{}
	var hash Digest
	var bad error
	err := st.Scan(ctx, prefix, false, func(key string, val []byte) bool {
		var e Entry
		if bad = json.Unmarshal(val, &e); bad != nil || !e.At.Before(horizon) || len(old) == forgetAtMost {
			return false
		}
		old, hash = append(old, key), digest(val)
		for _, w := range e.Writes {
			last[w.Key] = w
		}
		return true
	})
	if err != nil || bad != nil || len(old) == 0 {
		return err // what cannot be read is for Verify to say
	}
	keys := []string{keyHead, old[0]}
	for key, w := range last {
		if w.Digest != "" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys[2:])
	return st.Update(ctx, keys, func(tx store.Tx) error {
		h, err := readHead(tx)
		if err != nil {
			return err
		}
		if first, err := tx.Get(old[0]); err != nil || first == nil || keyOf(h.First) != old[0] {
			return err // another run was faster, or the log was tampered with: that is for Verify to say
		}
		carry := Entry{Carried: true}
		for _, key := range keys[2:] {
			val, err := tx.Get(key)
			if err != nil {
				return err
			}
			if w := last[key]; val != nil && digest(val) == w.Digest {
				carry.Writes = append(carry.Writes, w)
			}
		}
		for _, key := range old {
			tx.Delete(key)
		}
		h.First += len(old)
		h.Before = hash
		if len(carry.Writes) > 0 {
			return l.write(tx, h, carry)
		}
		head, err := json.Marshal(h)
		tx.Put(keyHead, head)
		return err
	})
}

// ParseHead reads what Head.String wrote.
func ParseHead(text string) (n int, hash Digest, err error) {
	var rest string
	if _, err = fmt.Sscanf(text, "%d:%s", &n, &rest); err != nil || n < 1 || len(rest) != 2*sha256.Size || strings.Trim(rest, "0123456789abcdef") != "" {
		return 0, "", problem.New(problem.Usage, "%.80q is no head of the log", text).WithHint("a head is the last line of runbook audit export, or of runbook audit verify: 17:9f86d081...")
	}
	return n, Digest(rest), nil
}

// Item is one record that an entry tells of.
type Item struct {
	N  int       `json:"n"`
	At time.Time `json:"at"`
	Write
}

// List returns at most limit items since then that are wanted, the newest first.
func (l Log) List(ctx context.Context, st store.Scanner, limit int, since time.Time, wanted func(Write) bool) ([]Item, error) {
	items := []Item{}
	var bad error
	err := st.Scan(ctx, prefix, true, func(key string, val []byte) bool {
		var e Entry
		if bad = json.Unmarshal(val, &e); bad != nil {
			bad = problem.Wrap(problem.StoreDamaged, bad, "%s cannot be read", key).WithHint("runbook audit verify")
			return false
		}
		if e.At.Before(since) {
			return false
		}
		for _, w := range slices.Backward(e.Writes) {
			if !e.Carried && wanted(w) && len(items) < limit {
				items = append(items, Item{e.N, e.At, w})
			}
		}
		return len(items) < limit
	})
	return items, errors.Join(err, bad)
}
