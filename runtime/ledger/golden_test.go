package ledger_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// The stored form of what persons set, which later versions must read: a disable that is not understood would be one that does not hold.
func TestGoldenControls(t *testing.T) {
	t.Parallel()
	b := newBook()
	at := epoch.Add(b.up)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := ledger.Disable(t.Context(), b.st, b.sample, control.Disable{
		Name: "d-1", Selector: control.Selector{Runbook: "worker", Action: "exec.run", Target: "w3", Labels: map[string]string{"a": "b"}}, Reason: "r", By: "ann@h(tty)", Until: at.Add(time.Hour),
	})
	ok(err)
	_, err = ledger.AddWindow(t.Context(), b.st, b.sample, control.Window{
		Name: "m-1", Selector: control.Selector{All: true}, Reason: "r", By: "ann@h(tty)", Days: []time.Weekday{time.Sunday, time.Saturday}, At: 2 * time.Hour, Length: 4 * time.Hour, Zone: "Europe/Berlin",
	})
	ok(err)
	_, err = ledger.AddWindow(t.Context(), b.st, b.sample, control.Window{Name: "m-2", Selector: control.Selector{Target: "w3"}, Reason: "r", Start: at, End: at.Add(time.Hour)})
	ok(err)
	_, err = ledger.AddChange(t.Context(), b.st, b.sample, ledger.Change{Component: "web", Version: "v1", Started: at, By: "ci", Reason: "r"})
	ok(err)
	ok(b.update([]string{ledger.KeyApprovals}, func(tx store.Tx, now action.Clock) error {
		_, err := ledger.Ask(tx, now, guard.Approval{
			ID: "k3v9qx", Runbook: "worker", Path: "worker.star", Target: action.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3"}}, Episode: "e",
			Owner: "team", Run: "r1", Binding: "b", Source: "s", Steps: []guard.Foreseen{{Action: "exec.run", Args: value.Dict{}, Reason: "stuck"}},
		})
		return err
	}))
	_, err = ledger.Respond(t.Context(), b.st, b.sample, "k3v9qx", guard.Approved, "ann@h(tty)", "ok", false)
	ok(err)
	for key, want := range map[string]string{
		ledger.KeyControls: `{"v":1,"disables":[{"name":"d-1","runbook":"worker","action":"exec.run","target":"w3","labels":{"a":"b"},"reason":"r","by":"ann@h(tty)","at":"2026-03-01T10:00:00Z","until":"2026-03-01T11:00:00Z"}],` +
			`"windows":[{"name":"m-1","all":true,"reason":"r","by":"ann@h(tty)","made":"2026-03-01T10:00:00Z","days":[0,6],"at":7200000000000,"length":14400000000000,"zone":"Europe/Berlin"},` +
			`{"name":"m-2","target":"w3","reason":"r","made":"2026-03-01T10:00:00Z","start":"2026-03-01T10:00:00Z","end":"2026-03-01T11:00:00Z"}]}`,
		ledger.KeyDeploys: `{"web":{"v":1,"component":"web","version":"v1","started":"2026-03-01T10:00:00Z","by":"ci","reason":"r"}}`,
		ledger.KeyApproval("k3v9qx"): `{"id":"k3v9qx","runbook":"worker","path":"worker.star","target":{"key":"instance=w3","name":"w3","labels":{"instance":"w3"}},"episode":"e","owner":"team","run":"r1","binding":"b","source":"s",` +
			`"steps":[{"action":"exec.run","args":{},"reason":"stuck"}],"asked_at":{"wall":"2026-03-01T10:00:00Z","trusted":3600000000000},"answer":"approved","by":"ann@h(tty)","why":"ok","at":{"wall":"2026-03-01T10:00:00Z","trusted":3600000000000}}`,
	} {
		var got string
		ok(b.st.View(context.Background(), []string{key}, func(tx store.ReadTx) error {
			v, err := tx.Get(key)
			got = string(v)
			return err
		}))
		if got != want {
			t.Errorf("%s is\n%s\nwant\n%s", key, got, want)
		}
	}
}

