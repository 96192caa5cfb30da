package pebble

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The mark file names the last commit that was acknowledged. It has two slots, a disk block apart, written in turn, so
// that a write that is cut short leaves the other one. A slot is one line of text:
//
//	runbook-mark 1 00000000000000000042 <chain, 32 hex digits> <crc32c, 8 hex digits>
const (
	slotApart = 4096
	slotSize  = len("runbook-mark 1 ") + 20 + 1 + 32 + 1 + 8 + 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type mark struct {
	f     vfs.File
	seq   uint64
	chain chain
	next  int64 // the slot to write next: the other one
	torn  bool  // one slot is unreadable
}

func slotText(seq uint64, c chain) []byte {
	s := fmt.Appendf(nil, "runbook-mark 1 %020d %x", seq, c)
	return fmt.Appendf(s, " %08x\n", crc32.Checksum(s, castagnoli))
}

func parseSlot(b []byte) (seq uint64, c chain, ok bool) {
	var hex []byte
	if _, err := fmt.Sscanf(string(b), "runbook-mark 1 %d %x", &seq, &hex); err != nil || len(hex) != len(c) {
		return 0, c, false
	}
	copy(c[:], hex)
	return seq, c, string(slotText(seq, c)) == string(b)
}

// createMark writes a mark whose both slots name the commit.
func createMark(fsys vfs.FS, path string, seq uint64, c chain) error {
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	image := make([]byte, 2*slotApart)
	copy(image, slotText(seq, c))
	copy(image[slotApart:], slotText(seq, c))
	_, err = f.Write(image)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (c *Config) openMark(readOnly bool) (*mark, error) {
	// OpenReadWrite would create the file, and a mark that is made up says nothing.
	_, err := c.FS.Stat(c.MarkFile)
	var f vfs.File
	if err == nil {
		if readOnly {
			f, err = c.FS.Open(c.MarkFile)
		} else {
			f, err = c.FS.OpenReadWrite(c.MarkFile, vfs.WriteCategoryUnspecified)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.damaged("its mark %s is missing, so nobody can say whether records are", c.MarkFile)
	}
	if err != nil {
		return nil, c.unusable(err, "open mark %s", c.MarkFile)
	}
	m := &mark{f: f}
	if err := m.read(); err != nil {
		_ = f.Close()
		return nil, c.unusable(err, "read mark %s", c.MarkFile)
	}
	if m.next < 0 {
		_ = f.Close()
		return nil, c.damaged("both halves of its mark %s are unreadable", c.MarkFile)
	}
	return m, nil
}

// read finds the newest slot. next is -1 if there is none.
func (m *mark) read() error {
	m.next = -1
	for i := range int64(2) {
		b := make([]byte, slotSize)
		if _, err := m.f.ReadAt(b, i*slotApart); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		seq, c, ok := parseSlot(b)
		if !ok {
			m.torn = true
			continue
		}
		if m.next < 0 || seq > m.seq {
			m.seq, m.chain, m.next = seq, c, 1-i
		}
	}
	return nil
}

// write returns when the mark is durable.
func (m *mark) write(seq uint64, c chain) error {
	if _, err := m.f.WriteAt(slotText(seq, c), m.next*slotApart); err != nil {
		return err
	}
	if err := m.f.SyncData(); err != nil {
		return err
	}
	m.seq, m.chain, m.next, m.torn = seq, c, 1-m.next, false
	return nil
}

func (m *mark) close() error { return m.f.Close() }
