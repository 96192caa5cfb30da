package alertmanager_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/alertmanager"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func dict(kv ...any) value.Dict {
	var d value.Dict
	for i := 0; i < len(kv); i += 2 {
		d = append(d, value.Entry{Key: value.String(kv[i].(string)), Value: kv[i+1].(value.Value)})
	}
	return d
}

func serve(t *testing.T, fn http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	return s.URL
}

func reply(t *testing.T, status int, kind, body string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func harness(t *testing.T, config value.Dict) *sdktest.Harness {
	t.Helper()
	h := sdktest.New(t, alertmanager.New())
	if err := h.Configure(config); err != nil {
		t.Fatal(err)
	}
	return h
}

const two = `[
 {"labels":{"alertname":"Stuck","instance":"w3","severity":"warning"},"annotations":{"summary":"s"},"startsAt":"2026-03-01T10:00:00.000Z","endsAt":"2026-03-01T10:30:00.000Z","updatedAt":"2026-03-01T10:20:00.000+01:00","fingerprint":"b","receivers":[{"name":"x"}],"status":{"state":"active","silencedBy":[],"inhibitedBy":[],"mutedBy":[]},"generatorURL":"http://p"},
 {"labels":{"alertname":"Stuck","instance":"w1"},"annotations":{},"startsAt":"2026-03-01T10:00:00Z","updatedAt":"2026-03-01T10:20:00Z","status":{"state":"suppressed","silencedBy":["1"]}}
]`

func TestAlerts(t *testing.T) {
	t.Parallel()
	var asked http.Request
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = *r
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, two)
	})
	got, err := harness(t, dict("url", value.String(url), "bearer_token", value.String("s3cret"))).Query(t.Context(), "alerts",
		dict("name", value.String("Stuck"), "where", value.Strings(map[string]string{"job": `a"b`})))
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) value.Value {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return value.Time(x)
	}
	want := value.List{
		dict("name", value.String("Stuck"), "labels", value.Strings(map[string]string{"alertname": "Stuck", "instance": "w1"}), "annotations", value.Dict{},
			"since", at("2026-03-01T10:00:00Z"), "updated", at("2026-03-01T10:20:00Z"), "silenced", value.Bool(true)),
		dict("name", value.String("Stuck"), "labels", value.Strings(map[string]string{"alertname": "Stuck", "instance": "w3", "severity": "warning"}),
			"annotations", value.Strings(map[string]string{"summary": "s"}), "since", at("2026-03-01T10:00:00Z"), "updated", at("2026-03-01T09:20:00Z"), "silenced", value.Bool(false)),
	}
	equalTimes := cmp.Comparer(func(a, b value.Time) bool { return time.Time(a).Equal(time.Time(b)) })
	empty := cmp.Comparer(func(a, b value.Dict) bool {
		x, _ := value.Marshal(a)
		y, _ := value.Marshal(b)
		return string(x) == string(y)
	})
	if d := cmp.Diff(value.Value(want), got, equalTimes, empty); d != "" {
		t.Error(d)
	}
	if q := asked.URL.Query()["filter"]; len(q) != 2 || q[0] != `alertname="Stuck"` || q[1] != `job="a\"b"` || asked.Header.Get("Authorization") != "Bearer s3cret" {
		t.Errorf("asked %s with %v", asked.URL, asked.Header)
	}
}

