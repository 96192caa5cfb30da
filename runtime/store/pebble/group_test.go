package pebble

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/storetest"
)

// together has n updates wait at the same time, so that the first of them carries out all, and returns what became of each.
func together(t *testing.T, s *Store, ctxs []context.Context, fns []func(store.Tx) error) []error {
	t.Helper()
	s.turn <- struct{}{} // nobody may begin
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("panicked: %v", r)
				}
			}()
			errs[i] = s.Update(ctxs[i], []string{"n", "x"}, fn)
		})
		for waiting := 0; waiting <= i; { // in this order
			runtime.Gosched()
			s.queue.mu.Lock()
			waiting = len(s.queue.waiting)
			s.queue.mu.Unlock()
		}
	}
	<-s.turn
	wg.Wait()
	return errs
}

func add(key, val string) func(store.Tx) error {
	return func(tx store.Tx) error {
		old, err := tx.Get(key)
		tx.Put(key, append(old, val...))
		return err
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: newDir(t), Wait: testWait})
	if err := storetest.Increment(t.Context(), s, "warm"); err != nil {
		t.Fatal(err)
	}
	before := s.db.seq
	mine := errors.New("mine")
	canceled, cancel := context.WithCancel(t.Context())
	ctxs := []context.Context{t.Context(), t.Context(), t.Context(), canceled, t.Context(), t.Context()}
	errs := together(t, s, ctxs, []func(store.Tx) error{
		add("n", "a"),
		func(tx store.Tx) error { tx.Put("n", []byte("lost")); return mine },
		func(tx store.Tx) error { tx.Put("n", []byte("lost")); panic("oops") },
		func(tx store.Tx) error { cancel(); tx.Put("n", []byte("lost")); return nil },
		func(tx store.Tx) error {
			_, err := tx.Get("undeclared")
			_ = err
			tx.Put("n", []byte("lost"))
			return nil
		},
		add("n", "b"),
	})
	if errs[0] != nil || !errors.Is(errs[1], mine) || errs[2] == nil || errs[2].Error() != "panicked: oops" || !errors.Is(errs[3], context.Canceled) || errs[4] == nil || errs[5] != nil {
		t.Errorf("%v", errs)
	}
	var n []byte
	if err := s.View(t.Context(), []string{"n"}, func(tx store.ReadTx) (err error) { n, err = tx.Get("n"); return err }); err != nil || string(n) != "ab" {
		t.Errorf("%q, %v", n, err)
	}
	if commits := s.db.seq - before; commits != 1 {
		t.Errorf("%d commits, want 1 for all", commits)
	}
}

// All of a group share its fate, also those that only read what another of it wrote.
func TestGroupThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	full := errors.New("no space")
	cfg := memConfig(t, newMem(t))
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	if err := storetest.Increment(t.Context(), s, "warm"); err != nil {
		t.Fatal(err)
	}
	s.cfg.Space = func(string) (Space, error) { return Space{}, full }
	taken := errors.New("taken")
	ctx := t.Context()
	errs := together(t, s, []context.Context{ctx, ctx}, []func(store.Tx) error{
		add("n", "a"),
		func(tx store.Tx) error {
			if v, err := tx.Get("n"); len(v) > 0 || err != nil {
				return taken
			}
			return nil
		},
	})
	if !errors.Is(errs[0], full) || !errors.Is(errs[1], full) {
		t.Errorf("%v", errs)
	}
}

// Whoever waits and goes away has written nothing; the others do not notice.
func TestLeavingTheQueue(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: newDir(t), Wait: testWait})
	s.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- s.Update(ctx, []string{"n"}, add("n", "lost")) }()
	stayed := make(chan error, 1)
	go func() { stayed <- s.Update(t.Context(), []string{"n"}, add("n", "a")) }()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-s.turn
	if err := <-stayed; err != nil {
		t.Error(err)
	}
	s.turn <- struct{}{}
	if n := len(s.queue.waiting); n != 0 {
		t.Errorf("%d still wait", n)
	}
	<-s.turn
}

// A function that ends its goroutine does not keep the store from the others.
func TestGoexit(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: newDir(t), Wait: testWait})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Update(t.Context(), nil, func(store.Tx) error { runtime.Goexit(); return nil })
	})
	wg.Wait()
	if err := storetest.Increment(t.Context(), s, "n"); err != nil {
		t.Error(err)
	}
}

// benchmarkWriters has n goroutines commit one record each, over and over.
func benchmarkWriters(b *testing.B, n int) {
	s := open(b, Config{Dir: newDir(b), Wait: testWait})
	if err := storetest.Increment(b.Context(), s, "warm"); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	from := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			key := "record" + strconv.Itoa(i)
			for range b.N {
				err := s.Update(b.Context(), []string{key}, func(tx store.Tx) error {
					_, err := tx.Get(key)
					tx.Put(key, record)
					return err
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(n*b.N)/time.Since(from).Seconds(), "commits/s")
}

func BenchmarkOneWriter(b *testing.B)      { benchmarkWriters(b, 1) }
func BenchmarkSixteenWriters(b *testing.B) { benchmarkWriters(b, 16) }
