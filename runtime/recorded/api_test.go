package recorded

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

func serveAPI(t *testing.T, db *DB) (string, promapi.API) {
	t.Helper()
	srv := httptest.NewServer(db.Handler())
	t.Cleanup(srv.Close)
	client, err := api.NewClient(api.Config{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL, promapi.NewAPI(client)
}

func recording(t *testing.T) *DB {
	t.Helper()
	db := New(Options{})
	fill(t, db, depth("w1"), 1, 2, 3.5, math.Inf(1), math.NaN())
	fill(t, db, depth("w2"), 10, 20, 30, 40, 50)
	return db
}

// The standard client reads the same numbers over HTTP that Instant and Range return.
func TestStandardClient(t *testing.T) {
	t.Parallel()
	db := recording(t)
	_, client := serveAPI(t, db)
	for _, expr := range []string{`queue_depth`, `queue_depth > 15`, `sum(queue_depth)`, `rate(queue_depth[3m])`, `nothing`, `time()`, `1/0`} {
		for _, when := range []time.Duration{0, 2 * time.Minute, 4*time.Minute + 100*time.Millisecond} {
			own, err := db.Instant(t.Context(), expr, at(when))
			if err != nil {
				t.Fatal(err)
			}
			got, warnings, _, err := client.Query(t.Context(), expr, at(when))
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			var all model.Vector
			switch v := got.(type) {
			case model.Vector:
				all = v
			case *model.Scalar:
				all = model.Vector{{Metric: model.Metric{}, Value: v.Value, Timestamp: v.Timestamp}}
			default:
				t.Fatalf("%s: %T", expr, got)
			}
			if len(all) != len(own) {
				t.Fatalf("%s: %d samples over HTTP, %d without", expr, len(all), len(own))
			}
			for i, s := range all {
				lset := map[string]string{}
				for name, v := range s.Metric {
					lset[string(name)] = string(v)
				}
				want(t, lset, own[i].Labels)
				want(t, s.Timestamp.Time().UTC(), own[i].At)
				if math.Float64bits(float64(s.Value)) != math.Float64bits(own[i].Value) && float64(s.Value) == float64(s.Value) {
					t.Errorf("%s: %v over HTTP, %v without", expr, s.Value, own[i].Value)
				}
			}
		}
		got, _, _, err := client.QueryRange(t.Context(), expr, promapi.Range{Start: at(0), End: at(4 * time.Minute), Step: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		own, err := db.Range(t.Context(), expr, at(0), at(4*time.Minute), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		m := got.(model.Matrix)
		if len(m) != len(own) {
			t.Fatalf("%s: %d series over HTTP, %d without", expr, len(m), len(own))
		}
		for i := range m {
			for j, p := range m[i].Values {
				want(t, p.Timestamp.Time().UTC(), own[i].Points[j].At)
				if v := own[i].Points[j].Value; float64(p.Value) != v && v == v {
					t.Errorf("%s: %v over HTTP, %v without", expr, p.Value, v)
				}
			}
		}
	}

	names, _, _, err := client.LabelNames(t.Context(), nil, at(0), at(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want(t, names, model.LabelNames{"__name__", "instance"})
	values, _, _, err := client.LabelValues(t.Context(), "instance", []string{`queue_depth{instance!="w2"}`}, at(0), at(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want(t, values, model.LabelValues{"w1"})
	series, _, _, err := client.Series(t.Context(), []string{`queue_depth`, `{instance="w2"}`}, at(0), at(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want(t, series, []model.LabelSet{{"__name__": "queue_depth", "instance": "w1"}, {"__name__": "queue_depth", "instance": "w2"}})
	if series, _, _, err = client.Series(t.Context(), []string{`queue_depth`}, at(time.Hour), at(2*time.Hour)); err != nil || len(series) > 0 {
		t.Errorf("series outside of the time asked for: %v, %v", series, err)
	}
}

// A client concludes from the version how queries are evaluated: it is the version of the engine that is linked.
func TestBuildinfo(t *testing.T) {
	t.Parallel()
	_, client := serveAPI(t, New(Options{}))
	info, err := client.Buildinfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	major, rest, _ := strings.Cut(info.Version, ".") // 3.16.0 is module version v0.316.0
	minor, patch, _ := strings.Cut(rest, ".")
	if line := "github.com/prometheus/prometheus v0." + major + minor + "." + patch + "\n"; !strings.Contains(string(mod), line) {
		t.Errorf("version %s is not that of go.mod", info.Version)
	}
}

func get(t *testing.T, method, address string, form url.Values) (int, string) {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if form != nil {
		address += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// The bytes are those that Prometheus 3.16 writes, up to the order of fields.
func TestJSONShape(t *testing.T) {
	t.Parallel()
	address, _ := serveAPI(t, recording(t))
	for _, c := range []struct {
		path string
		form url.Values
		code int
		want string
	}{
		{
			"/api/v1/query",
			url.Values{"query": {`queue_depth`}, "time": {"2026-03-01T10:03:00Z"}},
			200,
			`{"status":"success","data":{"resultType":"vector","result":[
				{"metric":{"__name__":"queue_depth","instance":"w1"},"value":[1772359380,"+Inf"]},
				{"metric":{"__name__":"queue_depth","instance":"w2"},"value":[1772359380,"40"]}]}}`,
		},
		{
			"/api/v1/query", url.Values{"query": {`queue_depth`}}, 200, // no time: that of the newest sample
			`{"status":"success","data":{"resultType":"vector","result":[
				{"metric":{"__name__":"queue_depth","instance":"w1"},"value":[1772359440,"NaN"]},
				{"metric":{"__name__":"queue_depth","instance":"w2"},"value":[1772359440,"50"]}]}}`,
		},
		{"/api/v1/query", url.Values{"query": {`nothing`}}, 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{"/api/v1/query", url.Values{"query": {`1.5`}, "time": {"1772359380.25"}}, 200, `{"status":"success","data":{"resultType":"scalar","result":[1772359380.25,"1.5"]}}`},
		{"/api/v1/query", url.Values{"query": {`"text"`}, "time": {"1"}}, 200, `{"status":"success","data":{"resultType":"string","result":[1,"text"]}}`},
		{
			"/api/v1/query",
			url.Values{"query": {`queue_depth{instance="w2"}[2m]`}, "time": {"1772359260"}},
			200,
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"queue_depth","instance":"w2"},"values":[[1772359200,"10"],[1772359260,"20"]]}]}}`,
		},
		{
			"/api/v1/query_range",
			url.Values{"query": {`sum(queue_depth)`}, "start": {"1772359200"}, "end": {"1772359260"}, "step": {"1m"}},
			200,
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1772359200,"11"],[1772359260,"22"]]}]}}`,
		},
		{"/api/v1/query_range", url.Values{"query": {`nothing`}, "start": {"0"}, "end": {"1"}, "step": {"1"}}, 200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`},
		{"/api/v1/labels", url.Values{"match[]": {`nothing`}}, 200, `{"status":"success","data":[]}`},
		{"/api/v1/query", url.Values{"query": {`sum(`}}, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"}`},
		{"/api/v1/query", nil, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": unknown position: parse error: no expression found in input"}`},
		{"/api/v1/query", url.Values{"query": {`1`}, "time": {"today"}}, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"time\": cannot parse \"today\" to a valid timestamp"}`},
		{"/api/v1/query", url.Values{"query": {`1`}, "timeout": {"0"}}, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"timeout\": timeout must be positive, got 0s"}`},
		{"/api/v1/query", url.Values{"query": {`queue_depth`}, "timeout": {"0.000000001"}}, 503, `{"status":"error","errorType":"timeout","error":"query timed out in query execution"}`},
		{"/api/v1/query", url.Values{"query": {`queue_depth * on(nosuch) queue_depth`}}, 422, `{"status":"error","errorType":"execution","error":"found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"queue_depth\", instance=\"w2\"}, {__name__=\"queue_depth\", instance=\"w1\"}];many-to-many matching not allowed: matching labels must be unique on one side"}`},
		{"/api/v1/query_range", url.Values{"query": {`1`}, "start": {"0"}, "end": {"100000"}, "step": {"1"}}, 400, `{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}`},
		{"/api/v1/query_range", url.Values{"query": {`1`}, "start": {"1"}, "end": {"0"}, "step": {"1"}}, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"end\": end timestamp must not be before start time"}`},
		{"/api/v1/query_range", url.Values{"query": {`1`}, "start": {"0"}, "end": {"1"}, "step": {"0"}}, 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"}`},
		{"/api/v1/series", nil, 400, `{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}`},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			code, body := get(t, method, address+c.path, c.form)
			if code != c.code {
				t.Errorf("%s %s %v: code %d, want %d", method, c.path, c.form, code, c.code)
			}
			var got, expected any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(c.want), &expected); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(expected, got); diff != "" && !strings.Contains(c.want, "many-to-many") {
				t.Errorf("%s %s %v (-want +got)\n%s", method, c.path, c.form, diff)
			} else if !strings.Contains(body, `"errorType":"execution"`) && strings.Contains(c.want, "many-to-many") {
				t.Errorf("%s %s %v: %s", method, c.path, c.form, body)
			}
		}
	}
	for path, code := range map[string]int{"/-/ready": 200, "/-/healthy": 200, "/api/v1/nosuch": 404, "/": 404} {
		if got, _ := get(t, http.MethodGet, address+path, nil); got != code {
			t.Errorf("%s: code %d, want %d", path, got, code)
		}
	}
	if code, _ := get(t, http.MethodDelete, address+"/api/v1/query", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: code %d", code)
	}
}

func TestAPINow(t *testing.T) {
	t.Parallel()
	db := New(Options{Now: func() time.Time { return at(time.Minute) }})
	fill(t, db, depth("w1"), 1, 2, 3)
	address, _ := serveAPI(t, db)
	_, body := get(t, http.MethodGet, address+"/api/v1/query", url.Values{"query": {`queue_depth`}})
	if !strings.Contains(body, `"2"`) {
		t.Error(body)
	}
}
