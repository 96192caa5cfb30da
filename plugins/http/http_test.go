package http_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	plugin "github.com/seed1de3961f/runbook/plugins/http"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func dict(pairs ...any) value.Dict {
	d := value.Dict{}
	for i := 0; i < len(pairs); i += 2 {
		d = append(d, value.Entry{Key: value.String(pairs[i].(string)), Value: pairs[i+1].(value.Value)})
	}
	return d
}

func harness(t *testing.T, url string, more ...any) *sdktest.Harness {
	t.Helper()
	h := sdktest.New(t, plugin.New())
	sends := value.List{value.String("POST /workers/*/restart"), value.String("DELETE /jobs/*")}
	if err := h.Configure(dict(append([]any{"url", value.String(url), "sends", sends}, more...)...)); err != nil {
		t.Fatal(err)
	}
	return h
}

func serve(t *testing.T, fn http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	return s.URL
}

func restart(more ...any) sdktest.Action {
	return sdktest.Action{
		Function: "send", Args: dict(append([]any{"path", value.String("/workers/w3/restart")}, more...)...),
		Target: sdk.Target{Key: "instance=w3", Name: "w3"}, Key: "key-1",
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for want, config := range map[string]value.Dict{
		"url: not an http or https address":   dict("url", value.String("api.example")),
		"is not a method and a path":          dict("url", value.String("http://a"), "sends", value.List{value.String("/workers")}),
		`"GET /x" is not a method and a path`: dict("url", value.String("http://a"), "sends", value.List{value.String("GET /x")}),
		`"POST x" is not a method and a path`: dict("url", value.String("http://a"), "sends", value.List{value.String("POST x")}),
		"it must be positive":                 dict("url", value.String("http://a"), "timeout", value.Duration(0)),
		"it contains credentials":             dict("url", value.String("http://u:p@a")),
	} {
		if err := sdktest.New(t, plugin.New()).Configure(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/json":
			fmt.Fprint(w, `{"z": 9007199254740993, "$ref": [1.5, null, true], "a": {"b": "c"}}`)
		case "/v1/text":
			fmt.Fprint(w, "plain\xff text for "+r.Header.Get("Authorization"))
		case "/v1/away":
			http.Redirect(w, r, "https://login.example/", http.StatusFound)
		case "/v1/huge":
			_, _ = w.Write(make([]byte, 1<<20+1))
		case "/v1/slow":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, r.URL.RequestURI())
		}
	})
	h := harness(t, url+"/v1", "bearer_token", value.String("hush-hush"), "timeout", value.Duration(500*time.Millisecond))
	get := func(path string, query ...any) (value.Value, error) {
		return h.Query(t.Context(), "get", dict("path", value.String(path), "query", dict(query...)))
	}
	for path, want := range map[string]value.Dict{
		"/json": dict("status", value.Int(200), "text", value.String(`{"z": 9007199254740993, "$ref": [1.5, null, true], "a": {"b": "c"}}`), "json", dict(
			"$ref", value.List{value.Float(1.5), value.Null{}, value.Bool(true)}, "a", dict("b", value.String("c")), "z", value.Int(9007199254740993))),
		"/text":    dict("status", value.Int(200), "text", value.String("plain\uFFFD text for Bearer [hidden]"), "json", value.Null{}),
		"/a b/é;x": dict("status", value.Int(404), "text", value.String("/v1/a%20b/%C3%A9;x"), "json", value.Null{}),
	} {
		got, err := get(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if d := cmp.Diff(value.Value(want), got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	if got, err := get("/x", "q", value.String("a&b=c#d")); err != nil || !strings.Contains(fmt.Sprint(got), "/v1/x?q=a%26b%3Dc%23d") {
		t.Error(got, err)
	}
	if got, err := get("/away"); err != nil || !strings.Contains(fmt.Sprint(got), "302") {
		t.Errorf("a redirect is an answer, and is not followed: %v %v", got, err)
	}
	for path, want := range map[string]string{
		"/huge": "larger than 1 MiB", "/slow": "no answer within 500ms", "x": "does not begin with /", "/a/../../admin": "has an empty part, . or ..",
		"//evil.example/x": "has an empty part", "/a?b=c": "means something in a URL", "/a%2e%2e/b": "means something in a URL", "/a\nb": "means something in a URL",
	} {
		if _, err := get(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// What is sent is what was meant: values are encoded, not pasted.
func TestSend(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[http.Request]
	var body atomic.Value
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body.Store(string(b))
		seen.Store(r)
		fmt.Fprint(w, `{"ok": true}`)
	})
	h := harness(t, url)
	out := h.Act(restart("json", dict("why", value.String(`it "hangs", {target}`), "n", value.Int(3), "f", value.Float(2), "none", value.Null{}, "l", value.List{value.Bool(true)})))
	if out.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED || !strings.Contains(fmt.Sprint(out.Value), "200") {
		t.Errorf("%+v", out)
	}
	r := seen.Load()
	if r.Method != http.MethodPost || r.URL.Path != "/workers/w3/restart" || r.Header.Get("Idempotency-Key") != "key-1" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	if want := `{"f":2,"l":[true],"n":3,"none":null,"why":"it \"hangs\", {target}"}`; body.Load() != want {
		t.Errorf("body %s, want %s", body.Load(), want)
	}
	h.Act(restart("form", dict("a", value.String("b&c=d"))))
	if body.Load() != "a=b%26c%3Dd" || seen.Load().Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("form %s", body.Load())
	}
	plan, err := h.Plan(restart("json", dict("n", value.Int(3))))
	if err != nil || len(plan.GetChanges()) != 1 || plan.GetChanges()[0].GetWhat() != "POST "+url+"/workers/w3/restart" || plan.GetChanges()[0].GetAfter() != `{"n":3}` {
		t.Errorf("%v %v", plan, err)
	}
	seen.Store(nil)
	no := restart()
	no.Decline = true
	if out := h.Act(no); !out.Declined {
		t.Errorf("%+v", out)
	}
	for want, a := range map[string]sdktest.Action{
		"does not allow to send DELETE /workers/w3/restart": restart("method", value.String("DELETE")),
		"method: \"GET\" is none of":                        restart("method", value.String("GET")),
		"a request has one body":                            restart("json", value.Int(1), "form", dict("a", value.String("b"))),
		"JSON has no duration":                              restart("json", value.Duration(5)),
		"does not allow to send POST /workers/a/b/restart":  {Function: "send", Args: dict("path", value.String("/workers/a/b/restart"))},
		"has an empty part, . or ..":                        {Function: "send", Args: dict("path", value.String("/workers/../restart"))},
	} {
		if out := h.Act(a); out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || out.Started || !strings.Contains(out.Message, want) {
			t.Errorf("got %+v, want %q", out, want)
		}
	}
	if seen.Load() != nil {
		t.Error("what was refused was sent")
	}
}

// Only what the server worded as refused, or never saw, is a definite failure.
func TestWhatAnAnswerMeans(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]pluginpb.Outcome{
		200: pluginpb.Outcome_OUTCOME_SUCCEEDED, 202: pluginpb.Outcome_OUTCOME_SUCCEEDED, 204: pluginpb.Outcome_OUTCOME_SUCCEEDED,
		301: pluginpb.Outcome_OUTCOME_UNKNOWN, 303: pluginpb.Outcome_OUTCOME_UNKNOWN, 308: pluginpb.Outcome_OUTCOME_FAILED,
		400: pluginpb.Outcome_OUTCOME_FAILED, 401: pluginpb.Outcome_OUTCOME_FAILED, 403: pluginpb.Outcome_OUTCOME_FAILED, 409: pluginpb.Outcome_OUTCOME_FAILED,
		500: pluginpb.Outcome_OUTCOME_UNKNOWN, 502: pluginpb.Outcome_OUTCOME_UNKNOWN, 503: pluginpb.Outcome_OUTCOME_UNKNOWN, 504: pluginpb.Outcome_OUTCOME_UNKNOWN,
	} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(status)
			if status != http.StatusNoContent {
				fmt.Fprint(w, "not for "+r.Header.Get("X-Api-Key"))
			}
		})
		out := harness(t, url, "headers", dict("X-Api-Key", value.String("hush-hush"))).Act(restart())
		if out.Outcome != want || strings.Contains(out.Message+fmt.Sprint(out.Value), "hush-hush") {
			t.Errorf("%d: %+v, want %s", status, out, want)
		}
	}
	// A success whose answer breaks off is one.
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	if out := harness(t, url).Act(restart()); out.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
		t.Errorf("broken off: %+v", out)
	}
	// Nothing was sent.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if out := harness(t, "http://"+l.Addr().String()).Act(restart()); out.Outcome != pluginpb.Outcome_OUTCOME_FAILED || !strings.Contains(out.Message, "connection refused") {
		t.Errorf("nobody there: %+v", out)
	}
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	if out := harness(t, s.URL).Act(restart()); out.Outcome != pluginpb.Outcome_OUTCOME_FAILED || !strings.Contains(out.Message, "certificate is not trusted") {
		t.Errorf("untrusted: %+v", out)
	}
	slow := restart()
	slow.Timeout = 300 * time.Millisecond
	if out := harness(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).Act(slow); out.Outcome != pluginpb.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("no answer: %+v", out)
	}
}

// net/http sends a request with an Idempotency-Key again by itself when a connection that was used before breaks. This plugin does not.
func TestIsSentOnce(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "ready")
			return
		}
		if sent.Add(1) == 1 {
			fmt.Fprint(w, "done")
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.Close()
	})
	h := harness(t, url)
	if _, err := h.Query(t.Context(), "get", dict("path", value.String("/"))); err != nil {
		t.Fatal(err)
	}
	if out := h.Act(restart()); out.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("%+v", out)
	}
	out := h.Act(restart())
	if out.Outcome != pluginpb.Outcome_OUTCOME_UNKNOWN || sent.Load() != 2 {
		t.Errorf("%+v, and it was sent %d times", out, sent.Load()-1)
	}
}
