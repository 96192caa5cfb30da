// Package pebble keeps the store in an embedded Pebble database that many short-lived processes share.
//
// A process opens the database at its first transaction, under its own flock, and closes it as soon as another process
// waits. Pebble alone does not keep the port's promise; this package adds what is missing:
//
//   - Pebble opens a damaged or truncated log without an error and with records gone. So every commit also writes a
//     record log/<seq>, and once it is durable a mark outside the database's directory names it. A gap in the log, or a
//     log that ends before the mark, is StoreDamaged and nothing opens.
//   - A failed fsync ends in Logger.Fatalf, and a Fatalf that returns turns the failed commit into a success. Ours ends
//     the process.
//   - A marker file that Pebble creates before its directory is synced can leave a store that does not open after a
//     power cut. syncFS syncs first.
//   - Pebble's own lock is lost when any code in the holder opens and closes the LOCK file, and its error names nobody.
//     The flock is on a file of our own with the holder's name in it.
//
// The mark is written with every commit and waits for the disk only with those that ask, as the one before an effect does: what a killed process
// has written is marked all the same, and what a power cut leaves unmarked is on the disk, so that it takes damage besides to lose it unnoticed.
package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// How often the holder of an idle store looks whether somebody waits, and how long a caller whose context has ended
// still waits for a commit under way, so that an interrupt does not turn a healthy commit into an unknown one.
const (
	lookEvery = 5 * time.Millisecond
	grace     = time.Second
)

// Config says where the store is. Only Dir is required.
type Config struct {
	Dir      string        // the database's directory
	MarkFile string        // default Dir + ".mark"; must not be inside Dir
	LockFile string        // default Dir + ".lock"
	Wait     time.Duration // how long to wait for one other holder, default 2s; ten times that while holders take turns
	Holder   string        // what to call this process to those who wait, "runbook run"

	// Writer says that this process is going to write: its first transaction opens the database for that, even if it only
	// reads, instead of opening it twice.
	Writer bool

	// PerTransaction closes the store after each transaction instead of when somebody waits.
	PerTransaction bool

	// The rest is for tests.
	FS      vfs.FS                          // default the disk
	Space   func(dir string) (Space, error) // default the disk's
	Fatal   func(*problem.Problem)          // must not return; default says why on stderr and exits
	Now     func() time.Time                // for the holder's "since"
	grace   time.Duration
	without mutant
}

func (c Config) withDefaults() Config {
	if c.MarkFile == "" {
		c.MarkFile = c.Dir + ".mark"
	}
	if c.LockFile == "" {
		c.LockFile = c.Dir + ".lock"
	}
	if c.Wait == 0 {
		c.Wait = 2 * time.Second
	}
	if c.Holder == "" {
		c.Holder = "runbook"
	}
	if c.Space == nil {
		c.Space = diskSpace
		if c.FS != nil {
			c.Space = func(string) (Space, error) { return Space{Bytes: 1 << 40}, nil }
		}
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Fatal == nil {
		c.Fatal = exit
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // only shown to people
	}
	if c.grace == 0 {
		c.grace = grace
	}
	return c
}

// Store implements store.Store and store.Scanner. It is safe for use by several goroutines; their transactions run one
// after the other, and those that wait at the same time are committed together. fn must not call the Store again, and may run in
// another goroutine than that of its caller.
type Store struct {
	cfg Config

	// turn holds one token: who has it may use the fields below. A channel, because waiting for it must end with a context.
	turn   chan struct{}
	lock   *fileLock // held while db is open
	db     *database // nil while let go
	closed bool

	queue queue // of updates; whoever has the turn carries out all that wait

	ahead chan struct{} // closed when what Ahead began has ended; nil: it was not called

	wedged atomic.Bool // a goroutine that nobody waits for any more has the turn: the disk hangs
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Scanner = (*Store)(nil)
	_ store.Marker  = (*tx)(nil)
)

// New returns a Store over the directory that Create made. It touches nothing: each transaction opens what it needs and
// says what is wrong.
func New(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, problem.New(problem.Internal, "store: no directory given")
	}
	return &Store{cfg: cfg.withDefaults(), turn: make(chan struct{}, 1)}, nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.cfg.Dir }

