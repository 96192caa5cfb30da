package pebble

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	pdb "github.com/cockroachdb/pebble/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Inside the database the first byte says whose a key is.
const (
	ours   = 'k' // k<key>: a record of the port's user
	logged = 'l' // l<seq, 8 bytes big endian>: the chain value of commit seq
	meta   = 'm' // mfloor: the lowest seq that log/ still has
)

// The log only has to reach back further than any loss that Pebble could hide, which is what it has not flushed yet. It is
// cut to logKept when it reaches logMax, inside a commit.
const (
	logMax  = 1024
	logKept = 512
)

var floorKey = []byte{meta, 'f', 'l', 'o', 'o', 'r'}

// chain is the fingerprint of a history: of the commit it stands for and of all before it.
type chain [16]byte

// database is the open, verified database. One goroutine uses it at a time.
type database struct {
	cfg      *Config
	db       *pdb.DB
	mark     *mark
	readOnly bool
	identity []fileID

	seq   uint64 // of the last commit
	chain chain
	floor uint64

	// broken is set, possibly by Pebble's goroutines, when this handle must not be used again.
	broken atomic.Pointer[problem.Problem]
	gone   chan struct{} // closed with the database
	// trouble is told what broke it first, nil if nobody listens.
	trouble chan<- *problem.Problem
}

func (d *database) breaks(p *problem.Problem) {
	if d.broken.CompareAndSwap(nil, p) && d.trouble != nil {
		d.trouble <- p // it has room for one
	}
}

func (d *database) close() error {
	close(d.gone)
	err := d.db.Close()
	if d.mark != nil && d.broken.Load() != nil {
		d.mark.behind = 0 // it is not known what it may say
	}
	if d.mark != nil {
		err = errors.Join(err, d.mark.close())
	}
	if err != nil {
		return d.cfg.unusable(err, "close store %s", d.cfg.Dir)
	}
	return nil
}

func ourKey(key string) []byte { return append([]byte{ours}, key...) }

func logKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{logged}, seq) }

func (d *database) get(key string) ([]byte, error) {
	val, closer, err := d.db.Get(ourKey(key))
	if errors.Is(err, pdb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, d.cfg.unreadable(err, "read %q", key)
	}
	val = append([]byte{}, val...)
	if err := closer.Close(); err != nil {
		return nil, d.cfg.unreadable(err, "read %q", key)
	}
	return val, nil
}

// commit writes what a group of transactions collected, the log record and the trimming of the log in one synced batch, and then the mark, which
// it waits for if marked. The order matters: a mark ahead of the database would look like a lost record after a crash. The same writes make the
// same batch.
func (d *database) commit(writes map[string][]byte, marked bool) error {
	b := d.db.NewBatch()
	defer func() { _ = b.Close() }()
	sum := sha256.New()
	sum.Write(d.chain[:])
	for _, k := range slices.Sorted(maps.Keys(writes)) {
		var err error
		if val := writes[k]; val == nil {
			err = b.Delete(ourKey(k), nil)
		} else {
			err = b.Set(ourKey(k), val, nil)
		}
		if err != nil {
			return d.cfg.unusable(err, "prepare commit")
		}
		// With their lengths, so that no two histories are the same bytes.
		head := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(k))), uint64(len(writes[k])))
		sum.Write(append(head, k...))
		sum.Write(writes[k])
	}
	seq := d.seq + 1
	var c chain
	copy(c[:], sum.Sum(nil))
	err := b.Set(logKey(seq), c[:], nil)
	floor := d.floor
	if seq-floor >= logMax {
		floor = seq - logKept
		err = errors.Join(err, b.DeleteRange(logKey(d.floor), logKey(floor), nil),
			b.Set(floorKey, binary.BigEndian.AppendUint64(nil, floor), nil))
	}
	if err != nil {
		return d.cfg.unusable(err, "prepare commit")
	}
	if d.cfg.without == markFirst {
		if err := d.mark.write(seq, c, true); err != nil {
			return d.lost(err)
		}
	}
	sync := pdb.Sync
	if d.cfg.without == unsyncedCommit {
		sync = pdb.NoSync
	}
	if err := b.Commit(sync); err != nil {
		return d.lost(err)
	}
	if err := d.mark.write(seq, c, marked && d.cfg.without != unsyncedMark); err != nil {
		return d.lost(err)
	}
	d.seq, d.chain, d.floor = seq, c, floor
	return nil
}

// lost drops the handle after a commit whose fate is open: the next open finds out.
func (d *database) lost(err error) error {
	p := unknown(err)
	d.breaks(p)
	return p
}

func (d *database) scan(ctx context.Context, prefix string, reverse bool, fn func(string, []byte) bool) error {
	it, err := d.db.NewIter(&pdb.IterOptions{LowerBound: ourKey(prefix), UpperBound: after(ourKey(prefix))})
	if err != nil {
		return d.cfg.unreadable(err, "scan %q", prefix)
	}
	defer func() { _ = it.Close() }() // its error is it.Error's
	first, next := it.First, it.Next
	if reverse {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("store: scan %q: %w", prefix, err)
		}
		val, err := it.ValueAndErr()
		if err != nil {
			return d.cfg.unreadable(err, "scan %q", prefix)
		}
		if !fn(string(it.Key()[1:]), val) {
			break
		}
	}
	if err := it.Error(); err != nil {
		return d.cfg.unreadable(err, "scan %q", prefix)
	}
	if p := d.broken.Load(); p != nil {
		return p
	}
	return nil
}

// after is the first key behind all keys with the prefix. The prefix begins with one of our letters, so there is one.
func after(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	end[len(end)-1]++ // keys are ASCII: no byte overflows
	return end
}
