package sdk

import "sync"

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	size  int
	buf   []byte
	total int
}

func newTail(size int) *tail { return &tail{size: size} }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += len(p)
	t.buf = append(t.buf, p[max(0, len(p)-t.size):]...)
	if len(t.buf) > 2*t.size {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.size:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-t.size):]...)
}

func (t *tail) cut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total > t.size
}