// Whatever answers there, an answer that is not complete is an error, which says who, and never says a secret.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ url, want string }{
		"a login page":      {reply(t, 200, "text/html", "<html>Sign in</html>"), "not an Alertmanager answer: 200 OK, text/html"},
		"not JSON":          {reply(t, 200, "application/json", "{"), "not an Alertmanager answer: unexpected end"},
		"another API":       {reply(t, 200, "application/json", `{"status":"success"}`), "not an Alertmanager answer: json: cannot unmarshal object"},
		"alerts of nothing": {reply(t, 200, "application/json", `[{}]`), "an alert without its name, times or state"},
		"its own error":     {reply(t, 500, "application/json", `"s3cret is broken"`), `it answers 500 Internal Server Error: [hidden] is broken`},
		"unauthorised":      {reply(t, 401, "text/plain", "no"), "it does not accept the credentials (401)"},
		"nothing there":     {"http://127.0.0.1:1", "connection refused: nothing listens there"},
		"slow": {serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			<-r.Context().Done()
		}), "no answer within 100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness(t, dict("url", value.String(x.url), "bearer_token", value.String("s3cret"), "timeout", value.Duration(100*time.Millisecond)))
			if name != "slow" {
				h = harness(t, dict("url", value.String(x.url), "bearer_token", value.String("s3cret")))
			}
			_, err := h.Query(context.Background(), "alerts", nil)
			if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %s", err, x.want)
			}
		})
	}
	h := sdktest.New(t, alertmanager.New())
	for _, config := range []value.Dict{dict("url", value.String("x")), dict("url", value.String("http://u:p@h")), dict("url", value.String("http://h"), "timeout", value.Duration(0))} {
		if err := h.Configure(config); err == nil {
			t.Errorf("%v is accepted", config)
		}
	}
}

// silences is as much of an Alertmanager as makes silences.
type silences struct {
	mu    sync.Mutex
	list  []map[string]any
	fail  bool // answers after it has done it, with nothing
	posts int
}

func (s *silences) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.Method {
	case http.MethodGet:
		_ = json.NewEncoder(w).Encode(s.list)
	case http.MethodPost:
		s.posts++
		x := map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&x)
		x["id"], x["status"] = fmt.Sprint(s.posts), map[string]any{"state": "active"}
		s.list = append(s.list, x)
		if s.fail {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"silenceID": x["id"]})
	case http.MethodDelete:
		w.Header().Del("Content-Type")
		for _, x := range s.list {
			if r.URL.Path == "/api/v2/silence/"+x["id"].(string) {
				x["status"] = map[string]any{"state": "expired"}
			}
		}
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	am := &silences{list: []map[string]any{{
		"id": "theirs", "createdBy": "ann", "comment": "k1", "status": map[string]any{"state": "active"},
		"matchers": []any{map[string]any{"name": "alertname", "value": "Stuck", "isRegex": false, "isEqual": true}, map[string]any{"name": "instance", "value": "w3", "isRegex": false, "isEqual": true}},
	}}}
	h := harness(t, dict("url", value.String(serve(t, am.ServeHTTP))))
	target := sdk.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3"}}
	act := func(function, key string, args value.Dict) sdktest.Outcome {
		return h.Act(sdktest.Action{Function: function, Args: args, Target: target, Key: key})
	}
	args := dict("alert", value.String("Stuck"), "by", value.List{value.String("instance")})
	is := func(o sdktest.Outcome, want pluginpb.Outcome, posts int) {
		t.Helper()
		am.mu.Lock() // an answer that was cut off comes before its handler has ended
		defer am.mu.Unlock()
		if o.Outcome != want || am.posts != posts {
			t.Errorf("%+v, %d posts; want %s, %d", o, am.posts, want, posts)
		}
	}
	is(act("silence", "k1", args), pluginpb.Outcome_OUTCOME_SUCCEEDED, 1)
	is(act("silence", "k1", args), pluginpb.Outcome_OUTCOME_NO_CHANGE, 1) // the same key is one effect
	is(act("silence", "k2", dict("alert", value.String("Stuck"), "by", value.List{})), pluginpb.Outcome_OUTCOME_NOT_STARTED, 1)
	is(act("silence", "k2", dict("alert", value.String("Stuck"), "by", value.List{value.String("zone")})), pluginpb.Outcome_OUTCOME_NOT_STARTED, 1)
	is(act("expire", "k3", args), pluginpb.Outcome_OUTCOME_SUCCEEDED, 1)
	if am.list[0]["status"].(map[string]any)["state"] != "active" || am.list[1]["status"].(map[string]any)["state"] != "expired" {
		t.Errorf("somebody else's silence has ended, or ours has not: %v", am.list)
	}
	is(act("expire", "k4", args), pluginpb.Outcome_OUTCOME_NO_CHANGE, 1)
	am.fail = true
	is(act("silence", "k5", args), pluginpb.Outcome_OUTCOME_UNKNOWN, 2) // nobody knows whether it was made
}
