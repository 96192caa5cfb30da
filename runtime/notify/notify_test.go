package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/store"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// memory is a store in memory that refuses what was not declared.
type memory struct {
	mu   sync.Mutex
	data map[string][]byte
	fail error // instead of the next commit
}

type memoryTx struct {
	m        *memory
	declared []string
	writes   map[string][]byte
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (tx *memoryTx) Get(key string) ([]byte, error) {
	if v, ok := tx.writes[key]; ok {
		return v, nil
	}
	if !slices.Contains(tx.declared, key) {
		return nil, fmt.Errorf("%s was not declared", key)
	}
	return bytes.Clone(tx.m.data[key]), nil
}
func (tx *memoryTx) Put(key string, val []byte) { tx.writes[key] = bytes.Clone(val) }
func (tx *memoryTx) Delete(key string)          { tx.writes[key] = nil }

func (m *memory) Update(_ context.Context, keys []string, fn func(store.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	tx := &memoryTx{m, keys, map[string][]byte{}}
	if err := fn(tx); err != nil {
		return err
	}
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	maps.Copy(m.data, tx.writes)
	return nil
}

func (m *memory) View(_ context.Context, keys []string, fn func(store.ReadTx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fn(&memoryTx{m, keys, map[string][]byte{}})
}

// fake is a sink that remembers what it got.
type fake struct {
	name string
	only string // owner
	err  error
	got  []Message
	try  int
}

func (f *fake) Name() string            { return f.name }
func (f *fake) Wants(owner string) bool { return f.only == "" || f.only == owner }
func (f *fake) Send(_ context.Context, m Message) error {
	f.try++
	if f.err == nil {
		f.got = append(f.got, m)
	}
	return f.err
}

func put(t *testing.T, m *memory, n Notice, after time.Duration) {
	t.Helper()
	if err := m.Update(t.Context(), Keys(n), func(tx store.Tx) error { return Put(tx, n, epoch.Add(after)) }); err != nil {
		t.Fatal(err)
	}
}

func deliver(t *testing.T, m *memory, after time.Duration, sinks ...Sink) {
	t.Helper()
	if err := Deliver(t.Context(), m, sinks, epoch.Add(after)); err != nil {
		t.Fatal(err)
	}
}

func notice() Notice {
	return Notice{Runbook: "worker", Target: "instance=w3", Episode: "e1", Owner: "team-a", Kind: Escalation, Reason: "attempts", Text: "two attempts did not help", Run: "r1", At: epoch}
}

func TestToldOnce(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a"}
	put(t, m, notice(), 0)
	put(t, m, notice(), time.Minute)
	deliver(t, m, time.Minute, sink)
	deliver(t, m, 2*time.Minute, sink)
	put(t, m, notice(), time.Hour)
	deliver(t, m, time.Hour, sink)
	if len(sink.got) != 1 || sink.got[0].Count != 2 || sink.got[0].Text != "two attempts did not help" {
		t.Fatalf("told %+v", sink.got)
	}
	// Less than 24 hours after it was delivered it is silent, at 24 hours it is told again.
	put(t, m, notice(), time.Minute+Reminder-time.Nanosecond)
	deliver(t, m, time.Minute+Reminder-time.Nanosecond, sink)
	if len(sink.got) != 1 {
		t.Fatal("told again too early")
	}
	put(t, m, notice(), time.Minute+Reminder)
	deliver(t, m, time.Minute+Reminder, sink)
	if len(sink.got) != 2 || sink.got[1].Reminder != 1 || sink.got[1].Count != 5 || sink.got[0].ID == sink.got[1].ID {
		t.Fatalf("told %+v", sink.got)
	}
	// Not put again, it is over.
	deliver(t, m, 100*Reminder, sink)
	if len(sink.got) != 2 {
		t.Fatal("told again, and nobody put it")
	}
}

func TestWhatIsTheSame(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a"}
	put(t, m, notice(), 0)
	for _, change := range []func(*Notice){
		func(n *Notice) { n.Runbook = "disk" }, func(n *Notice) { n.Target = "instance=w4" }, func(n *Notice) { n.Episode = "e2" },
		func(n *Notice) { n.Reason = "in doubt" }, func(n *Notice) { n.Kind = Info },
	} {
		n := notice()
		change(&n)
		put(t, m, n, 0)
	}
	for _, change := range []func(*Notice){
		func(n *Notice) { n.Text = "other words" }, func(n *Notice) { n.Run = "r2" }, func(n *Notice) { n.At = n.At.Add(time.Hour) },
	} {
		n := notice()
		change(&n)
		put(t, m, n, 0)
	}
	deliver(t, m, 0, sink)
	if len(sink.got) != 6 {
		t.Errorf("told %d times, want 6", len(sink.got))
	}
}

func TestOneSource(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a", only: "team-7"}
	for i := range 100 {
		put(t, m, Notice{Runbook: fmt.Sprintf("runbook-%d", i), Owner: fmt.Sprintf("team-%d", i), Kind: Source, Source: "prometheus", Reason: fmt.Sprint(i)}, 0)
	}
	deliver(t, m, 0, sink)
	if len(sink.got) != 1 || sink.got[0].Count != 100 || len(sink.got[0].Runbooks) != maxNamed || sink.got[0].Runbooks[1] != "runbook-1" {
		t.Errorf("told %d times: %+v", len(sink.got), sink.got)
	}
}

func TestSinkFails(t *testing.T) {
	t.Parallel()
	m := newMemory()
	good, bad := &fake{name: "good"}, &fake{name: "bad", err: errors.New("it answered 503")}
	other := notice()
	other.Target = "instance=w4"
	put(t, m, notice(), 0)
	put(t, m, other, 0)
	err := Deliver(t.Context(), m, []Sink{good, bad}, epoch)
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code != problem.NoticeFailed || !strings.Contains(p.Message, "2 of 2") || !cmp.Equal(p.Detail, []string{"bad: it answered 503"}) {
		t.Errorf("%v %v", err, p.Detail)
	}
	if bad.try != 1 {
		t.Errorf("a sink that failed was tried %d times", bad.try)
	}
	// The next run, another process, tries what is missing, and only that.
	bad.err = nil
	deliver(t, m, time.Minute, good, bad)
	deliver(t, m, 2*time.Minute, good, bad)
	if len(good.got) != 2 || len(bad.got) != 2 || bad.got[0].ID != good.got[0].ID {
		t.Errorf("good got %d, bad %d", len(good.got), len(bad.got))
	}
	if waiting, err := Pending(t.Context(), m); err != nil || len(waiting) != 0 {
		t.Errorf("waiting: %v %v", waiting, err)
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a", only: "team-b"}
	put(t, m, notice(), 0)
	for _, sinks := range [][]Sink{nil, {sink}} {
		err := Deliver(t.Context(), m, sinks, epoch)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != problem.NoticeFailed || len(p.Detail) != 1 || !strings.Contains(p.Detail[0], "team-a") {
			t.Errorf("a notice that nobody wants: %v", err)
		}
	}
	sink.only = "team-a"
	deliver(t, m, 0, sink)
	if len(sink.got) != 1 {
		t.Error("it was not kept")
	}
}

// If it is not known whether the commit happened, it is told again, with the same id.
func TestUnknownCommit(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a"}
	put(t, m, notice(), 0)
	m.fail = store.ErrUnknown
	if err := Deliver(t.Context(), m, []Sink{sink}, epoch); !errors.Is(err, store.ErrUnknown) {
		t.Fatal(err)
	}
	deliver(t, m, 0, sink)
	if len(sink.got) != 2 || sink.got[0].ID != sink.got[1].ID {
		t.Errorf("told %+v", sink.got)
	}
}

func TestEndedRun(t *testing.T) {
	t.Parallel()
	m, sink := newMemory(), &fake{name: "a"}
	put(t, m, notice(), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var p *problem.Problem
	if err := Deliver(ctx, m, []Sink{sink}, epoch); !errors.As(err, &p) || p.Code != problem.NoticeFailed || sink.try != 0 {
		t.Errorf("%v, tried %d times", err, sink.try)
	}
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key, data string
		want      problem.Code
	}{
		"garbage":       {recordKey(notice().ID()), "garbage", problem.StoreDamaged},
		"newer":         {recordKey(notice().ID()), `{"v":2}`, problem.StateUnusable},
		"no version":    {recordKey(notice().ID()), `{}`, problem.StoreDamaged},
		"garbage index": {pendingKey, `{"v":1,"ids":["x"]}x`, problem.StoreDamaged},
	} {
		m := newMemory()
		m.data[c.key] = []byte(c.data)
		n := notice()
		err := m.Update(t.Context(), Keys(n), func(tx store.Tx) error { return Put(tx, n, epoch) })
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The bytes of version 1 are read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	m := newMemory()
	put(t, m, notice(), 0)
	_ = Deliver(t.Context(), m, []Sink{&fake{name: "a"}, &fake{name: "b", err: io.EOF}}, epoch.Add(time.Second))
	const (
		record = `{"v":1,"id":"3837efe63c84377f8b87","notice":{"runbook":"worker","target":"instance=w3","episode":"e1","reason":"attempts","owner":"team-a",` +
			`"kind":"escalation","text":"two attempts did not help","run":"r1","at":"2026-03-01T10:00:00Z"},"round":1,"count":1,"runbooks":["worker"],` +
			`"owners":["team-a"],"last":"2026-03-01T10:00:00Z","sent":{"a":"2026-03-01T10:00:01Z"}}`
		list = `{"v":1,"ids":["3837efe63c84377f8b87"]}`
	)
	for key, want := range map[string]string{recordKey(notice().ID()): record, pendingKey: list} {
		if got := string(m.data[key]); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", key, got, want)
		}
	}
}

// Whatever is put, however sinks fail: each telling reaches every sink in the end, none is told twice in 24 hours without a failure, and the
// list of what is pending agrees with the records.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, ctx := newMemory(), context.Background()
		sinks := []*fake{{name: "a"}, {name: "b"}}
		asked := map[string]bool{}
		now := epoch
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "hours")) * time.Hour)
			n := notice()
			n.Target = rapid.SampledFrom([]string{"w1", "w2", "w3"}).Draw(t, "target")
			if err := m.Update(ctx, Keys(n), func(tx store.Tx) error { return Put(tx, n, now) }); err != nil {
				t.Fatal(err)
			}
			asked[n.ID()] = true
			for _, s := range sinks {
				s.err = nil
				if rapid.IntRange(0, 2).Draw(t, "fails") == 0 {
					s.err = io.EOF
				}
			}
			failing := sinks[0].err != nil || sinks[1].err != nil
			before := sinks[0].try + sinks[1].try
			if err := Deliver(ctx, m, []Sink{sinks[0], sinks[1]}, now); err != nil && !failing {
				t.Fatal(err)
			} else if err == nil && failing && sinks[0].try+sinks[1].try > before {
				waiting, _ := Pending(ctx, m)
				if len(waiting) > 0 {
					t.Fatalf("no problem, and %d are waiting", len(waiting))
				}
			}
			var list index
			if data := m.data[pendingKey]; data != nil {
				if err := json.Unmarshal(data, &list); err != nil {
					t.Fatal(err)
				}
			}
			for id := range asked {
				var r Record
				if err := json.Unmarshal(m.data[recordKey(id)], &r); err != nil {
					t.Fatal(err)
				}
				if r.Pending() != slices.Contains(list.IDs, id) {
					t.Fatalf("%s is pending: %v, in the list %v", id, r.Pending(), list.IDs)
				}
			}
		}
		for _, s := range sinks {
			s.err = nil
		}
		if err := Deliver(ctx, m, []Sink{sinks[0], sinks[1]}, now); err != nil {
			t.Fatal(err)
		}
		for _, s := range sinks {
			told := map[string]bool{}
			for _, got := range s.got {
				if told[got.ID] {
					t.Fatalf("%s was told %s twice", s.name, got.ID)
				}
				told[got.ID] = true
			}
			for id := range asked {
				if !told[id+"-1"] {
					t.Fatalf("%s was never told %s", s.name, id)
				}
			}
		}
	})
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body Message
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	m := newMemory()
	put(t, m, notice(), 0)
	deliver(t, m, 0, Webhook(server.URL+"/hook", map[string]string{"X-Token": "sesame"}, nil))
	if got == nil || got.Method != http.MethodPost || got.Header.Get("X-Token") != "sesame" || got.Header.Get("Content-Type") != "application/json" ||
		got.Header.Get("Idempotency-Key") != notice().ID()+"-1" {
		t.Fatalf("request %+v", got)
	}
	if diff := cmp.Diff(notice(), body.Notice); diff != "" || body.ID != notice().ID()+"-1" || body.Count != 1 {
		t.Errorf("body %+v %s", body, diff)
	}
	only := Webhook(server.URL, nil, func(owner string) bool { return owner == "team-b" })
	if only.Wants("team-a") || !only.Wants("team-b") {
		t.Error("a route for one owner")
	}
}

