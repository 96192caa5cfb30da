package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	pdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// schema is the version of what this package writes, in the file FORMAT. A newer one is refused.
const schema = 1

const formatFile = "FORMAT"

func formatText() string { return fmt.Sprintf("runbook store %d\n", schema) }

// open opens the database and proves that nothing that was acknowledged is missing. The lock is held.
func (c *Config) open(readOnly bool) (*database, error) { return c.openOr(nil, readOnly) }

// openOr tells trouble of what keeps Pebble from opening: it flushes the log of the last process first, and where it cannot write it tries again
// for ever.
func (c *Config) openOr(trouble chan<- *problem.Problem, readOnly bool) (*database, error) {
	if err := c.checkFormat(); err != nil {
		return nil, err
	}
	m, err := c.openMark(readOnly)
	if err != nil {
		return nil, err
	}
	d := &database{cfg: c, mark: m, readOnly: readOnly, gone: make(chan struct{}), trouble: trouble}
	if d.identity, err = c.identity(); err != nil {
		_ = m.close()
		return nil, c.unusable(err, "open store %s", c.Dir)
	}
	d.db, err = pdb.Open(c.Dir, c.options(d, readOnly))
	if err != nil {
		_ = m.close()
		return nil, c.cannotOpen(err)
	}
	if err := d.verify(); err != nil {
		_ = d.close()
		return nil, err
	}
	return d, nil
}

func (c *Config) checkFormat() error {
	text, err := readAll(c.FS, c.FS.PathJoin(c.Dir, formatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.missing()
	case err != nil:
		return c.unusable(err, "open store %s", c.Dir)
	case text == formatText():
		return nil
	}
	var version int
	if _, err := fmt.Sscanf(text, "runbook store %d\n", &version); err != nil || version <= schema {
		return problem.New(problem.StoreDamaged, "store %s: file %s has the text %.40q", c.Dir, formatFile, text).
			WithHint("restore the state directory from a backup")
	}
	return problem.New(problem.StateUnusable, "store %s was written by a newer version (format %d, this one knows %d)",
		c.Dir, version, schema).WithHint("install the newer runbook; it was used here before")
}

// missing tells a store that never was, or was never finished, from one that was emptied.
func (c *Config) missing() error {
	if m, err := c.openMark(true); err == nil {
		defer func() { _ = m.close() }()
		if m.seq > 0 {
			return problem.New(problem.StoreDamaged, "store %s is gone or emptied: it had %d commits", c.Dir, m.seq).
				WithHint("restore the state directory from a backup; do not run init over it")
		}
	}
	return problem.New(problem.StateMissing, "there is no store in %s", c.Dir).
		WithHint("create the state directory once with: runbook init --state DIR")
}

// options are the ones that were measured for many short runs over little data. Automatic compactions stay on: without them
// a thousand runs left a thousand files.
func (c *Config) options(d *database, readOnly bool) *pdb.Options {
	o := &pdb.Options{
		FS:                 syncFS{FS: c.FS, fatal: c.fatal, readOnly: readOnly, without: c.without},
		FormatMajorVersion: pdb.FormatTableFormatV6,
		ReadOnly:           readOnly,
		ErrorIfNotExists:   true,
		MemTableSize:       256 << 10,
		CacheSize:          1 << 20,
		MaxOpenFiles:       64,
		// Every process opens the database anew, so that the manifest only has to stay short.
		MaxManifestFileSize: 1 << 20,
		DisableTableStats:   true,
		Logger:              logger{c},
		EventListener: &pdb.EventListener{
			DataCorruption: func(i pdb.DataCorruptionInfo) {
				d.breaks(c.damaged("file %s: %v", i.Path, i.Details))
			},
			BackgroundError: func(err error) {
				if pdb.IsCorruptionError(err) {
					d.breaks(c.damaged("%v", err))
					return
				}
				d.breaks(c.unusable(err, "store %s", c.Dir))
			},
		},
	}
	// A short run leaves one small file that spans all keys. With Pebble's own sizes every other run would merge it with all that there is: 120 ms
	// with 100,000 settled actions, and more with more. So many of them gather before a merge, and what they are merged with is kept small.
	o.L0CompactionThreshold, o.L0StopWritesThreshold = 32, 200
	o.LBaseMaxBytes, o.TargetFileSizes[0] = 1<<20, 256<<10
	// A run looks into all of these for a record that few of them have: a filter says which, and what is read is not uncompressed first.
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	o.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	o.Levels[1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	o.Experimental.FileCacheShards = 1
	o.DisableAutomaticCompactions = c.without == noCompactions
	return o
}

// verify checks that the log has no gap, that it reaches the mark, and that the marked commit is the one in the log.
func (d *database) verify() error {
	val, closer, err := d.db.Get(floorKey)
	if errors.Is(err, pdb.ErrNotFound) {
		return d.cfg.damaged("the record of the log's beginning is gone")
	}
	if err != nil {
		return d.cfg.unreadable(err, "read the log's beginning")
	}
	if len(val) == 8 {
		d.floor = binary.BigEndian.Uint64(val)
	}
	_ = closer.Close()
	if d.floor == 0 {
		return d.cfg.damaged("the record of the log's beginning is unreadable")
	}

	it, err := d.db.NewIter(&pdb.IterOptions{LowerBound: []byte{logged}, UpperBound: []byte{logged + 1}})
	if err != nil {
		return d.cfg.unreadable(err, "read the log")
	}
	defer func() { _ = it.Close() }() // its error is it.Error's
	d.seq = d.floor - 1
	var marked *chain
	if d.mark.seq == 0 {
		marked = &chain{}
	}
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return d.cfg.unreadable(err, "read the log")
		}
		if len(it.Key()) != 9 || len(val) != len(d.chain) {
			return d.cfg.damaged("a record of the log after commit %d is unreadable", d.seq)
		}
		seq := binary.BigEndian.Uint64(it.Key()[1:])
		if seq != d.seq+1 {
			return d.cfg.damaged("commits %d to %d are gone", d.seq+1, seq-1)
		}
		d.seq, d.chain = seq, chain(val)
		if seq == d.mark.seq {
			marked = new(chain)
			*marked = d.chain
		}
	}
	if err := it.Error(); err != nil {
		return d.cfg.unreadable(err, "read the log")
	}
	return d.compareMark(marked)
}

