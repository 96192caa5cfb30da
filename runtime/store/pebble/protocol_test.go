package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// The protocol of an action, as the engine keeps it: reserved, begun, then the effect, then done; a process that comes after a crash settles what
// was left (reserved never started, begun is in doubt) and never does an effect again. Power is cut before every write and around every effect, and
// again while that is settled.

// The states of a step, in the order in which it has them. The two ways to be settled by recovery have the rank of the state that they settle.
var rank = map[string]int{"": 0, "reserved": 1, "not started": 1, "begun": 2, "in doubt": 2, "done": 3}

// slip is a mistake in the protocol.
type slip string

const (
	effectFirst   slip = "the effect comes before it is recorded"
	blindRetry    slip = "what had begun is done again"
	outcomeFirst  slip = "the outcome is recorded before the effect"
	unmarked      slip = "what may have its effect is not marked first"
	noSlip        slip = ""
	protocolSteps      = 4
)

// world is what a power cut does not undo: what was done, and what somebody was told.
type world struct {
	effects map[int]int
	told    map[int]string // the last state of each step that a commit has acknowledged
}

func (w world) clone() world { return world{maps.Clone(w.effects), maps.Clone(w.told)} }

func step(i int) string { return "step/" + strconv.Itoa(i) }

// moment is a power cut: the disk, and the world.
type moment struct {
	where string
	fs    *vfs.MemFS
	w     world
	made  bool // the store had been created
}

// recorder cuts the power before each write, and wherever it is told to.
type recorder struct {
	mu    sync.Mutex
	mem   *vfs.MemFS
	rng   *rand.Rand
	w     world
	made  bool
	every int // cut at one of so many writes
	n     int
	out   []moment
}

func (r *recorder) cut(where string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, percent := range []int{0, 50, 100} {
		c := r.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r.rng})
		r.out = append(r.out, moment{fmt.Sprintf("%s, %d%% of what was not synced kept", where, percent), c, r.w.clone(), r.made})
	}
}

// moments are the cuts until now: the store's own threads may still make more.
func (r *recorder) moments() []moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.out)
}

func (r *recorder) fs() vfs.FS {
	return errorfs.Wrap(r.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFilePreallocate {
			r.mu.Lock()
			r.n++
			hit := r.n%r.every == 0
			r.mu.Unlock()
			if hit {
				r.cut(fmt.Sprintf("before write %d, of %s", op.Kind, op.Path))
			}
		}
		return nil
	}))
}

func (r *recorder) note(f func(w world)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.w)
}

// set records a state of a step, and that it was acknowledged.
func (r *recorder) set(ctx context.Context, s *Store, i int, state string, bad slip) error {
	err := s.Update(ctx, []string{step(i)}, func(tx store.Tx) error {
		tx.Put(step(i), []byte(state))
		if state == "begun" && bad != unmarked {
			store.Mark(tx)
		}
		return nil
	})
	if err == nil {
		r.note(func(w world) { w.told[i] = state })
	}
	return err
}

// act carries out one step.
func (r *recorder) act(ctx context.Context, s *Store, i int, bad slip) error {
	effect := func() {
		r.cut("before the effect")
		r.note(func(w world) { w.effects[i]++ })
		r.cut("after the effect")
	}
	if err := r.set(ctx, s, i, "reserved", bad); err != nil {
		return err
	}
	if bad == effectFirst {
		effect()
	}
	if err := r.set(ctx, s, i, "begun", bad); err != nil {
		return err
	}
	if bad == outcomeFirst {
		if err := r.set(ctx, s, i, "done", bad); err != nil {
			return err
		}
	}
	if bad != effectFirst {
		effect()
	}
	return r.set(ctx, s, i, "done", bad)
}

