package pebble

import (
	"bytes"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxValue bounds one record: more is a mistake, and it would have to fit into the worst moment of a small disk.
const maxValue = 16 << 20

// tx is one transaction over an open database that nobody else can change meanwhile.
type tx struct {
	db       *database
	declared map[string]bool
	before   map[string][]byte // what transactions before it in its group have written
	writes   map[string][]byte // nil: deleted
	size     uint64
	marked   bool
	err      error // the first misuse or failed read; it spoils the transaction even if fn ignores it
}

func newTx(db *database, keys []string) *tx {
	t := &tx{db: db, declared: make(map[string]bool, len(keys)), writes: map[string][]byte{}}
	for _, k := range keys {
		t.declared[k] = true
	}
	return t
}

// run calls fn and prefers the transaction's own error over fn's.
func (t *tx) run(fn func() error) error {
	for k := range t.declared {
		t.checkKey(k)
	}
	if t.err != nil {
		return t.err
	}
	err := fn()
	if p := t.db.broken.Load(); p != nil {
		return p
	}
	if t.err != nil {
		return t.err
	}
	return err
}

// Get implements store.ReadTx.
func (t *tx) Get(key string) ([]byte, error) {
	if val, ok := t.writes[key]; ok {
		return bytes.Clone(val), t.err
	}
	if !t.declared[key] {
		t.fail(problem.New(problem.Internal, "store: key %q is read but was not declared", key))
	}
	if t.err != nil {
		return nil, t.err
	}
	if val, ok := t.before[key]; ok {
		return bytes.Clone(val), nil
	}
	val, err := t.db.get(key)
	if err != nil {
		t.fail(err)
	}
	return val, err
}

// Put implements store.Tx.
func (t *tx) Put(key string, val []byte) {
	t.checkKey(key)
	if len(val) > maxValue {
		t.fail(problem.New(problem.Internal, "store: the value of %q has %d bytes; %d are allowed", key, len(val), maxValue))
	}
	if val == nil {
		val = []byte{}
	}
	t.size += uint64(len(key) + len(val))
	t.writes[key] = bytes.Clone(val)
}

// Delete implements store.Tx.
func (t *tx) Delete(key string) {
	t.checkKey(key)
	t.size += uint64(len(key))
	t.writes[key] = nil
}

// Mark implements store.Marker.
func (t *tx) Mark() { t.marked = true }

func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *tx) checkKey(key string) {
	if key == "" {
		t.fail(problem.New(problem.Internal, "store: a key is empty"))
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			t.fail(problem.New(problem.Internal, "store: key %q has a byte that is not printable ASCII", key))
			return
		}
	}
}

// readTx hides the writing half.
type readTx struct{ t *tx }

func (r readTx) Get(key string) ([]byte, error) { return r.t.Get(key) }
