// Package notify is the durable outbox: what people must be told is committed in the same transaction as the reason for it, and delivered
// afterwards, at least once.
//
// A notice is told once for a (runbook, target, episode, reason) and kind, and again every 24 hours for as long as it is put again. Failures of one
// source are one notice, whatever the number of runbooks that met them. A delivery that failed, or of which it is not known whether it
// arrived, is tried again by the next run; the receiver can tell a repetition by its Idempotency-Key.
package notify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Reminder is how long a notice that was delivered is not told again.
const Reminder = 24 * time.Hour

// maxNamed is how many runbooks and owners a notice about a source names.
const maxNamed = 50

// Kind says what a notice is.
type Kind string

// The kinds.
const (
	Escalation Kind = "escalation" // a person must do something
	Info       Kind = "notice"     // a person should know
	Source     Kind = "source"     // a source of metrics or alerts fails; one notice for all runbooks
)

// Notice is what somebody must be told.
type Notice struct {
	Runbook string    `json:"runbook,omitempty"`
	Target  string    `json:"target,omitempty"`
	Episode string    `json:"episode,omitempty"`
	Reason  string    `json:"reason"` // part of what makes it the same notice, so without times and measured values
	Source  string    `json:"source,omitempty"`
	Owner   string    `json:"owner,omitempty"`
	Kind    Kind      `json:"kind"`
	Text    string    `json:"text"` // in words, for people
	Run     string    `json:"run,omitempty"`
	At      time.Time `json:"at"`
}

// ID is the same for what is to be told only once.
func (n Notice) ID() string {
	parts := []string{string(n.Kind), n.Runbook, n.Target, n.Episode, n.Reason}
	if n.Kind == Source {
		parts = []string{string(n.Kind), n.Source}
	}
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

const (
	pendingKey = "notify/pending"
	version    = 1
)

func recordKey(id string) string { return "notify/notice/" + id }

// Keys are what Put reads, to be declared by the transaction.
func Keys(n Notice) []string { return []string{pendingKey, recordKey(n.ID())} }

// Record is a notice and what became of it.
type Record struct {
	V      int    `json:"v"`
	ID     string `json:"id"`
	Notice Notice `json:"notice"`
	Round  int    `json:"round"` // 1 is the first time that it is told, 2 the first reminder
	Count  int    `json:"count"` // how often it was put
	// Runbooks and Owners are all that put it: several, of a notice about a source.
	Runbooks  []string             `json:"runbooks,omitempty"`
	Owners    []string             `json:"owners,omitempty"`
	Last      time.Time            `json:"last"`           // when it was put last
	Sent      map[string]time.Time `json:"sent,omitempty"` // by sink, in this round
	Delivered time.Time            `json:"delivered,omitzero"`
}

// Pending says whether somebody is still to be told.
func (r Record) Pending() bool { return r.Delivered.IsZero() }

// index is the list of records that are pending, oldest first: small, so that a transaction can read it.
type index struct {
	V   int      `json:"v"`
	IDs []string `json:"ids"`
}

// Put adds a notice to the outbox, unless it was told within the last 24 hours or is waiting to be. The transaction must have declared
// Keys(n).
func Put(tx store.Tx, n Notice, now time.Time) error {
	id := n.ID()
	r, err := load(tx, id)
	if err != nil {
		return err
	}
	if r == nil {
		r = &Record{V: version, ID: id, Notice: n, Round: 1}
	} else if r.remind(now) {
		// The reminder says how it is now.
		r.Notice, r.Round, r.Sent, r.Delivered = n, r.Round+1, nil, time.Time{}
	}
	r.Count++
	r.Last = now.UTC().Round(0)
	r.Runbooks, r.Owners = name(r.Runbooks, n.Runbook), name(r.Owners, n.Owner)
	if err := save(tx, r); err != nil {
		return err
	}
	if !r.Pending() {
		return nil
	}
	return queue(tx, id, true)
}

// remind says whether it was told long enough ago. A clock that has gone back since must not silence it for longer.
func (r *Record) remind(now time.Time) bool {
	return !r.Pending() && (now.Sub(r.Delivered) >= Reminder || r.Delivered.After(now))
}

func name(known []string, one string) []string {
	if one == "" || slices.Contains(known, one) || len(known) >= maxNamed {
		return known
	}
	return append(slices.Clip(known), one)
}

func load(tx store.ReadTx, id string) (*Record, error) {
	data, err := tx.Get(recordKey(id))
	if err != nil || data == nil {
		return nil, err
	}
	var r Record
	if err := decode(data, &r, func() int { return r.V }); err != nil {
		return nil, fmt.Errorf("notice %s: %w", id, err)
	}
	return &r, nil
}

func save(tx store.Tx, r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("notice %s: %w", r.ID, err)
	}
	tx.Put(recordKey(r.ID), data)
	return nil
}

func pending(tx store.ReadTx) (index, error) {
	list := index{V: version}
	data, err := tx.Get(pendingKey)
	if err != nil || data == nil {
		return list, err
	}
	if err := decode(data, &list, func() int { return list.V }); err != nil {
		return list, fmt.Errorf("pending notices: %w", err)
	}
	return list, nil
}

// queue puts an id on the list of those that are pending, or takes it off.
func queue(tx store.Tx, id string, on bool) error {
	list, err := pending(tx)
	if err != nil || slices.Contains(list.IDs, id) == on {
		return err
	}
	if on {
		list.IDs = append(list.IDs, id)
	} else {
		list.IDs = slices.DeleteFunc(list.IDs, func(other string) bool { return other == id })
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	tx.Put(pendingKey, data)
	return nil
}

func decode(data []byte, into any, v func() int) error {
	d := json.NewDecoder(bytes.NewReader(data))
	err := d.Decode(into)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the record")
		}
	}
	switch {
	case err != nil:
		return problem.Wrap(problem.StoreDamaged, err, "the record cannot be read").WithHint("runbook doctor")
	case v() > version:
		return problem.New(problem.StateUnusable, "the record has version %d, this runbook reads up to %d", v(), version).
			WithHint("a newer runbook wrote it: use that one everywhere")
	case v() < 1:
		return problem.New(problem.StoreDamaged, "the record has no version").WithHint("runbook doctor")
	}
	return nil
}
