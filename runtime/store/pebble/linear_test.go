package pebble

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// A target may be reserved once until it is released: what every guard that counts comes down to.
type reservation struct {
	target  int
	release bool
}

var reservations = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, op := range history {
			t := op.Input.(reservation).target
			by[t] = append(by[t], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range by {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		reserved, got := state.(bool), output.(bool)
		if input.(reservation).release {
			return got == reserved, false
		}
		return got == !reserved, true
	},
}

// errNo is how a function says that there is nothing to write.
var errNo = errors.New("no")

func (op reservation) key() string { return "target/" + strconv.Itoa(op.target) }

// want is what the operation changes, from what it found.
func (op reservation) want(found []byte) (val string, ok bool) {
	reserved := string(found) == "1"
	if op.release {
		return "0", reserved
	}
	return "1", !reserved
}

// decided checks and reserves in one transaction.
func decided(t *testing.T, s *Store, op reservation) bool {
	err := s.Update(t.Context(), []string{op.key()}, func(tx store.Tx) error {
		found, err := tx.Get(op.key())
		if err != nil {
			return err
		}
		val, ok := op.want(found)
		if !ok {
			return errNo
		}
		tx.Put(op.key(), []byte(val))
		return nil
	})
	if err != nil && !errors.Is(err, errNo) {
		t.Error(err)
	}
	return err == nil
}

// guessed is the mistake: it checks in one transaction, and reserves in another.
func guessed(t *testing.T, s *Store, op reservation) bool {
	var found []byte
	err := s.View(t.Context(), []string{op.key()}, func(tx store.ReadTx) (err error) { found, err = tx.Get(op.key()); return err })
	if err != nil {
		t.Error(err)
	}
	val, ok := op.want(found)
	if !ok {
		return false
	}
	if err := s.Update(t.Context(), nil, func(tx store.Tx) error { tx.Put(op.key(), []byte(val)); return nil }); err != nil {
		t.Error(err)
	}
	return true
}

// clients has many of them reserve and release a few targets, through two stores that are open over the same directory, as two processes are.
func clients(t *testing.T, n, each int, do func(*testing.T, *Store, reservation) bool) []porcupine.Operation {
	t.Helper()
	dir := newDir(t)
	stores := []*Store{open(t, Config{Dir: dir, Wait: testWait}), open(t, Config{Dir: dir, Wait: testWait})}
	var mu sync.Mutex
	var history []porcupine.Operation
	from := time.Now()
	var wg sync.WaitGroup
	for c := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for range each {
				op := reservation{target: rng.IntN(3), release: rng.IntN(3) == 0}
				call := time.Since(from)
				got := do(t, stores[c%2], op)
				done := porcupine.Operation{ClientId: c, Input: op, Call: int64(call), Output: got, Return: int64(time.Since(from))}
				mu.Lock()
				history = append(history, done)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

// Whatever runs beside it, a check and its reservation are one.
func TestCheckAndReserveIsLinearizable(t *testing.T) {
	t.Parallel()
	for _, n := range []int{8, 32} {
		if r := porcupine.CheckOperationsTimeout(reservations, clients(t, n, 25, decided), time.Minute); r != porcupine.Ok {
			t.Errorf("%d clients: %s", n, r)
		}
	}
	illegal := false
	for range 20 { // it does not meet the other every time
		illegal = illegal || porcupine.CheckOperationsTimeout(reservations, clients(t, 16, 10, guessed), time.Minute) == porcupine.Illegal
		if illegal {
			return
		}
	}
	t.Error("a check that is apart from its reservation was not found out")
}