// Ahead begins to open the store, so that the first transaction finds it open. It is called before all others. It waits for nobody who has the store or
// waits for it, and what is wrong with it is told by the transaction.
func (s *Store) Ahead() {
	s.turn <- struct{}{}
	s.ahead = make(chan struct{})
	go func() {
		defer close(s.ahead)
		var err error
		if s.lock, err = s.cfg.tryFree(); err != nil {
			<-s.turn
			return
		}
		if left, _ := s.ready(context.Background(), false); !left {
			s.end()
		}
	}()
}

// awaitAhead waits for the end of what Ahead began, for as long as the disk and ctx let it take.
func (s *Store) awaitAhead(ctx context.Context) error {
	if s.ahead == nil {
		return nil
	}
	select {
	case <-s.ahead:
		return nil
	case <-ctx.Done():
		return s.cfg.hangs(ctx.Err())
	}
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, keys []string, fn func(store.ReadTx) error) error {
	db, err := s.begin(ctx, false)
	if err != nil {
		return err
	}
	defer s.end()
	t := newTx(db, keys)
	return t.run(func() error { return fn(readTx{t}) })
}

// Scan implements store.Scanner.
func (s *Store) Scan(ctx context.Context, prefix string, reverse bool, fn func(key string, val []byte) bool) error {
	db, err := s.begin(ctx, false)
	if err != nil {
		return err
	}
	defer s.end()
	return db.scan(ctx, prefix, reverse, fn)
}

// Close lets go of the store for good. It waits for a transaction that is under way in another goroutine.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*s.cfg.Wait)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	s.closed = true
	err := s.letGo()
	<-s.turn
	return err
}

// begin waits for its turn in this process, then for the lock among processes, and opens the database if it is not open
// as it is needed. On success the caller has the turn and must end.
func (s *Store) begin(ctx context.Context, write bool) (*database, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	left, err := s.ready(ctx, write)
	if err != nil {
		if !left {
			s.end()
		}
		return nil, err
	}
	return s.db, nil
}

// takeTurn waits until no other transaction of this process is under way.
func (s *Store) takeTurn(ctx context.Context) error {
	if err := s.awaitAhead(ctx); err != nil {
		return err
	}
	patience := time.NewTimer(s.cfg.Wait)
	defer patience.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("store: wait for a transaction of this process: %w", ctx.Err())
	case <-patience.C:
		return s.cfg.busyHere(s.wedged.Load())
	}
}

// ready makes s.db fit for use. left says that a goroutine took the turn over.
func (s *Store) ready(ctx context.Context, write bool) (left bool, err error) {
	if s.closed {
		return false, fmt.Errorf("store: %w", fs.ErrClosed)
	}
	if s.db != nil && !s.cfg.inPlace(s.db, s.lock) {
		// Somebody has put a backup in its place, or removed it: what is open is not the store any more.
		_ = s.letGo()
	}
	if s.db != nil && s.db.broken.Load() == nil && (!write || !s.db.readOnly) {
		return false, nil
	}
	if s.lock == nil {
		if s.lock, err = s.cfg.acquire(ctx); err != nil {
			return false, err
		}
	}
	if write {
		if err := s.cfg.checkSpace(0); err != nil {
			return false, err
		}
	} else if err := s.cfg.checkDisk(); err != nil {
		return false, err
	}
	write = write || s.cfg.Writer && s.cfg.checkSpace(0) == nil // on a full disk it can still be read
	trouble := make(chan *problem.Problem, 1)
	done := s.start(func() error {
		if err := s.closeDatabase(); err != nil {
			return err
		}
		db, err := s.cfg.openOr(trouble, !write)
		if err != nil {
			return err
		}
		s.db = db
		if !s.cfg.PerTransaction {
			go s.keep(db)
		}
		return nil
	})
	left, err = s.await(ctx, done, trouble)
	if p, told := errors.AsType[*problem.Problem](err); left && told {
		return true, p
	}
	if left {
		return true, s.cfg.hangs(err)
	}
	return false, err
}

