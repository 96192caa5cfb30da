// Package storetest is the contract of the store port as tests, run over every adapter.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// Run checks the contract. open returns a handle on the same store each time it is called with the same t, so that what one
// handle does is seen by the other, as between two processes.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, func() store.Store)
	}{
		{"absent key is nil", absent},
		{"writes are read back", readBack},
		{"writes are seen in the same transaction", ownWrites},
		{"an error of fn writes nothing", fnError},
		{"a panic of fn writes nothing and frees the store", fnPanic},
		{"an undeclared read fails", undeclared},
		{"a bad key fails", badKey},
		{"an ended context writes nothing", ended},
		{"values are copies", copies},
		{"all or nothing is seen", isolation},
		{"interleaved handles lose nothing", interleaved},
		{"scan", scan},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, func() store.Store { return open(t) })
		})
	}
}

func put(t *testing.T, s store.Store, pairs ...string) {
	t.Helper()
	err := s.Update(t.Context(), nil, func(tx store.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			tx.Put(pairs[i], []byte(pairs[i+1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// get returns the values, "-" for an absent key.
func get(t *testing.T, s store.Store, keys ...string) string {
	t.Helper()
	var got []string
	err := s.View(t.Context(), keys, func(tx store.ReadTx) error {
		got = nil
		for _, k := range keys {
			val, err := tx.Get(k)
			if err != nil {
				return err
			}
			if val == nil {
				val = []byte("-")
			}
			got = append(got, string(val))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func absent(t *testing.T, open func() store.Store) { want(t, get(t, open(), "a", "b/c"), "- -") }

func readBack(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "a", "1", "b", "2", "empty", "")
	want(t, get(t, s, "a", "b", "empty"), "1 2 ")
	want(t, get(t, open(), "a", "b"), "1 2")
	err := s.Update(t.Context(), nil, func(tx store.Tx) error {
		tx.Delete("a")
		tx.Put("b", []byte("3"))
		tx.Delete("never there")
		return nil
	})
	if err == nil {
		t.Error("a key with spaces was accepted")
	}
	if err := s.Update(t.Context(), nil, func(tx store.Tx) error {
		tx.Delete("a")
		tx.Put("b", []byte("3"))
		tx.Delete("never/there")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want(t, get(t, open(), "a", "b"), "- 3")
}

func ownWrites(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "a", "1")
	err := s.Update(t.Context(), []string{"a"}, func(tx store.Tx) error {
		see := func(wanted string) {
			val, err := tx.Get("a")
			if err != nil || string(val) != wanted {
				t.Errorf("got %q, %v, want %q", val, err, wanted)
			}
		}
		see("1")
		tx.Put("a", []byte("2"))
		see("2")
		tx.Delete("a")
		if val, err := tx.Get("a"); val != nil || err != nil {
			t.Errorf("got %q, %v for a key deleted before", val, err)
		}
		tx.Put("a", []byte("3"))
		see("3")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, get(t, s, "a"), "3")
}

func fnError(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "a", "1")
	mine := errors.New("mine")
	err := s.Update(t.Context(), []string{"a"}, func(tx store.Tx) error {
		tx.Put("a", []byte("2"))
		return mine
	})
	if !errors.Is(err, mine) {
		t.Errorf("got %v, want fn's error", err)
	}
	if err := s.View(t.Context(), nil, func(store.ReadTx) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v, want fn's error", err)
	}
	want(t, get(t, s, "a"), "1")
}

func fnPanic(t *testing.T, open func() store.Store) {
	s := open()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Update(t.Context(), nil, func(tx store.Tx) error {
			tx.Put("a", []byte("2"))
			panic("fn")
		})
	}()
	want(t, get(t, s, "a"), "-")
}

func undeclared(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "a", "1", "b", "1")
	err := s.Update(t.Context(), []string{"a"}, func(tx store.Tx) error {
		if val, err := tx.Get("b"); err == nil {
			t.Errorf("got %q for an undeclared key", val)
		}
		tx.Put("a", []byte("2"))
		return nil // the mistake must count even if fn does not look
	})
	if err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("got %v, want an error that names the key", err)
	}
	err = s.View(t.Context(), []string{"a"}, func(tx store.ReadTx) error { _, _ = tx.Get("b"); return nil })
	if err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("got %v, want an error that names the key", err)
	}
	want(t, get(t, s, "a"), "1")
}

func badKey(t *testing.T, open func() store.Store) {
	s := open()
	for _, key := range []string{"", "a b", "a\n", "\x00", "é"} {
		err := s.Update(t.Context(), nil, func(tx store.Tx) error { tx.Put("good", nil); tx.Put(key, nil); return nil })
		if err == nil {
			t.Errorf("key %q was written", key)
		}
		if err := s.View(t.Context(), []string{key}, func(store.ReadTx) error { return nil }); err == nil {
			t.Errorf("key %q was declared", key)
		}
	}
	want(t, get(t, s, "good"), "-")
}

func ended(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Update(ctx, nil, func(tx store.Tx) error {
		tx.Put("a", []byte("2"))
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnknown) {
		t.Errorf("got %v, want context canceled", err)
	}
	if err := s.Update(ctx, nil, func(store.Tx) error { t.Error("fn ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	if err := s.View(ctx, nil, func(store.ReadTx) error { t.Error("fn ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	want(t, get(t, s, "a"), "1")
}

func copies(t *testing.T, open func() store.Store) {
	s := open()
	var kept []byte
	err := s.Update(t.Context(), []string{"a"}, func(tx store.Tx) error {
		val := []byte("1")
		tx.Put("a", val)
		val[0] = 'x'
		got, err := tx.Get("a")
		if err != nil {
			return err
		}
		got[0] = 'y'
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.View(t.Context(), []string{"a"}, func(tx store.ReadTx) error {
		kept, err = tx.Get("a")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "2")
	want(t, string(kept), "1")
}

// isolation moves amounts between two keys while others look: the sum must always be the same.
func isolation(t *testing.T, open func() store.Store) {
	put(t, open(), "x", "50", "y", "50")
	keys := []string{"x", "y"}
	read := func(tx store.ReadTx) (x, y int, err error) {
		for _, p := range []struct {
			key string
			to  *int
		}{{"x", &x}, {"y", &y}} {
			val, err := tx.Get(p.key)
			if err != nil {
				return 0, 0, err
			}
			if *p.to, err = strconv.Atoi(string(val)); err != nil {
				return 0, 0, err
			}
		}
		if x+y != 100 {
			err = fmt.Errorf("saw half of a transaction: %d + %d", x, y)
		}
		return x, y, err
	}
	together(t, open, 4, func(who int, s store.Store) error {
		for range 8 {
			var err error
			if who%2 == 0 {
				err = s.View(t.Context(), keys, func(tx store.ReadTx) error { _, _, err := read(tx); return err })
			} else {
				err = s.Update(t.Context(), keys, func(tx store.Tx) error {
					x, y, err := read(tx)
					tx.Put("x", []byte(strconv.Itoa(x-1)))
					tx.Put("y", []byte(strconv.Itoa(y+1)))
					return err
				})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	want(t, get(t, open(), "x", "y"), "34 66")
}

func interleaved(t *testing.T, open func() store.Store) {
	const handles, each = 3, 15
	together(t, open, handles, func(_ int, s store.Store) error {
		for range each {
			if err := Increment(t.Context(), s, "counter"); err != nil {
				return err
			}
		}
		return nil
	})
	want(t, get(t, open(), "counter"), strconv.Itoa(handles*each))
}

// Increment adds one to the number under the key.
func Increment(ctx context.Context, s store.Store, key string) error {
	return s.Update(ctx, []string{key}, func(tx store.Tx) error {
		val, err := tx.Get(key)
		if err != nil {
			return err
		}
		n := 0
		if val != nil {
			if n, err = strconv.Atoi(string(val)); err != nil {
				return err
			}
		}
		tx.Put(key, []byte(strconv.Itoa(n+1)))
		return nil
	})
}

// together runs f at once on n handles.
func together(t *testing.T, open func() store.Store, n int, f func(who int, s store.Store) error) {
	t.Helper()
	var wg sync.WaitGroup
	for who := range n {
		s := open()
		wg.Go(func() {
			if err := f(who, s); err != nil {
				t.Errorf("handle %d: %v", who, err)
			}
		})
	}
	wg.Wait()
}

func scan(t *testing.T, open func() store.Store) {
	s, ok := open().(store.Scanner)
	if !ok {
		t.Fatal("the adapter has no Scan")
	}
	put(t, s.(store.Store), "a/1", "x", "a/2", "y", "a/3", "z", "b/1", "n", "a", "n", "a0", "n")
	list := func(prefix string, reverse bool, limit int) string {
		var got []string
		if err := s.Scan(t.Context(), prefix, reverse, func(key string, val []byte) bool {
			got = append(got, key+"="+string(val))
			return len(got) != limit
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(got, " ")
	}
	want(t, list("a/", false, 0), "a/1=x a/2=y a/3=z")
	want(t, list("a/", true, 0), "a/3=z a/2=y a/1=x")
	want(t, list("a/", true, 1), "a/3=z")
	want(t, list("c", false, 0), "")
	want(t, list("", false, 2), "a=n a/1=x")
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Scan(ctx, "a/", false, func(string, []byte) bool { cancel(); return true })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
}
