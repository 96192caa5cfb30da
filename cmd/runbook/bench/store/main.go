// Command store measures what it costs to keep an action's records: in an open store, opened for each transaction, in SQLite, and as the disk alone would
// have it. It is a module of its own because of SQLite.
//
// An action is three transactions, each durable before the next begins: reserve (six documents are read, eight written), begun (two and three), and the
// outcome (three and six), of 400 bytes each. What is compared takes turns, round by round, on the same disk in the same process, so that whatever else the
// machine does meets both of a pair. Not more than two take turns: each empties the caches of the others.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	pdb "github.com/cockroachdb/pebble/v2"
	_ "github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// action is what the three transactions of one action read and write.
var action = []struct{ reads, writes int }{{6, 8}, {2, 3}, {3, 6}}

var document = bytes.Repeat([]byte("x"), 400)

func main() {
	rounds := flag.Int("rounds", 300, "how often each is measured")
	dir := flag.String("dir", "", "a directory on the disk that is meant; a temporary one by default")
	settled := flag.Int("settled", 100_000, "how many settled actions the full store has")
	flag.Parse()
	if err := run(*dir, *rounds, *settled); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir string, rounds, settled int) error {
	root, err := os.MkdirTemp(dir, "runbook-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := actions(root, rounds); err != nil {
		return err
	}
	if err := writers(root, rounds); err != nil {
		return err
	}
	return opening(root, rounds/3, settled)
}

func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

func us(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond)) }

// contest times each of several things in turn.
func contest(rounds int, things ...func(round int) error) ([]time.Duration, error) {
	took := make([][]time.Duration, len(things))
	for i := range rounds + 5 { // the first rounds only warm up
		for k, f := range things {
			began := time.Now()
			if err := f(i); err != nil {
				return nil, err
			}
			if i >= 5 {
				took[k] = append(took[k], time.Since(began))
			}
		}
	}
	out := make([]time.Duration, len(things))
	for i := range took {
		out[i] = median(took[i])
	}
	return out, nil
}

// quiet is a logger that says nothing of what goes well.
type quiet struct{}

func (quiet) Infof(string, ...any) {}

func (quiet) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func newStore(root, name string, cfg pebble.Config) (*pebble.Store, error) {
	cfg.Dir = filepath.Join(root, name)
	if err := pebble.Create(cfg.Dir); err != nil {
		return nil, err
	}
	return pebble.New(cfg)
}

