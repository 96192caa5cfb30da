package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	in := ToWorker{Run: &Run{Path: "a.star", Fn: "run", Context: &Context{
		Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Params: value.Dict{{Key: value.String("x"), Value: value.Float(2)}},
		Target: value.Dict{}, Steps: value.List{},
	}}}
	var b bytes.Buffer
	if err := Write(&b, in); err != nil {
		t.Fatal(err)
	}
	var out ToWorker
	r := bufio.NewReader(&b)
	if err := Read(r, &out); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	if err := Read(r, &out); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{
		"\x00", "\x00\x00\x00\x05{}", "\xff\xff\xff\xff{}", "\x00\x00\x00\x02[]", "\x00\x00\x00\x00", "\x00\x00\x00\x09{\"evil\":1}",
		"\x00\x00\x00\x05{} {}", "\x00\x00\x00\x03xyz",
	} {
		var m FromWorker
		if err := Read(bufio.NewReader(strings.NewReader(frame)), &m); err == nil {
			t.Errorf("%q was accepted", frame)
		}
	}
	if err := Write(io.Discard, ToWorker{Source: &Source{Text: strings.Repeat("x", MaxFrame)}}); err == nil {
		t.Error("a frame that is too large was written")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x0e{\"done\":{\"x\":1}}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var m FromWorker
		_ = Read(bufio.NewReader(bytes.NewReader(data)), &m) // must not panic
	})
}