// inPlace says whether the store that is open is still the one that others would open.
func (c *Config) inPlace(db *database, l *fileLock) bool {
	now, err := c.identity()
	if err != nil || c.sameLock(l) != nil {
		return false
	}
	for i := range now {
		if !now[i].same(db.identity[i]) {
			return false
		}
	}
	return true
}

// identity names the files on the disk, beyond their paths. There is nothing to name on a test's file system.
func (c *Config) identity() ([]fileID, error) {
	if c.FS != vfs.Default {
		return nil, nil
	}
	var ids []fileID
	for _, path := range []string{c.Dir, c.MarkFile} {
		id, err := identify(path)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// start runs f, which may hang for as long as the disk does, beside the caller. A panic in Pebble means a disk that
// cannot be trusted any more (it panics when it fails to sync a directory), so it ends the process.
func (s *Store) start(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.cfg.fatal(fmt.Sprint(r))
			}
		}()
		done <- f()
	}()
	return done
}

// await waits for what start began. When ctx ends first, or there is trouble that Pebble would wait for the end of, it waits for the grace
// period and then leaves: the turn passes to a goroutine that gives it back when the disk answers.
func (s *Store) await(ctx context.Context, done <-chan error, trouble <-chan *problem.Problem) (left bool, err error) {
	var why error
	select {
	case err := <-done:
		return false, err
	case p := <-trouble:
		why = p
	case <-ctx.Done():
		why = ctx.Err()
	}
	t := time.NewTimer(s.cfg.grace)
	defer t.Stop()
	select {
	case err := <-done:
		return false, err
	case <-t.C:
	}
	s.wedged.Store(true)
	go func() {
		<-done //nolint:errcheck // the caller was told that nobody knows
		s.wedged.Store(false)
		s.end()
	}()
	return true, why
}

// end gives the turn back, and lets go of the store when it should not be kept.
func (s *Store) end() {
	if s.db == nil || s.cfg.PerTransaction || s.db.broken.Load() != nil || s.lock.wanted() {
		// What failed here failed after the transaction: the next open judges the store anew.
		_ = s.letGo()
	}
	<-s.turn
}

// keep lets go of db within lookEvery of somebody announcing that he waits, whatever this process does meanwhile.
func (s *Store) keep(db *database) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-db.gone:
			return
		case <-tick.C:
		}
		select {
		case s.turn <- struct{}{}:
			if s.db == db && s.lock.wanted() {
				_ = s.letGo()
			}
			<-s.turn
		default: // a transaction is under way: end looks
		}
	}
}

// letGo closes the database and then releases the lock, whether or not closing worked: the commits are durable, and a
// lock that is never released would stop everybody.
func (s *Store) letGo() error {
	err := s.closeDatabase()
	if s.lock != nil {
		err = errors.Join(err, s.lock.release())
		s.lock = nil
	}
	return err
}

func (s *Store) closeDatabase() error {
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	return db.close()
}

// exit is the end of a process that can no longer say what is on the disk. No deferred call runs: none may act.
func exit(p *problem.Problem) {
	fmt.Fprintf(os.Stderr, "runbook: error: %s\n", p.Error())
	if p.Hint != "" {
		fmt.Fprintf(os.Stderr, "runbook: hint: %s\n", p.Hint)
	}
	os.Exit(int(problem.ExitOf(p.Code))) //nolint:forbidigo // returning would turn a failed commit into a success
}