// compareMark judges the log's end against the mark; marked is what the log has for the marked commit. A commit becomes durable before its mark,
// and its mark after at most maxBehind of them, so that the log may be ahead by so many and the one that was being marked.
func (d *database) compareMark(marked *chain) error {
	m := d.mark
	switch {
	case d.seq < m.seq:
		return d.cfg.damaged("commits %d to %d were acknowledged and are gone", d.seq+1, m.seq)
	case marked == nil || d.seq > m.seq+maxBehind:
		return d.cfg.damaged("it ends at commit %d, but the mark %s says %d: they are not of the same time", d.seq, d.cfg.MarkFile, m.seq)
	case *marked != m.chain:
		return d.cfg.damaged("commit %d is not the one that the mark %s was set for: they are not of the same store", m.seq, d.cfg.MarkFile)
	case d.readOnly || d.seq == m.seq && !m.torn:
		return nil
	}
	// The last process ended between a commit and its mark, or the power was cut before that was durable. What is read from here on must not get
	// lost unnoticed either.
	if err := m.write(d.seq, d.chain, true); err != nil {
		return d.cfg.unusable(err, "write mark %s", d.cfg.MarkFile)
	}
	return nil
}

func readAll(fsys vfs.FS, path string) (string, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var sb strings.Builder
	_, err = io.Copy(&sb, io.LimitReader(f, 4096))
	return sb.String(), err
}