// settle is what every process does first.
func (r *recorder) settle(ctx context.Context, s *Store, bad slip) error {
	for i := range protocolSteps {
		state, err := stateOf(ctx, s, i)
		if err != nil {
			return err
		}
		switch state {
		case "reserved":
			err = r.set(ctx, s, i, "not started", bad)
		case "begun":
			if bad == blindRetry {
				r.note(func(w world) { w.effects[i]++ })
			}
			err = r.set(ctx, s, i, "in doubt", bad)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func stateOf(ctx context.Context, s *Store, i int) (state string, err error) {
	err = s.View(ctx, []string{step(i)}, func(tx store.ReadTx) error {
		val, err := tx.Get(step(i))
		state = string(val)
		return err
	})
	return state, err
}

// history has several processes carry out a few steps each, and returns every moment at which the power could have been cut.
func history(t *testing.T, seed uint64, without mutant, bad slip) []moment {
	t.Helper()
	r := &recorder{mem: newMem(t), rng: rand.New(rand.NewPCG(seed, 1)), w: world{map[int]int{}, map[int]string{}}, every: 1}
	cfg := memConfig(t, r.fs())
	cfg.without = without
	if err := create(cfg); err != nil {
		t.Fatal(err)
	}
	r.made = true
	for i := range protocolSteps {
		s := unattended(t, cfg)
		if err := errors.Join(r.settle(t.Context(), s, bad), r.act(t.Context(), s, i, bad), s.Close()); err != nil {
			t.Fatal(err)
		}
		if r.rng.IntN(2) == 0 || bad != noSlip || without != "" {
			continue
		}
		if err := filler(t.Context(), cfg, r.rng.IntN(40)); err != nil {
			t.Fatal(err)
		}
	}
	return r.moments()
}

// filler makes commits of other things, so that files are flushed and rotated between the steps.
func filler(ctx context.Context, cfg Config, n int) error {
	s, err := New(cfg)
	if err != nil {
		return err
	}
	for i := range n {
		if err := s.Update(ctx, nil, func(tx store.Tx) error { tx.Put("filler/"+strconv.Itoa(i%7), make([]byte, 8<<10)); return nil }); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return s.Close()
}

// survives opens what a power cut left, holds it against the world, settles it, and goes on. It returns the cuts during that.
func (m moment) survives(t *testing.T, seed uint64, without mutant, bad slip) (again []moment, err error) {
	r := &recorder{mem: m.fs, rng: rand.New(rand.NewPCG(seed, 2)), w: m.w, made: m.made, every: 7}
	cfg := memConfig(t, r.fs())
	cfg.without = without
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	err = m.holds(t.Context(), s)
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == problem.StateMissing && !m.made {
		if err := create(cfg); err != nil {
			return nil, fmt.Errorf("create again: %w", err)
		}
		r.note(func(world) { r.made = true })
		err = m.holds(t.Context(), s)
	}
	if err != nil {
		return nil, err
	}
	if err := r.settle(t.Context(), s, bad); err != nil {
		return nil, fmt.Errorf("settle: %w", err)
	}
	for i, n := range r.w.effects {
		if n > 1 {
			return nil, fmt.Errorf("the effect of step %d happened %d times", i, n)
		}
	}
	if err := r.act(t.Context(), s, protocolSteps, bad); err != nil {
		return nil, fmt.Errorf("go on: %w", err)
	}
	return r.moments(), nil
}

// holds compares the records with the world.
func (m moment) holds(ctx context.Context, s *Store) error {
	for i := range protocolSteps + 1 {
		state, err := stateOf(ctx, s, i)
		if err != nil {
			return err
		}
		switch {
		case rank[state] < rank[m.w.told[i]]:
			return fmt.Errorf("step %d was acknowledged as %q, and its record says %q", i, m.w.told[i], state)
		case m.w.effects[i] > 0 && rank[state] < rank["begun"]:
			return fmt.Errorf("step %d had its effect, and its record says %q", i, state)
		case state == "done" && m.w.effects[i] == 0:
			return fmt.Errorf("step %d is recorded as done, and had no effect", i)
		case m.w.effects[i] > 1:
			return fmt.Errorf("step %d had its effect %d times", i, m.w.effects[i])
		}
	}
	return nil
}

// crashes cuts the power until there were n cuts, and returns how many there were and what was found.
func crashes(t *testing.T, n int, without mutant, bad slip) (cuts int, found []string) {
	t.Helper()
	var total atomic.Int64
	var mu sync.Mutex
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return int(total.Load()) >= n || len(found) > 0 && (bad != noSlip || without != "")
	}
	for seed := uint64(1); !enough(); seed++ {
		all := history(t, seed, without, bad)
		next := atomic.Int64{}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for i := next.Add(1) - 1; int(i) < len(all) && !enough(); i = next.Add(1) - 1 {
					list := []moment{all[i]}
					for depth := 0; len(list) > 0; depth++ {
						m := list[len(list)-1]
						list = list[:len(list)-1]
						total.Add(1)
						again, err := m.survives(t, seed, without, bad)
						if err != nil {
							mu.Lock()
							found = append(found, fmt.Sprintf("seed %d, %s: %v", seed, m.where, err))
							mu.Unlock()
						}
						if depth == 0 && len(again) > 0 { // once more, while it was settled
							list = append(list, again[int(i)%len(again)])
						}
					}
				}
			})
		}
		wg.Wait()
	}
	return int(total.Load()), found
}

