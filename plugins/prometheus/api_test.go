package prometheus_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/prometheus"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Whatever the order of its parts, and whatever stands beside them, an answer is read; what is no answer is an error and never an empty one.
func TestForms(t *testing.T) {
	t.Parallel()
	one := value.List{series(map[string]string{"a": "b"}, point(1, 2))}
	for body, want := range map[string]any{
		`{"data":{"result":[{"value":[1,"2"],"metric":{"a":"b"}}],"resultType":"vector"},"status":"success","infos":["x"],"stats":{}}`: one,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.0004,"2e0"]}],"analysis":[]}}`:     one,
		vector(`{"metric":{"a":"` + "\xff" + `"},"value":[1,"2"]}`):                                                                    value.List{series(map[string]string{"a": "\ufffd"}, point(1, 2))},
		vector(`{"metric":{"a":"b"},"value":[1,"2"],"more":1}`):                                                                        one,
		vector(`{"value":[-1.5,"2"]}`): value.List{series(nil, point(-1.5, 2))},
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[]}]}}`: value.List{series(map[string]string{"a": "b"}, value.List{}...)},

		`{"status":"success"}`: "JSON without a result",
		`{"status":"success","data":{"resultType":"vector","result":null}}`:                                                     "JSON without a result",
		`{"status":"success","data":{"resultType":"vector","result":{}}}`:                                                       "not a list",
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"}`:                                       "EOF",
		`{"status":"success","data":{"resultType":"vector","result":[1]}}`:                                                      "not a Prometheus answer",
		`{"status":"success","data":{"resultType":"streams","result":[]}}`:                                                      "its result is a streams, not numbers",
		vector(`{"metric":{"a":"b"}}`):                                                                                          "a sample without a value",
		vector(`{"metric":{"a":"b"},"value":[1,2]}`):                                                                            "value is not a number as text",
		vector(`{"metric":{"a":"b"},"value":[1,"two"]}`):                                                                        "value is not a number as text",
		vector(`{"metric":{"a":"b"},"value":["1","2"]}`):                                                                        "time is not a number",
		vector(`{"metric":{"a":"b"},"value":[1e300,"2"]}`):                                                                      "beyond all years",
		vector(`{"metric":{"a":"b"},"value":[1,"2",3]}`):                                                                        "more than a time and a value",
		vector(`{"metric":{"a":"b"},"value":{}}`):                                                                               "a sample is not a list",
		vector(`{"metric":{"a":"b"},"value":[]}`):                                                                               "not a Prometheus answer",
		vector(`{"metric":{"a":"b","a":"c"},"value":[1,"2"]}`):                                                                  "duplicate",
		vector(`{"metric":{"a":1},"value":[1,"2"]}`):                                                                            "not a Prometheus answer",
		vector("") + vector(""):                                                                                                 "not a Prometheus answer",
		vector(`{"metric":{},"histogram":[1,{"count":"1"}]}`):                                                                   "native histograms",
		`{"status":"error","errorType":"bad_data","error":"no"}`:                                                                "it refuses the query: no",
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]],"histograms":[[1,{}]]}]}}`: "native histograms",
	} {
		got, err := ask(t, config(reply(t, 200, "application/json", body).URL), "instant")
		if list, ok := want.(value.List); ok {
			if d := cmp.Diff(value.Value(list), got, sameFloat, sameTime); err != nil || d != "" {
				t.Errorf("%s: %v %s", body, err, d)
			}
		} else if err == nil || !strings.Contains(err.Error(), want.(string)) {
			t.Errorf("%s: got %v, %v, want %q", body, got, err, want)
		}
	}
}

// Where the server, or what is before it, allows no POST it is asked with GET. What the connection's own address asks for goes along.
func TestGet(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		var methods, asked []string
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			methods = append(methods, r.Method)
			if r.Method == http.MethodPost {
				http.Error(w, "no", status)
				return
			}
			asked = append(asked, r.URL.RequestURI())
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, vector(""))
		})
		if _, err := ask(t, config(s.URL+"/p/?tenant=a"), "instant", "at", value.Time(time.Unix(5, 250e6))); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff([]string{"POST", "GET"}, methods); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"/p/api/v1/query?query=up&tenant=a&time=5.25&timeout=10s"}, asked); d != "" {
			t.Error(d)
		}
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	about := func(s string) value.Value {
		h := sdktest.New(t, prometheus.New())
		if err := h.Configure(config(s)); err != nil {
			t.Fatal(err)
		}
		v, err := h.Query(t.Context(), "server", value.Dict{})
		if err != nil {
			t.Fatal(err)
		}
		version, _ := v.(value.Dict).Get("version")
		return version
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":{"version":"3.1 %s"}}`, r.URL.Path)
	})
	if v := about(s.URL); v != value.String("3.1 /api/v1/status/buildinfo") {
		t.Error(v)
	}
	if v := about(reply(t, 404, "text/plain", "no").URL); v != value.String("") {
		t.Error(v)
	}
}

// No answer is a panic, a success with numbers that are not there, or an error that is no problem.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		vector(`{"metric":{"a":"b"},"value":[1,"2"]}`), `{"status":"success","data":{"resultType":"scalar","result":[5,"42"]}}`,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"1"],[61,"NaN"]]}]}}`, `{"status":"error"}`, `[`, `{"data":{"result":[[`,
	} {
		f.Add(seed)
	}
	var body atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body.Load())
	}))
	s.Config.SetKeepAlivesEnabled(false) // each round is another client
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, text string) {
		body.Store(text)
		h := sdktest.New(t, prometheus.New())
		if err := h.Configure(config(s.URL)); err != nil {
			t.Fatal(err)
		}
		for _, packed := range []bool{false, true} {
			v, err := h.Query(t.Context(), "instant", value.Dict{
				{Key: value.String("expr"), Value: value.String("up")}, {Key: value.String("packed"), Value: value.Bool(packed)},
			})
			if err == nil && v == nil {
				t.Fatal("neither an answer nor an error")
			}
			if p, ok := errors.AsType[*problem.Problem](err); err != nil && (!ok || p.Code == problem.Internal) {
				t.Fatalf("%T: %v", err, err)
			}
		}
	})
}
