package sandbox

import (
	"sync/atomic"
	"unsafe"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// page is a piece of memory that a worker shares with its engine. In it the worker notes where it is, so that this is
// known whatever becomes of the process. The engine reads it as hostile input.
type page struct {
	place  *atomic.Uint64 // number of the file in the upper half, line in the lower
	beats  *atomic.Uint64 // changes while the script gets on
	reason *atomic.Uint64
}

const pageSize = 4096

// newPage lays the fields out in memory of at least 24 bytes, aligned to 8.
func newPage(mem []byte) *page {
	at := func(i int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&mem[i])) }
	return &page{place: at(0), beats: at(8), reason: at(16)}
}

func (p *page) note(file, line int) {
	p.beats.Add(1)
	if file >= 0 {
		p.place.Store(uint64(file)<<32 | uint64(uint32(line)))
	}
}

func (p *page) cause(c uint64) { p.reason.Store(c) }

// pos is the place that was noted, as far as it can be true.
func (p *page) pos(paths []string) value.Pos {
	at := p.place.Load()
	file, line := at>>32, int(uint32(at))
	if file >= uint64(len(paths)) || line < 0 {
		return value.Pos{}
	}
	return value.Pos{File: paths[file], Line: line}
}

func (p *page) reset() {
	p.place.Store(0)
	p.reason.Store(causeNone)
}
