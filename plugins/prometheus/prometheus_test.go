package prometheus_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/prometheus"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

const token = "s3cret-token"

func config(url string, more ...any) value.Dict {
	d := value.Dict{{Key: value.String("url"), Value: value.String(url)}}
	for i := 0; i < len(more); i += 2 {
		d = append(d, value.Entry{Key: value.String(more[i].(string)), Value: more[i+1].(value.Value)})
	}
	return d
}

func ask(t *testing.T, c value.Dict, function string, args ...any) (value.Value, error) {
	t.Helper()
	h := sdktest.New(t, prometheus.New())
	if err := h.Configure(c); err != nil {
		t.Fatal(err)
	}
	d := value.Dict{{Key: value.String("expr"), Value: value.String("up")}}
	for i := 0; i < len(args); i += 2 {
		d = append(d, value.Entry{Key: value.String(args[i].(string)), Value: args[i+1].(value.Value)})
	}
	return h.Query(t.Context(), function, d)
}

// reply is a server that always answers the same.
func reply(t *testing.T, status int, kind, body string) *httptest.Server {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func serve(t *testing.T, fn http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	return s
}

func vector(results string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + results + `]}}`
}

func series(labels map[string]string, points ...value.Value) value.Value {
	return value.Dict{
		{Key: value.String("labels"), Value: value.Strings(labels)}, {Key: value.String("points"), Value: value.List(points)},
	}
}

func point(unix float64, v float64) value.Value {
	sec, frac := math.Modf(unix)
	return value.List{value.Time(time.Unix(int64(sec), int64(frac*1e9)).UTC()), value.Float(v)}
}

var sameTime = cmp.Comparer(func(a, b value.Time) bool { return time.Time(a).Equal(time.Time(b)) })

var sameFloat = cmp.Comparer(func(a, b value.Float) bool { return a == b || a != a && b != b })

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		want       value.List
	}{
		{"empty", vector(""), value.List{}},
		{"vector", vector(`{"metric":{"__name__":"up","b":"x","a":"y"},"value":[1700000000.5,"1"]},{"metric":{},"value":[1700000000,"-0.25"]}`), value.List{
			series(map[string]string{"__name__": "up", "a": "y", "b": "x"}, point(1700000000.5, 1)), series(nil, point(1700000000, -0.25)),
		}},
		{"NaN and infinities", vector(`{"metric":{},"value":[1,"NaN"]},{"metric":{},"value":[1,"+Inf"]}`), value.List{
			series(nil, point(1, math.NaN())), series(nil, point(1, math.Inf(1))),
		}},
		{"scalar", `{"status":"success","data":{"resultType":"scalar","result":[5,"42"]}}`, value.List{series(nil, point(5, 42))}},
		{
			"matrix", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"1"],[61,"2"]]}]}}`,
			value.List{series(map[string]string{"a": "b"}, point(1, 1), point(61, 2))},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := reply(t, 200, "application/json", tt.body)
			got, err := ask(t, config(s.URL), "instant")
			if d := cmp.Diff(value.Value(tt.want), got, sameFloat, sameTime); err != nil || d != "" {
				t.Error(err, d)
			}
		})
	}
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	var last http.Request
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		last = *r
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, vector(""))
	})
	at := value.Time(time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC))
	c := config(s.URL+"/prom/", "bearer_token", value.String(token), "headers", value.Strings(map[string]string{"X-Scope-OrgID": "team"}))
	if _, err := ask(t, c, "instant", "at", at); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"/prom/api/v1/query": last.URL.Path, "Bearer " + token: last.Header.Get("Authorization"), "team": last.Header.Get("X-Scope-OrgID"),
		"1772360400": last.Form.Get("time"), "up": last.Form.Get("query"), "10s": last.Form.Get("timeout"),
	} {
		if name != got {
			t.Errorf("got %q, want %q", got, name)
		}
	}
	if _, err := ask(t, config(s.URL), "instant"); err != nil || last.Form.Has("time") {
		t.Errorf("a time was made up: %v %v", last.Form, err)
	}
	c = config(s.URL, "basic_user", value.String("u"), "basic_password", value.String("p"))
	_, err := ask(t, c, "range", "start", value.String("2026-03-01T10:00:00Z"), "end", at, "step", value.Duration(30*time.Second))
	if u, p, _ := last.BasicAuth(); err != nil || u != "u" || p != "p" || last.Form.Get("step") != "30" || last.URL.Path != "/api/v1/query_range" {
		t.Errorf("%v %v %q", err, last.Form, last.URL)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	const html = "<!DOCTYPE html>\n<html><head><title>Sign in to your account</title></head><body>lots and lots of text here</body></html>"
	many := `{"metric":{"a":"b"},"values":[` + strings.Repeat(`[1,"1"],`, 100_000) + `[1,"1"]]}`
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tlsServer.Close)
	release := make(chan struct{})
	slow := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	drop := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"status":`)
	})
	redirect := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://login.example/start?token="+token, http.StatusFound)
	})
	plain := reply(t, 200, "application/json", vector(""))
	for _, tt := range []struct {
		name, url string
		more      []any
		code      problem.Code
		parts     []string
	}{
		{"html", reply(t, 200, "text/html; charset=utf-8", html).URL, nil, problem.MetricsSource, []string{"not a Prometheus answer: 200 OK, text/html", "<title>Sign in to your account"}},
		{"bad gateway", reply(t, 502, "text/html", html).URL, nil, problem.MetricsSource, []string{"502 Bad Gateway"}},
		{"not JSON", reply(t, 200, "application/json", "hello").URL, nil, problem.MetricsSource, []string{"not a Prometheus answer"}},
		{"other JSON", reply(t, 200, "application/json", `{"hello":1}`).URL, nil, problem.MetricsSource, []string{"not a Prometheus answer"}},
		{"redirect", redirect.URL, nil, problem.MetricsSource, []string{"redirects to https://login.example/start, which may be a login page"}},
		{"401", reply(t, 401, "application/json", `{"status":"error","error":"bad `+token+`"}`).URL, nil, problem.MetricsSource, []string{"credentials (401)"}},
		{"403", reply(t, 403, "text/plain", "no").URL, nil, problem.MetricsSource, []string{"(403)"}},
		{"echo", reply(t, 500, "text/plain", "you sent "+token).URL, nil, problem.MetricsSource, []string{"you sent [hidden]"}},
		{"bad query", reply(t, 400, "application/json", `{"status":"error","errorType":"bad_data","error":"parse error: unexpected )"}`).URL, nil, problem.Query, []string{"refuses the query: parse error: unexpected )"}},
		{"422", reply(t, 422, "application/json", `{"status":"error","errorType":"execution","error":"many-to-many matching"}`).URL, nil, problem.Query, []string{"the query failed: many-to-many matching"}},
		{"503", reply(t, 503, "application/json", `{"status":"error","errorType":"timeout","error":"query timed out"}`).URL, nil, problem.MetricsSource, []string{"query timed out"}},
		{"partial", reply(t, 200, "application/json", `{"status":"success","warnings":["store 3 is down"],"data":{"resultType":"vector","result":[]}}`).URL, nil, problem.MetricsSource, []string{"the answer is partial: store 3 is down"}},
		{"string", reply(t, 200, "application/json", `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`).URL, nil, problem.MetricsSource, []string{"Prometheus answer"}},
		{"echo in an answer", reply(t, 200, "application/json", `{"status":"success","data":{"resultType":"`+token+`","result":[]}}`).URL, nil, problem.MetricsSource, []string{"its result is a [hidden]"}},
		{"too many points", reply(t, 200, "application/json", `{"status":"success","data":{"resultType":"matrix","result":[`+many+`]}}`).URL, nil, problem.MetricsSource, []string{"too large", "aggregate"}},
		{"too many bytes", reply(t, 200, "application/json", strings.Repeat(" ", 17<<20)).URL, nil, problem.MetricsSource, []string{"too large"}},
		{"slow", slow.URL, []any{"timeout", value.Duration(50 * time.Millisecond)}, problem.MetricsSource, []string{"no answer within 50ms"}},
		{"dropped", drop.URL, nil, problem.MetricsSource, []string{"broke before"}},
		{"refused", "http://127.0.0.1:1", nil, problem.MetricsSource, []string{"connection refused"}},
		{"DNS", "http://prometheus.invalid", nil, problem.MetricsSource, []string{"prometheus.invalid cannot be resolved"}},
		{"untrusted", tlsServer.URL, nil, problem.MetricsSource, []string{"TLS: the certificate is not trusted", "ca_file"}},
		{"no TLS", strings.Replace(plain.URL, "http", "https", 1), nil, problem.MetricsSource, []string{"TLS: the server does not speak it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ask(t, config(tt.url, append(tt.more, "bearer_token", value.String(token))...), "instant")
			var p *problem.Problem
			if !errors.As(err, &p) {
				t.Fatalf("got %v", err)
			}
			all := p.Message + " " + p.Hint
			if p.Code != tt.code || !strings.Contains(p.Message, strings.TrimPrefix(strings.TrimPrefix(tt.url, "http://"), "https://")) {
				t.Errorf("%s: %s", p.Code, p.Message)
			}
			for _, part := range tt.parts {
				if !strings.Contains(all, part) {
					t.Errorf("%q does not contain %q", all, part)
				}
			}
			if strings.Contains(all, token) || len(p.Message) > 700 {
				t.Errorf("message: %s", p.Message)
			}
		})
	}
}

