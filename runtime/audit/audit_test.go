package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/memory"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// newLog covers what begins with r/.
func newLog(now *time.Time) Log {
	return Log{
		Covers:   func(key string) bool { return strings.HasPrefix(key, "r/") },
		Describe: func(_ string, val []byte) string { return "now " + string(val) },
		Now:      func() time.Time { return *now },
	}
}

// history makes random commits, some of which are forgotten, and returns the records that there are.
func history(t *rapid.T, st *memory.Store, l Log, now *time.Time) map[string]string {
	have := map[string]string{}
	for i := range rapid.IntRange(1, 30).Draw(t, "commits") {
		*now = now.Add(time.Minute)
		n := rapid.IntRange(0, 3).Draw(t, "writes")
		err := l.Update(context.Background(), st, nil, func(tx store.Tx) error {
			tx.Put("x/other", []byte{byte(i)})
			for range n {
				key := fmt.Sprintf("r/%d", rapid.IntRange(0, 9).Draw(t, "key"))
				if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
					tx.Delete(key)
					delete(have, key)
					continue
				}
				val := rapid.StringMatching("[a-z]{1,3}").Draw(t, "val")
				tx.Put(key, []byte(val))
				have[key] = val
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if rapid.IntRange(0, 9).Draw(t, "forget") == 0 {
			horizon := now.Add(-time.Duration(rapid.IntRange(-1, 10).Draw(t, "age")) * time.Minute)
			if err := l.Forget(context.Background(), st, horizon); err != nil {
				t.Fatal(err)
			}
		}
	}
	return have
}

func dump(t fataler, st store.Scanner) map[string]string {
	all := map[string]string{}
	if err := st.Scan(context.Background(), "", false, func(key string, val []byte) bool { all[key] = string(val); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

type fataler interface{ Fatal(args ...any) }

func verify(t fataler, l Log, st store.Scanner, n int, hash Digest) *Report {
	r, err := l.Verify(context.Background(), st, n, hash)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tamper changes the store behind the log's back.
func tamper(t fataler, st store.Store, change map[string]*string) {
	err := st.Update(context.Background(), nil, func(tx store.Tx) error {
		for key, val := range change {
			if val == nil {
				tx.Delete(key)
			} else {
				tx.Put(key, []byte(*val))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever was written and forgotten, nothing is found; and whatever one then changes, something is, and it names what was changed.
func TestPropertyTampering(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now, st := epoch, memory.New()
		l := newLog(&now)
		have := history(t, st, l, &now)
		clean := verify(t, l, st, 0, "")
		if len(clean.Findings) > 0 || clean.Records != len(have) {
			t.Fatalf("of %d records: %+v", len(have), clean)
		}
		all := dump(t, st)
		var entries, records []string
		for _, key := range slices.Sorted(maps.Keys(all)) {
			switch {
			case strings.HasPrefix(key, prefix):
				entries = append(entries, key)
			case strings.HasPrefix(key, "r/"):
				records = append(records, key)
			}
		}
		pick := func(from []string) string { return rapid.SampledFrom(from).Draw(t, "which") }
		set := func(s string) *string { return &s }
		flip := func(key string) *string {
			b := []byte(all[key])
			b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			return set(string(b))
		}
		number := func(key string) string { return strings.TrimLeft(strings.TrimPrefix(key, prefix), "0") }
		change, names := map[string]*string{}, ""
		// What can be done to what there is.
		whats := []string{"record added"}
		if len(records) > 0 {
			whats = append(whats, "record changed", "record removed", "all removed")
		}
		if len(entries) > 0 {
			whats = append(whats, "entry changed", "entry removed", "head removed")
		}
		if len(entries) > 1 {
			whats = append(whats, "entries swapped")
		}
		switch what := rapid.SampledFrom(whats).Draw(t, "what"); what {
		case "record changed":
			names = pick(records)
			change[names] = flip(names)
		case "record removed":
			names = pick(records)
			change[names] = nil
		case "record added":
			names = "r/new"
			change[names] = set("x")
		case "entry changed":
			key := pick(entries)
			change[key] = flip(key)
			names = "entr"
		case "entry removed":
			key := pick(entries)
			change[key] = nil
			names = number(key)
		case "entries swapped":
			a := pick(entries)
			b := pick(slices.DeleteFunc(slices.Clone(entries), func(key string) bool { return key == a }))
			change[a], change[b] = set(all[b]), set(all[a])
			names = number(a)
		case "head removed":
			change[keyHead] = nil
			names = "head"
		case "all removed":
			for _, key := range append(entries, keyHead) {
				change[key] = nil
			}
			names = pick(records)
		}
		tamper(t, st, change)
		got := verify(t, l, st, 0, "")
		if !slices.ContainsFunc(got.Findings, func(f string) bool { return strings.Contains(f, names) }) {
			t.Fatalf("%v was changed, and what is said is %q", slices.Sorted(maps.Keys(change)), got.Findings)
		}
	})
}

// A log that was written anew in whole fits itself; a head that was kept elsewhere shows it.
func TestHeadElsewhere(t *testing.T) {
	t.Parallel()
	now := epoch
	l := newLog(&now)
	write := func(st *memory.Store, vals ...string) Head {
		for _, val := range vals {
			if err := l.Update(t.Context(), st, nil, func(tx store.Tx) error { tx.Put("r/"+val, []byte(val)); return nil }); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Minute)
		}
		return verify(t, l, st, 0, "").Head
	}
	honest := memory.New()
	kept := write(honest, "a", "b")
	write(honest, "c")
	if r := verify(t, l, honest, kept.N, kept.Hash); len(r.Findings) > 0 {
		t.Errorf("honest: %q", r.Findings)
	}
	forged := memory.New()
	write(forged, "a", "x", "c")
	if r := verify(t, l, forged, 0, ""); len(r.Findings) > 0 {
		t.Errorf("forged, alone: %q", r.Findings)
	}
	cut := memory.New()
	write(cut, "a")
	for name, c := range map[string]struct {
		st   *memory.Store
		want string
	}{
		"forged": {forged, "the log was written anew: entry 2 had the hash "},
		"cut":    {cut, "the log was cut or written anew: it ends at entry 1, and entry 2 was seen"},
	} {
		if r := verify(t, l, c.st, kept.N, kept.Hash); len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0], c.want) {
			t.Errorf("%s: %q", name, r.Findings)
		}
	}
	if err := l.Forget(t.Context(), honest, now); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, l, honest, kept.N, kept.Hash); len(r.Findings) != 1 || !strings.Contains(r.Findings[0], "entry 2 has been forgotten") {
		t.Errorf("forgotten: %q", r.Findings)
	}
	if r := verify(t, l, honest, 3, "0"); len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0], "the log was written anew: entry 3") {
		t.Errorf("the last that is forgotten: %q", r.Findings)
	}
}

// What is exported can be checked with sha256sum, line by line.
func TestExport(t *testing.T) {
	t.Parallel()
	now, st := epoch, memory.New()
	l := newLog(&now)
	var out bytes.Buffer
	if _, err := l.Export(t.Context(), st, &out); err != nil || out.Len() > 0 {
		t.Errorf("of nothing: %q, %v", out.String(), err)
	}
	for i := range 3 {
		if err := l.Update(t.Context(), st, nil, func(tx store.Tx) error { tx.Put("r/a", []byte{byte('a' + i)}); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Export(t.Context(), st, &out); err != nil {
		t.Fatal(err)
	}
	var prev Digest
	n := 0
	for lines := bufio.NewScanner(&out); lines.Scan(); n++ {
		line := lines.Text()
		want := fmt.Sprintf(`"prev":%q`, string(prev))
		if n == 3 {
			want = fmt.Sprintf(`{"head":"3:%s"}`, prev)
		}
		if !strings.Contains(line, want) {
			t.Errorf("line %d is %s, want %s", n+1, line, want)
		}
		prev = digest([]byte(line))
	}
	if n != 4 {
		t.Errorf("%d lines", n)
	}
}

// A commit that fails leaves neither a record nor an entry, and one that writes no record leaves no entry.
func TestTogether(t *testing.T) {
	t.Parallel()
	now, st := epoch, memory.New()
	l := newLog(&now)
	failed := errors.New("no")
	if err := l.Update(t.Context(), st, nil, func(tx store.Tx) error { tx.Put("r/a", []byte("x")); return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if err := l.Update(t.Context(), st, nil, func(tx store.Tx) error { tx.Put("x/a", []byte("x")); return nil }); err != nil {
		t.Error(err)
	}
	if r := verify(t, l, st, 0, ""); r.Entries != 0 || len(r.Findings) != 0 {
		t.Errorf("%+v", r)
	}
	marked := false
	tx := &recorder{Tx: marker{&marked}}
	store.Mark(tx)
	if !marked {
		t.Error("a mark is lost on its way")
	}
}

type marker struct{ marked *bool }

func (m marker) Mark()                    { *m.marked = true }
func (marker) Get(string) ([]byte, error) { return nil, nil }
func (marker) Put(string, []byte)         {}
func (marker) Delete(string)              {}

func TestParseHead(t *testing.T) {
	t.Parallel()
	good := Head{N: 17, Hash: digest(nil)}
	if n, hash, err := ParseHead(good.String()); n != 17 || hash != good.Hash || err != nil {
		t.Error(n, hash, err)
	}
	for _, bad := range []string{"", "17", "17:", "0:" + string(good.Hash), "x:" + string(good.Hash), "17:" + string(good.Hash[1:]), "17:" + strings.ToUpper(string(good.Hash)), "17:" + string(good.Hash) + "0"} {
		if _, _, err := ParseHead(bad); err == nil || err.(*problem.Problem).Code != problem.Usage { //nolint:errorlint // it is one
			t.Errorf("%q: %v", bad, err)
		}
	}
}