// The starts of a day are text; one that cannot be read stops every decision.
func TestGoldenStarted(t *testing.T) {
	t.Parallel()
	b := newBook()
	read := func(text string) ([]ledger.Started, error) {
		var got []ledger.Started
		err := b.st.Update(t.Context(), []string{ledger.KeyStarted}, func(tx store.Tx) (err error) {
			tx.Put(ledger.KeyStarted, []byte(text))
			got, err = ledger.ReadStarted(tx)
			return err
		})
		return got, err
	}
	got, err := read("n6d7pzrcxb 3600000000000 1772359200123\nabc 7200000000000 1772362800000\n")
	if err != nil || len(got) != 2 || got[0].Attempt != "n6d7pzrcxb" || got[0].At.Trusted != time.Hour || got[0].At.Wall.UnixMilli() != 1772359200123 {
		t.Errorf("%v, %+v", err, got)
	}
	if got, err := read(`[{"attempt":"a","at":{"wall":"2026-03-01T10:00:00Z","trusted":5}}]`); err != nil || len(got) != 1 || got[0].At.Trusted != 5 {
		t.Errorf("as it was before: %v, %+v", err, got)
	}
	for _, bad := range []string{"abc", "abc x 1\n", "abc 1\n", "abc 1 x\n", "{}"} {
		if _, err := read(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// What a run notes for the audit log, once; and what the log says of each record.
func TestNote(t *testing.T) {
	t.Parallel()
	b := newBook()
	at := epoch.Add(b.up)
	halts := []control.HaltEvent{
		{What: "halt", At: at, By: "ann@h(tty)", Reason: "r", Until: at.Add(time.Hour)},
		{What: "resume", At: at.Add(time.Minute), By: "bob@h(tty)", Reason: "over"},
	}
	wrote := map[string]string{}
	log := ledger.AuditLog(func() time.Time { return at })
	note := func(policy string, halts []control.HaltEvent) (n int) {
		t.Helper()
		err := log.Update(t.Context(), b.st, ledger.NotedKeys(), func(tx store.Tx) error {
			return errors.Join(ledger.NotePolicy(tx, policy, "ann@h(tty)", at), ledger.NoteHalts(tx, halts, at))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.st.Scan(t.Context(), "", false, func(key string, val []byte) bool {
			if wrote[key] != string(val) && !strings.Contains(key, "audit") {
				n++
			}
			wrote[key] = string(val)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, c := range []struct {
		policy string
		halts  []control.HaltEvent
		want   int // documents that change
	}{
		{"p1", nil, 1},
		{"p1", nil, 0},
		{"p1", halts[:1], 2},
		{"p2", halts[:1], 1},
		{"p2", halts, 2},
		{"p2", halts, 0},
		{"p2", halts[1:], 3},
		{"p2", halts[1:], 0},
		{"p2", nil, 2}, // the second change is written at the same moment
	} {
		if got := note(c.policy, c.halts); got != c.want {
			t.Errorf("%d: %d documents changed, want %d", i, got, c.want)
		}
	}
	for key, want := range map[string]string{
		"policy":                                 `{"v":1,"digest":"p2","since":"2026-03-01T10:00:00Z","by":"ann@h(tty)"}`,
		"idx/halts":                              `{"v":1,"n":0,"last":{"what":"","at":"0001-01-01T00:00:00Z","by":"","reason":""}}`,
		"halt/20260301-100000.000000000-0":       `{"what":"halt","at":"2026-03-01T10:00:00Z","by":"ann@h(tty)","reason":"r","until":"2026-03-01T11:00:00Z"}`,
		"halt/20260301-100100.000000000-1":       `{"what":"resume","at":"2026-03-01T10:01:00Z","by":"bob@h(tty)","reason":"over"}`,
		"halt/20260301-100000.000000000-changed": `{"what":"halts.log was changed","at":"2026-03-01T10:00:00Z","by":"","reason":"1 were on record, and it has 0"}`,
	} {
		if wrote[key] != want {
			t.Errorf("%s is\n%s\nwant\n%s", key, wrote[key], want)
		}
	}
	if r, err := log.Verify(t.Context(), b.st, 0, ""); err != nil || len(r.Findings) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
