package pebble

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// testWait is long because the machine that runs the tests may be busy.
const testWait = 30 * time.Second

var record = bytes.Repeat([]byte("x"), 400)

func benchmarkUpdate(b *testing.B, cfg Config) {
	cfg.Dir = newDir(b)
	s := open(b, cfg)
	b.ResetTimer()
	for b.Loop() {
		err := s.Update(context.Background(), []string{"record"}, func(tx store.Tx) error {
			_, err := tx.Get("record")
			tx.Put("record", record)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdateOpenPerTransaction(b *testing.B) {
	benchmarkUpdate(b, Config{PerTransaction: true})
}

func BenchmarkUpdateHeldOpen(b *testing.B) { benchmarkUpdate(b, Config{}) }

func BenchmarkViewOpenPerTransaction(b *testing.B) {
	dir := newDir(b)
	w := open(b, Config{Dir: dir})
	for range 50 {
		if err := w.Update(context.Background(), nil, func(tx store.Tx) error { tx.Put("record", record); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	s := open(b, Config{Dir: dir, PerTransaction: true})
	b.ResetTimer()
	for b.Loop() {
		if err := s.View(context.Background(), []string{"record"}, func(tx store.ReadTx) error { _, err := tx.Get("record"); return err }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRawAppendFdatasync is the floor: what the disk alone costs.
func BenchmarkRawAppendFdatasync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := f.Write(record); err != nil {
			b.Fatal(err)
		}
		if err := fdatasync(f); err != nil {
			b.Fatal(err)
		}
	}
}