func TestTrustedCA(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, vector(""))
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, config(s.URL, "ca_file", value.String(ca)), "instant"); err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for part, c := range map[string]value.Dict{
		"url is required":             {},
		"not an http":                 config("localhost:9090"),
		"contains credentials":        config("http://u:" + token + "@localhost"),
		"exclude each other":          config("http://localhost", "bearer_token", value.String("x"), "basic_user", value.String("y")),
		"no such file":                config("http://localhost", "ca_file", value.String("/none")),
		`did you mean "ca_file"`:      config("http://localhost", "cafile", value.String("/none")),
		"timeout: must be a duration": config("http://localhost", "timeout", value.Int(5)),
		"it must be positive":         config("http://localhost", "timeout", value.Duration(0)),
		"a line break":                config("http://localhost", "bearer_token", value.String(token+"\n")),
		"has no certificate in PEM":   config("http://localhost", "ca_file", value.String("/etc/hostname")),
	} {
		err := sdktest.New(t, prometheus.New()).Configure(c)
		if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), token) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	s := reply(t, 200, "application/json", vector(""))
	now := value.Time(time.Unix(1000, 0))
	if _, err := ask(t, config(s.URL), "instant", "at", value.String("yesterday")); err == nil || !strings.Contains(err.Error(), "is not a time") {
		t.Error(err)
	}
	if _, err := ask(t, config(s.URL), "range", "start", now, "end", value.Time(time.Unix(0, 0)), "step", value.Duration(1)); err == nil {
		t.Error("a range that ends before it starts")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := sdktest.New(t, prometheus.New())
	if err := h.Configure(config(s.URL)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Query(ctx, "instant", value.Dict{{Key: value.String("expr"), Value: value.String("up")}}); err == nil {
		t.Error("a cancelled question was answered")
	}
}