// act keeps the records of one action. What is marked waits for the mark before the effect as well.
func act(s *pebble.Store, round int, marked bool) error {
	for t, size := range action {
		keys := make([]string, size.reads)
		for i := range keys {
			keys[i] = fmt.Sprintf("doc/%d", i)
		}
		err := s.Update(context.Background(), keys, func(tx store.Tx) error {
			for _, k := range keys {
				if _, err := tx.Get(k); err != nil {
					return err
				}
			}
			if t == 1 && marked { // the effect comes next
				store.Mark(tx)
			}
			for i := range size.writes {
				key := fmt.Sprintf("doc/%d", i)
				if i == 0 { // the record itself; the others are documents that are written anew
					key = fmt.Sprintf("step/%d-%d", round, t)
				}
				tx.Put(key, document)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// actBare is what Pebble itself and the disk take for it: the same documents in three batches, nothing read, nothing checked, and one line overwritten in
// another file.
func actBare(db *pdb.DB, mark *os.File, round int) error {
	for t, size := range action {
		b := db.NewBatch()
		for i := range size.writes {
			key := fmt.Sprintf("doc/%d", i)
			if i == 0 {
				key = fmt.Sprintf("step/%d-%d", round, t)
			}
			if err := b.Set([]byte(key), document, nil); err != nil {
				return err
			}
		}
		if err := errors.Join(b.Commit(pdb.Sync), b.Close()); err != nil {
			return err
		}
		if t != 1 {
			continue
		}
		if _, err := mark.WriteAt(document[:78], int64(round%2)*4096); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(mark.Fd())); err != nil {
			return err
		}
	}
	return nil
}

// actIn is the same in SQLite.
func actIn(db *sql.DB, round int) error {
	for t, size := range action {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		for i := range size.reads {
			var v []byte
			if err := tx.QueryRow("select v from docs where k = ?", fmt.Sprintf("doc/%d", i)).Scan(&v); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		for i := range size.writes {
			key := fmt.Sprintf("doc/%d", i)
			if i == 0 {
				key = fmt.Sprintf("step/%d-%d", round, t)
			}
			if _, err := tx.Exec("insert into docs values (?, ?) on conflict (k) do update set v = excluded.v", key, document); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func actions(root string, rounds int) error {
	f, err := os.Create(filepath.Join(root, "raw"))
	if err != nil {
		return err
	}
	defer f.Close()
	open, err := newStore(root, "open", pebble.Config{})
	if err != nil {
		return err
	}
	defer open.Close()
	opened, err := newStore(root, "opened", pebble.Config{PerTransaction: true})
	if err != nil {
		return err
	}
	defer opened.Close()
	bare, err := pdb.Open(filepath.Join(root, "bare"), &pdb.Options{MemTableSize: 256 << 10, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer bare.Close()
	mark, err := os.Create(filepath.Join(root, "mark"))
	if err != nil {
		return err
	}
	defer mark.Close()
	if _, err := mark.Write(make([]byte, 8192)); err != nil {
		return err
	}
	if err := mark.Sync(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", filepath.Join(root, "sqlite.db")+"?_journal_mode=WAL&_synchronous=FULL&_txlock=immediate")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("create table docs (k text primary key, v blob) without rowid"); err != nil {
		return err
	}
	raw := func(int) error {
		if _, err := f.Write(document); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	}
	ours := func(i int) error { return act(open, i, true) }
	fmt.Printf("| what | median | against | times as long |\n|---|---|---|---|\n")
	round := 0
	for _, pair := range []struct {
		what, against string
		a, b          func(int) error
	}{
		{"a full action in an open store: three synced commits, and the mark before the effect", "one append of 400 bytes with fdatasync", ours, raw},
		{"the same without the mark", "one append", func(i int) error { return act(open, i, false) }, raw},
		{"a full action again", "the same in SQLite, WAL, synchronous=FULL, open", ours, func(i int) error { return actIn(db, i) }},
		{"the same, the store opened for each transaction", "one append", func(i int) error { return act(opened, i, true) }, raw},
		{"what is left of it without this package: three batches of Pebble alone, and one line of another file", "one append", func(i int) error { return actBare(bare, mark, i) }, raw},
	} {
		next := func(f func(int) error) func(int) error { return func(i int) error { return f(round + i) } }
		took, err := contest(rounds, next(pair.b), next(pair.a))
		if err != nil {
			return err
		}
		round += rounds + 5
		fmt.Printf("| %s | %s | %s: %s | %.2f |\n", pair.what, us(took[1]), pair.against, us(took[0]), float64(took[1])/float64(took[0]))
	}
	return nil
}

// writers is how many commits a second one process makes with one and with 16 writers.
func writers(root string, rounds int) error {
	s, err := newStore(root, "writers", pebble.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	write := func(n int) error {
		errs := make([]error, n)
		var wg sync.WaitGroup
		for w := range n {
			wg.Go(func() {
				for range 4 {
					key := "w/" + strconv.Itoa(w)
					errs[w] = errors.Join(errs[w], s.Update(context.Background(), []string{key}, func(tx store.Tx) error { tx.Put(key, document); return nil }))
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	took, err := contest(rounds/3, func(int) error { return write(1) }, func(int) error { return write(16) })
	if err != nil {
		return err
	}
	fmt.Printf("\n| writers in one process | commits a second | against one |\n|---|---|---|\n")
	one, all := 4/took[0].Seconds(), 64/took[1].Seconds()
	fmt.Printf("| 1 | %.0f | 1 |\n| 16 | %.0f | %.1f |\n", one, all, all/one)
	return nil
}

// opening is what a short process pays before it can decide: open, look for what others have left, close.
func opening(root string, rounds, settled int) error {
	empty, full := filepath.Join(root, "empty"), filepath.Join(root, "full")
	for dir, n := range map[string]int{empty: 0, full: settled} {
		s, err := newStore(root, filepath.Base(dir), pebble.Config{})
		if err != nil {
			return err
		}
		for i := 0; i < n; i += 500 {
			err := s.Update(context.Background(), nil, func(tx store.Tx) error {
				for k := i; k < i+500; k++ {
					tx.Put(fmt.Sprintf("attempt/%08d", k), document)
					tx.Put(fmt.Sprintf("step/%08d", k), document)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	recoverIn := func(dir string) func(int) error {
		return func(int) error {
			s, err := pebble.New(pebble.Config{Dir: dir})
			if err != nil {
				return err
			}
			if _, err := ledger.ReadStatus(context.Background(), s, clock.Read); err != nil {
				return err
			}
			err = s.Update(context.Background(), []string{ledger.KeyClock, ledger.KeyBreaker}, func(tx store.Tx) error {
				_, err := ledger.Tick(tx, clock.Read)
				return err
			})
			return errors.Join(err, s.Close())
		}
	}
	took, err := contest(rounds, recoverIn(empty), recoverIn(full))
	if err != nil {
		return err
	}
	fmt.Printf("\n| open, recover, close | median | against empty |\n|---|---|---|\n| an empty store | %s | 1 |\n| %d settled actions | %s | %.2f |\n", us(took[0]), settled, us(took[1]), float64(took[1])/float64(took[0]))
	return nil
}
