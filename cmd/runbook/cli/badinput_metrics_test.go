package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// says answers as some server does that is not well, or no Prometheus.
func says(status int, kind, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

// What the metrics source does wrong is never evidence of a problem: nothing is done, and the error says which server said what.
func TestBadMetrics(t *testing.T) {
	t.Parallel()
	const js = "application/json"
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   said
	}{
		"slow": {func(http.ResponseWriter) { time.Sleep(2 * time.Second) }, //nolint:forbidigo // this is what is tested
			said{1, problem.MetricsSource, "", "no answer within 1s", "timeout"}},
		"401":  {says(401, "text/plain", "go away"), said{1, problem.MetricsSource, "", "(401)", "bearer_token"}},
		"403":  {says(403, "text/plain", "go away"), said{1, problem.MetricsSource, "", "(403)", "right to query"}},
		"422":  {says(422, js, `{"status":"error","errorType":"execution","error":"found duplicate series"}`), said{2, problem.Query, "", "found duplicate series", ""}},
		"503":  {says(503, js, `{"status":"error","errorType":"unavailable","error":"not ready"}`), said{1, problem.MetricsSource, "", "not ready", ""}},
		"HTML": {says(200, "text/html", "<html>please log in</html>"), said{1, problem.MetricsSource, "", "please log in", "/api/v1/query?query=1"}},
		"half": {says(200, js, `{"status":"success","da`), said{1, problem.MetricsSource, "", "", ""}},
		"partial": {
			says(200, js, `{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store-7 is down"]}`),
			said{1, problem.MetricsSource, "", "partial: store-7 is down", ""},
		},
		"text": {says(200, js, `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`), said{1, problem.MetricsSource, "", "not a Prometheus answer", ""}},
		"broken off": {func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, said{1, problem.MetricsSource, "", "broke", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.metrics = strings.Replace(s.metrics, "5s", "1s", 1)
			s.project(t)
			s.runbook(t, "bad", `ctx.exec.run("mark", reason = "queue stuck")`)
			s.whenAsked("bad_depth", c.answer)
			want := c.want
			want.pos = "project.star:2:"
			if want.code == problem.Query {
				want.pos = "bad.star:1:"
			}
			s.runs(t, want)

			// The same in the middle of an evaluation.
			s = newSite(t)
			s.metrics = strings.Replace(s.metrics, "5s", "1s", 1)
			s.project(t)
			s.runbook(t, "bad", "x = ctx.metrics.value(\"special\")\nctx.exec.run(\"mark\", reason = \"queue stuck\")")
			s.whenAsked("special", c.answer)
			want.pos = "bad.star:4:"
			s.runs(t, want)
		})
	}
}

// A value that is no measurement never reaches a comparison.
func TestNoMeasurement(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query string
		want  said
	}{
		"NaN":          {"sum(up) * 0 / 0", said{1, problem.NoData, "bad.star:4:", "NaN, which is not a measurement", "default ="}},
		"infinity":     {"sum(up) / 0", said{1, problem.NoData, "bad.star:4:", "Inf, which is not a measurement", "default ="}},
		"empty vector": {"no_such_metric", said{1, problem.NoData, "bad.star:4:", `"no_such_metric" has no data`, "default ="}},
		"stale":        {"old_news", said{1, problem.NoData, "bad.star:4:", "older than 3m", "max_age"}},
		"several":      {"up", said{2, problem.Query, "bad.star:4:", "10 values, not one", "where ="}},
		"no PromQL":    {"up{", said{2, problem.Query, "bad.star:4:", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.runbook(t, "bad", fmt.Sprintf("if ctx.metrics.value(%q) > 0:\n    ctx.exec.run(\"mark\", reason = \"queue stuck\")", c.query))
			s.runs(t, c.want)
		})
	}
}

// A symptom that is not a measurement makes its targets unknown, never sick. A runbook that sees nothing of any target says so: silence must not look
// like health.
func TestUnknownTargets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sick, why string }{
		"NaN":          {"bad_depth * 0 / 0 > 1", "the value is NaN"},
		"empty vector": {"no_such_metric > 1", "no data for no_such_metric"},
		"stale":        {"old_depth > 1", "stale: measured "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write(t, "bad.star", declaration("bad", strings.Replace(badFleet, "bad_depth > 1000", c.sick, 1))+
				"\ndef run(ctx):\n    ctx.exec.run(\"mark\", reason = \"queue stuck\")\n")
			r := s.do(t, "run", "--json")
			if r.exit != 1 || s.marked(t, "w5") {
				t.Fatalf("exit %d: %s", r.exit, r.err)
			}
			bad := r.doc.Runbooks[1]
			if p := bad.Problem; p == nil || p.Code != problem.NoData || !strings.Contains(p.Message, "nothing is known of any target") ||
				!strings.Contains(p.Message, c.why) || p.Pos.File != "bad.star" || p.Hint == "" {
				t.Errorf("problem %+v", p)
			}
			for _, target := range bad.Targets {
				if target.Condition != trace.Unknown || !strings.Contains(target.Why, c.why) {
					t.Errorf("%s is %s: %s", target.Key, target.Condition, target.Why)
				}
			}
			s.otherwiseWell(t, r.doc)
		})
	}
}

// A fleet without members is most often a label that is written wrongly.
func TestEmptyFleet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write(t, "bad.star", declaration("bad", strings.Replace(badFleet, `job="worker"`, `job="wroker"`, 1))+"\ndef run(ctx):\n    pass\n")
	r := s.do(t, "run", "--json")
	p := r.doc.Runbooks[1].Problem
	if r.exit != 1 || p == nil || p.Code != problem.NoData || !strings.Contains(p.Message, `there are no targets: up{job="wroker"} has no data`) {
		t.Errorf("exit %d, %+v:\n%s", r.exit, p, r.err)
	}
	s.otherwiseWell(t, r.doc)
}

// With the whole source down every runbook says so, its people are told once, and what was done is not forgotten.
func TestPrometheusIsDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.prom.Close()
	r := s.do(t, "run", "--json")
	if r.exit != 1 || len(r.doc.Runbooks) != 2 || s.marked(t, "w9") {
		t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	for _, rb := range r.doc.Runbooks {
		said{1, problem.MetricsSource, "project.star:2:", "connection refused", "check that the server runs"}.check(t, rb.Problem)
	}
	if n := strings.Count(r.err, "runbook: source:"); n != 1 {
		t.Errorf("people were told %d times: %s", n, r.err)
	}
	if r := s.do(t, "runs"); r.exit != 0 || strings.Count(r.out, "connection refused") < 1 {
		t.Errorf("runs: %s%s", r.out, r.err)
	}
}
