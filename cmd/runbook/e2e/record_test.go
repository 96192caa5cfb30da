//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// exporter is what Prometheus scrapes: four workers, of which the last goes and comes back, and whose counters begin anew then.
type exporter struct{ scrapes atomic.Int64 }

func (x *exporter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := x.scrapes.Add(1)
	for i := range int64(4) {
		jobs, depth := n*10*(i+1), 5.0
		if i == 3 {
			if n%9 >= 4 && n%9 < 7 {
				continue // gone: its series end at once, not after the lookback
			}
			jobs = n % 9
		}
		if i == 1 {
			depth = 700
		}
		fmt.Fprintf(w, "alive{instance=\"w%[1]d\"} 1\njobs_total{instance=\"w%[1]d\"} %[2]d\nqueue_depth{instance=\"w%[1]d\"} %[3]g\n", i+1, jobs, depth)
	}
}

const recordedRunbook = `runbook(
    owner = "team",
    trigger = every("1s"),
    severity = "warning",
    targets = fleet(all = "alive", by = "instance", held = "2s", sick = "queue_depth > 100"),
)

def run(ctx):
    if ctx.metrics.value("rate(jobs_total[4s])", where = {"instance": ctx.target.name}) > 1000:
        return nothing("it gets through its jobs")
    ctx.exec.run("restart", reason = "queue stuck", cooldown = "1h")
`

// What is recorded from a real Prometheus answers as that does, also where a series ended and came back; and the runbooks decide over it.
func TestE2ERecord(t *testing.T) {
	t.Parallel()
	l := &lab{t: t, dir: t.TempDir()}
	x := &exporter{}
	page := httptest.NewServer(x)
	defer page.Close()
	l.servePrometheus(fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs: [{job_name: worker, honor_labels: true, static_configs: [{targets: [%q]}]}]
`, strings.TrimPrefix(page.URL, "http://")))
	s := l.newSite(t, "", nil)
	write(t, filepath.Join(s.dir, "worker.star"), recordedRunbook)
	// The window begins long after the first scrape: versions of Prometheus differ in what they make of the beginning of a counter.
	l.wait("55 scrapes", func() (bool, string, error) { n := x.scrapes.Load(); return n >= 55, fmt.Sprint(n), nil })
	to := time.Now().UTC().Truncate(time.Second)
	from := to.Add(-25 * time.Second)

	file := filepath.Join(s.dir, "r.jsonl.gz")
	out := s.quick(problem.ExitOK, "record", "--from", from.Format(time.RFC3339), "--to", to.Format(time.RFC3339), "--step", "1s", "--out", file, "--selector", "queue_depth")
	if !strings.Contains(out, "samples of 12 series") {
		t.Errorf("it says %s", out)
	}

	db := recorded.New(recorded.Options{})
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := db.Load(f, recorded.Recording{Name: file}); err != nil {
		t.Fatal(err)
	}
	again := httptest.NewServer(db.Handler())
	defer again.Close()
	points := 0
	for _, q := range []string{"queue_depth", "count(alive)", "rate(jobs_total[4s])", "increase(jobs_total[10s])", "max_over_time(queue_depth[5s])", "queue_depth > 100 and on (instance) alive", "absent(alive{instance=\"w4\"})", "resets(jobs_total[20s])"} {
		path := fmt.Sprintf("/api/v1/query_range?step=1&start=%d%s&end=%d&query=%s", from.Unix(), l.between(to), to.Unix(), url.QueryEscape(q))
		want := l.matrix(path)
		got := (&lab{t: t, prometheus: again.URL}).matrix(path)
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("%s differs:\n%s", q, diff)
		}
		for _, values := range want {
			points += len(values)
		}
	}
	if points < 300 {
		t.Errorf("only %d points were compared", points)
	}

	out = s.quick(problem.ExitOK, "backtest", "--data", file, "--step", "1s")
	for _, want := range []string{"instance=w2  acted", "1 acted"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "instance=w1") || strings.Contains(out, "instance=w3") {
		t.Errorf("a healthy one was acted on:\n%s", out)
	}
}

// between is the part of a second at which nothing was scraped: full seconds, or half ones. A sample that is exactly as old as a range is long counts
// before version 3 of Prometheus, and since then not.
func (l *lab) between(at time.Time) string {
	l.t.Helper()
	var data struct{ Result []struct{ Values [][2]any } }
	if err := l.get(fmt.Sprintf("/api/v1/query?time=%d&query=%s", at.Unix(), url.QueryEscape("alive[20s]")), &data); err != nil || len(data.Result) == 0 {
		l.t.Fatalf("%v, %v", data, err)
	}
	for _, s := range data.Result {
		for _, v := range s.Values {
			sec, _ := v[0].(float64)
			if _, part := math.Modf(sec); part < 0.02 || part > 0.98 {
				return ".5"
			}
		}
	}
	return ".0"
}

// matrix is the answer of a range query: by series, the value at each second.
func (l *lab) matrix(path string) map[string]map[float64]string {
	l.t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if err := l.get(path, &data); err != nil {
		l.t.Fatal(err)
	}
	out := map[string]map[float64]string{}
	for _, s := range data.Result {
		var name []string
		for _, k := range slices.Sorted(maps.Keys(s.Metric)) {
			name = append(name, k+"="+s.Metric[k])
		}
		values := map[float64]string{}
		for _, v := range s.Values {
			at, _ := v[0].(float64)
			values[math.Floor(at)] = fmt.Sprint(v[1])
		}
		out[strings.Join(name, " ")] = values
	}
	return out
}
