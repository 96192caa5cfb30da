package pebble

import "github.com/cockroachdb/pebble/v2/vfs"

// aheadBy is how much a log grows at a time: what a run writes for some four actions.
const aheadBy = 32 << 10

// ahead is a log of Pebble's that is written ahead of its end with zeros, so that most commits find their place in the file already there and wait
// for their own bytes only. Pebble takes zeros for the end of what was written, as in a log that was allocated ahead.
type ahead struct {
	vfs.File
	at, filled int64 // where the next write goes, and up to where there are zeros at least
}

// Write implements vfs.File.
func (a *ahead) Write(p []byte) (int, error) {
	end := a.at + int64(len(p))
	bytes := p
	if end > a.filled {
		a.filled = (end + aheadBy - 1) / aheadBy * aheadBy
		bytes = make([]byte, a.filled-a.at)
		copy(bytes, p)
	}
	n, err := a.WriteAt(bytes, a.at)
	n = min(n, len(p))
	a.at += int64(n)
	return n, err
}