// The URL may hold a token: no name, no error shows it, whatever goes wrong.
func TestWebhookFailures(t *testing.T) {
	t.Parallel()
	const secret = "T0KENsecret"
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed to another host") }))
	t.Cleanup(other.Close)
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch kind := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; kind {
		case "status":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "no such token "+secret)
		case "elsewhere":
			http.Redirect(w, r, other.URL+"/"+secret, http.StatusTemporaryRedirect)
		case "page":
			http.Redirect(w, r, "/"+secret+"/ok", http.StatusFound)
		case "loop":
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		case "badlocation":
			w.Header().Set("Location", "http://%zz/"+secret)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case "moved":
			http.Redirect(w, r, "/"+secret+"/ok", http.StatusPermanentRedirect)
		case "cut":
			panic(http.ErrAbortHandler)
		case "hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	closed := httptest.NewServer(nil)
	closed.Close()
	for kind, c := range map[string]struct{ url, want string }{
		"status":      {server.URL, "403 Forbidden"},
		"elsewhere":   {server.URL, "another host"},
		"page":        {server.URL, "a page"},
		"loop":        {server.URL, "too often"},
		"badlocation": {server.URL, "Location"},
		"cut":         {server.URL, "EOF"},
		"hang":        {server.URL, "deadline exceeded"},
		"closed":      {closed.URL, "refused"},
		"moved":       {server.URL, ""},
		"ok":          {server.URL, ""},
		"invalid":     {"http://[::1/", "not valid"},
		"noscheme":    {"no scheme", "unsupported protocol"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			sink := Webhook(c.url+"/"+secret+"/"+kind, map[string]string{"Authorization": "Bearer " + secret}, nil)
			ctx := t.Context()
			if kind == "hang" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
			}
			err := sink.Send(ctx, Message{ID: "m1", Notice: notice()})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if shown := fmt.Sprint(err, sink.Name()); strings.Contains(shown, secret) {
				t.Errorf("it shows the token: %s", shown)
			}
		})
	}
}

func TestStderr(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := newMemory()
	n := notice()
	n.Text = "line one\nline \x1b[31mtwo\n"
	put(t, m, n, 0)
	deliver(t, m, 0, Stderr(&out))
	put(t, m, n, Reminder)
	deliver(t, m, Reminder, Stderr(&out))
	const want = "runbook: escalation: worker instance=w3 for team-a: line one\n    line ?[31mtwo\n" +
		"runbook: escalation: worker instance=w3 for team-a (reminder 1, 2 times so far): line one\n    line ?[31mtwo\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
