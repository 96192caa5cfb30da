package pebble

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// The cost of a commit is the disk's, so whoever has the turn carries out every update that waits: one after the other, each seeing what those
// before it wrote, and then commits them together. All of a group are on the disk, and marked, before any of them is told; if the commit fails,
// all have failed in the same way. One that fails by itself, or panics, leaves the others alone.

var errGone = errors.New("store: nothing written: the goroutine that carried it out has ended")

// mostTogether bounds a group: each of its transactions waits for the others.
const mostTogether = 64

// update is one call of Update.
type update struct {
	ctx  context.Context
	keys []string
	fn   func(store.Tx) error

	done     chan struct{} // closed when the rest is set
	err      error
	panicked any
}

// queue holds the updates that nobody has taken yet.
type queue struct {
	mu      sync.Mutex
	waiting []*update
}

func (q *queue) add(u *update) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, u)
}

// take takes the first of the queue, u among them; nil if somebody has taken u already.
func (q *queue) take(u *update) []*update {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, u)
	if i < 0 {
		return nil
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	n := min(len(q.waiting), mostTogether-1)
	group := append([]*update{u}, q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return group
}

// drop removes u; false if somebody has taken it already.
func (q *queue) drop(u *update) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, u)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return i >= 0
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, keys []string, fn func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := s.awaitAhead(ctx); err != nil {
		return err
	}
	u := &update{ctx: ctx, keys: keys, fn: fn, done: make(chan struct{})}
	s.queue.add(u)
	patience := time.NewTimer(s.cfg.Wait)
	defer patience.Stop()
	select {
	case <-u.done:
		return u.answer()
	case s.turn <- struct{}{}:
		return s.lead(u)
	case <-ctx.Done():
		if s.queue.drop(u) {
			return fmt.Errorf("store: wait for a transaction of this process: %w", ctx.Err())
		}
	case <-patience.C:
		if s.queue.drop(u) {
			return s.cfg.busyHere(s.wedged.Load())
		}
	}
	return s.outcome(u)
}

// answer is what became of an update that is done.
func (u *update) answer() error {
	if u.panicked != nil {
		panic(u.panicked)
	}
	return u.err
}

// outcome waits for an update that is being carried out; like its own caller, it does not wait for a disk for ever.
func (s *Store) outcome(u *update) error {
	select {
	case <-u.done:
		return u.answer()
	case <-u.ctx.Done():
	}
	t := time.NewTimer(s.cfg.grace)
	defer t.Stop()
	select {
	case <-u.done:
		return u.answer()
	case <-t.C:
		return unknown(fmt.Errorf("no answer from the disk: %w", u.ctx.Err()))
	}
}

// lead carries out u and what waits beside it. The caller has the turn.
func (s *Store) lead(u *update) error {
	select {
	case <-u.done: // somebody was faster
		s.end()
		return u.answer()
	default:
	}
	left, err := s.ready(u.ctx, true)
	if err != nil {
		taken := !s.queue.drop(u)
		if !left {
			s.end()
		}
		if taken {
			return s.outcome(u)
		}
		return err
	}
	group := s.queue.take(u)
	if group == nil {
		s.end()
		return s.outcome(u)
	}
	db := s.db
	carried := false
	defer func() {
		if !carried { // a function has ended the goroutine, as t.Fatal does
			finish(group, errGone)
			s.end()
		}
	}()
	writes, size, marked := db.carryOut(group)
	carried = true
	if len(writes) > 0 {
		err = s.cfg.checkSpace(size)
	}
	if err != nil || len(writes) == 0 {
		s.end()
		finish(group, err)
		return u.answer()
	}
	done := s.start(func() error {
		err := db.commit(writes, marked)
		finish(group, err)
		return err
	})
	if left, err = s.await(u.ctx, done, nil); left {
		return unknown(fmt.Errorf("no answer from the disk: %w", err))
	}
	s.end()
	<-u.done // also after a panic of the disk, which ends the process
	return u.answer()
}

// finish tells everybody of a group. What failed by itself may have read what the others wrote, so it too is told what became of that.
func finish(group []*update, err error) {
	for _, u := range group {
		if err != nil && u.panicked == nil {
			u.err = err
		}
		close(u.done)
	}
}

// carryOut runs the transactions of a group, one after the other, and returns what they want to write together, and whether one of them wants it
// marked.
func (d *database) carryOut(group []*update) (writes map[string][]byte, size uint64, marked bool) {
	writes = map[string][]byte{}
	for _, u := range group {
		if err := u.ctx.Err(); err != nil {
			u.err = fmt.Errorf("store: nothing written: %w", err)
			continue
		}
		t := newTx(d, u.keys)
		t.before = writes
		if u.err = u.run(t); u.err != nil || u.panicked != nil {
			continue
		}
		if err := u.ctx.Err(); err != nil && len(t.writes) > 0 {
			u.err = fmt.Errorf("store: nothing written: %w", err)
			continue
		}
		maps.Copy(writes, t.writes)
		size += t.size
		marked = marked || t.marked
	}
	return writes, size, marked
}

// run calls the transaction's function. A panic of it belongs to its caller.
func (u *update) run(t *tx) (err error) {
	defer func() { u.panicked = recover() }()
	return t.run(func() error { return u.fn(t) })
}
