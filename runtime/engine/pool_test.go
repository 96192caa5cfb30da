package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// pool keeps a few workers of the tests for the next world with the same files: a worker keeps what it has read, and starting one is most of
// what many tests cost.
var pool struct {
	sync.Mutex
	idle []*pooled // the oldest first
}

const mostIdle = 8

type pooled struct {
	sandbox.Worker
	files [sha256.Size]byte
}

// Close keeps a worker that can be used again.
func (p *pooled) Close() {
	if p.Dead() {
		p.Worker.Close()
		return
	}
	pool.Lock()
	defer pool.Unlock()
	pool.idle = append(pool.idle, p)
	if len(pool.idle) > mostIdle {
		pool.idle[0].Worker.Close()
		pool.idle = pool.idle[1:]
	}
}

// spawn hands out a worker that has read nothing but these files. A world whose files have changed gets new ones.
func (w *world) spawn(ctx context.Context) (sandbox.Worker, error) {
	files := w.files()
	if files != w.made {
		return sandbox.Spawner{}.Start(ctx)
	}
	pool.Lock()
	i := slices.IndexFunc(pool.idle, func(p *pooled) bool { return p.files == files })
	if i >= 0 {
		p := pool.idle[i]
		pool.idle = slices.Delete(pool.idle, i, i+1)
		pool.Unlock()
		return p, nil
	}
	pool.Unlock()
	worker, err := sandbox.Spawner{}.Start(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	return &pooled{worker, files}, nil
}

// files is a digest of the project's files.
func (w *world) files() (sum [sha256.Size]byte) {
	w.t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(w.tree.Root(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".star" {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(w.tree.Root(), path)
		fmt.Fprintf(h, "%q %q\n", rel, text)
		return err
	})
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
