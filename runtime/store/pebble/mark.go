package pebble

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The mark file names the last commit that was acknowledged. It has two slots, a disk block apart, so that a write that is cut short leaves the
// other one: whatever is not synced yet goes to the one slot, and the other one, which is, stays as it is until then. A slot is one line of text:
//
//	runbook-mark 1 00000000000000000042 <chain, 32 hex digits> <crc32c, 8 hex digits>
//
// Every commit writes its mark, and only one that must be marked waits for the disk, or one of maxBehind. So what a process has written stays
// marked when it is killed, and after a power cut the log may be ahead of the mark by so many commits.
const (
	maxBehind = 128
	slotApart = 4096
	slotSize  = len("runbook-mark 1 ") + 20 + 1 + 32 + 1 + 8 + 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type mark struct {
	f       vfs.File
	seq     uint64
	chain   chain
	next    int64 // the slot to write next: the other one is durable
	torn    bool  // one slot is unreadable
	behind  int   // commits since the last sync
	settled bool  // this process has synced what it found
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

// write writes the mark. With sync it is durable when write returns.
func (m *mark) write(seq uint64, c chain, sync bool) error {
	if !m.settled {
		// The slot that was found may be one that a killed process did not sync: then it is not yet the one to fall back on.
		if err := m.f.SyncData(); err != nil {
			return err
		}
		m.settled = true
	}
	if _, err := m.f.WriteAt(slotText(seq, c), m.next*slotApart); err != nil {
		return err
	}
	m.seq, m.chain, m.torn = seq, c, false
	m.behind++
	if sync || m.behind >= maxBehind {
		return m.sync()
	}
	return nil
}

// sync makes durable what was written.
func (m *mark) sync() error {
	if m.behind == 0 {
		return nil
	}
	if err := m.f.SyncData(); err != nil {
		return err
	}
	m.behind, m.next = 0, 1-m.next
	return nil
}

func (m *mark) close() error { return errors.Join(m.sync(), m.f.Close()) }