// TestCrashes is the promise: whatever write the power is cut before, nothing that was acknowledged is lost, no effect happens twice or without its
// record, and the store opens again. RUNBOOK_CRASHES is how often; make crash sets it.
func TestCrashes(t *testing.T) {
	n := 10_000
	if raced {
		n = 300
	}
	if s, ok := os.LookupEnv("RUNBOOK_CRASHES"); ok {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	cuts, found := crashes(t, n, "", noSlip)
	t.Logf("%d power cuts", cuts)
	for _, f := range found[:min(len(found), 10)] {
		t.Error(f)
	}
	if cuts < n || len(found) > 0 {
		t.Errorf("%d power cuts, %d of them lost something", cuts, len(found))
	}
}

// damaged takes the end of Pebble's newest log away from what a power cut left, which Pebble does not notice. Then the store says that it is
// damaged, or no effect is without its record.
func (m moment) damaged(t *testing.T, without mutant) error {
	names, err := m.fs.List(memDir)
	if err != nil {
		return nil // there is no store yet
	}
	newest := ""
	for _, name := range names {
		if strings.HasSuffix(name, ".log") && name > newest {
			newest = name
		}
	}
	if newest == "" {
		return nil
	}
	path := memDir + "/" + newest
	whole := bytes.TrimRight(slurp(t, m.fs, path), "\x00") // what was written ahead is nothing to lose
	for _, keep := range []int{0, len(whole) / 2, len(whole) * 9 / 10} {
		clone := copyOf(m.fs)
		spill(t, clone, path, whole[:keep])
		cfg := memConfig(t, clone)
		cfg.without = without
		s := unattended(t, cfg)
		for i := range protocolSteps {
			state, err := stateOf(t.Context(), s, i)
			if c := code(err); err != nil && (c == problem.StoreDamaged || c == problem.StateMissing) {
				break
			}
			if err != nil {
				return err
			}
			if m.w.effects[i] > 0 && rank[state] < rank["begun"] {
				return fmt.Errorf("with %d of %d bytes of %s, step %d had its effect, and its record says %q", keep, len(whole), newest, i, state)
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// TestDamageAfterAPowerCut: what may have had its effect is marked before, so that its record cannot go unnoticed, whenever the power is cut and
// whatever becomes of the log then. Without the mark, and without waiting for it, it can.
func TestDamageAfterAPowerCut(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		without mutant
		bad     slip
	}{{}, {without: unsyncedMark}, {bad: unmarked}} {
		var found error
		broken := x.without != "" || x.bad != noSlip
		cuts := 0
		for seed := uint64(1); seed <= 3; seed++ {
			for i, m := range history(t, seed, x.without, x.bad) {
				if len(m.w.effects) == 0 || i%5 != 0 || raced && i%50 != 0 || broken && found != nil {
					continue
				}
				cuts++
				if err := m.damaged(t, x.without); err != nil && found == nil {
					found = fmt.Errorf("seed %d, %s: %w", seed, m.where, err)
				}
			}
		}
		switch {
		case !broken && found != nil:
			t.Error(found)
		case broken && found == nil && !raced:
			t.Errorf("%s%s: not found in %d power cuts", x.without, x.bad, cuts)
		default:
			t.Logf("%s%s: %d power cuts, %v", x.without, x.bad, cuts, found)
		}
	}
}

// TestMutants shows that each part is needed: without it a power cut is found that loses something.
func TestMutants(t *testing.T) {
	if raced {
		t.Log("the same without the race detector is enough")
		return
	}
	for _, without := range []mutant{unsyncedCommit, markFirst, noParentSync} {
		if cuts, found := crashes(t, 10_000, without, noSlip); len(found) == 0 {
			t.Errorf("%s: not found in %d power cuts", without, cuts)
		} else {
			t.Logf("%s: found after %d power cuts: %s", without, cuts, found[0])
		}
	}
	for _, bad := range []slip{effectFirst, blindRetry, outcomeFirst} {
		if cuts, found := crashes(t, 10_000, "", bad); len(found) == 0 {
			t.Errorf("%s: not found in %d power cuts", bad, cuts)
		} else {
			t.Logf("%s: found after %d power cuts: %s", bad, cuts, found[0])
		}
	}
}

// A sync that fails must never be told as a success: with a Fatalf that returns, as a logger's does by itself, it would be.
func TestAFailedSyncIsNoSuccess(t *testing.T) {
	t.Parallel()
	for _, without := range []mutant{"", fatalReturns} {
		var armed atomic.Bool
		cfg := memConfig(t, errorfs.Wrap(newMem(t), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) {
				return syscall.EIO
			}
			return nil
		})))
		if err := create(cfg); err != nil {
			t.Fatal(err)
		}
		var fatal atomic.Bool
		cfg.without, cfg.grace = without, time.Millisecond
		cfg.Fatal = func(*problem.Problem) { fatal.Store(true) }
		s, err := New(cfg) // it is left as it is: what waits for this disk waits for ever
		if err != nil {
			t.Fatal(err)
		}
		if err := double(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for !fatal.Load() {
				runtime.Gosched()
			}
			cancel()
		}()
		err = double(ctx, s)
		cancel()
		if !fatal.Load() {
			t.Errorf("%q: nothing was fatal: %v", without, err)
		}
		if without == "" && !errors.Is(err, store.ErrUnknown) {
			t.Errorf("a failed sync was told as %v", err)
		}
		if without == fatalReturns && err != nil {
			t.Errorf("%s: not found: %v", without, err)
		}
	}
}
