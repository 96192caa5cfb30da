// Package tail keeps the end of what a program prints.
package tail

import "sync"

// Buffer keeps the end of what is written to it. It may be used by several goroutines.
type Buffer struct {
	mu    sync.Mutex
	size  int
	buf   []byte
	total int
}

// New keeps so many bytes.
func New(size int) *Buffer { return &Buffer{size: size} }

// Write implements io.Writer.
func (t *Buffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += len(p)
	t.buf = append(t.buf, p[max(0, len(p)-t.size):]...)
	if len(t.buf) > 2*t.size {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.size:]...)
	}
	return len(p), nil
}

// Bytes is what it has kept.
func (t *Buffer) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-t.size):]...)
}

// Cut says whether something before it was dropped.
func (t *Buffer) Cut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total > t.size
}
