package spare

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/runtime/pluginhost/pipes"
)

// order is what Become writes.
func order(t interface{ Fatal(...any) }, name string, env []string) []byte {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	go func() {
		defer func() { _ = w.Close() }()
		_ = (&Spare{Pipes: &pipes.Pipes{Lifeline: w}}).Become(name, env)
	}()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is told arrives, in however many pieces; and what was cut is no order.
func TestOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z_]{1,12}`).Draw(t, "name")
		env := rapid.SliceOfN(rapid.StringMatching(`[A-Z_]{1,9}=[^\x00]{0,40}`), 0, 9).Draw(t, "env")
		text := order(t, name, env)
		for _, in := range []io.Reader{bytes.NewReader(text), iotest.OneByteReader(bytes.NewReader(text))} {
			n, e, err := read(io.MultiReader(in, iotest.ErrReader(io.ErrClosedPipe)))
			if err != nil || n != name || !slices.Equal(e, env) && len(e)+len(env) > 0 {
				t.Fatalf("%q %q became %q %q, %v", name, env, n, e, err)
			}
		}
		cut := rapid.IntRange(0, len(text)-1).Draw(t, "cut")
		if n, e, err := read(bytes.NewReader(text[:cut])); err == nil {
			t.Fatalf("the first %d of %d bytes of an order are the order %q %q", cut, len(text), n, e)
		}
	})
	if _, _, err := read(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("an order without end is read to its end")
	}
}

// Nobody has asked for one: there is none, and nothing to drop.
func TestNone(t *testing.T) {
	if s := Take(); s != nil {
		t.Errorf("there is a process: %+v", s)
	}
	began := time.Now()
	Drop()
	if d := time.Since(began); d > time.Second {
		t.Errorf("dropping nothing took %s", d)
	}
}
