package capture_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/recorded/capture"
)

// server is a Prometheus: the engine of one behind its HTTP API, over samples that were scraped.
type server struct {
	*recorded.DB
	api     promv1.API
	largest int // points of one answer
	asked   int
	failAt  int // the question that is not answered any more, 0 for none
}

var errGone = errors.New("the server is gone")

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{DB: recorded.New(recorded.Options{})}
	at := httptest.NewServer(s.Handler())
	tb.Cleanup(at.Close)
	client, err := api.NewClient(api.Config{Address: at.URL})
	if err != nil {
		tb.Fatal(err)
	}
	s.api = promv1.NewAPI(client)
	return s
}

func (s *server) Instant(ctx context.Context, expr string, at time.Time) ([]kit.Series, error) {
	v, _, _, err := s.api.Query(ctx, expr, at)
	return s.answer(v, err)
}

func (s *server) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error) {
	v, _, _, err := s.api.QueryRange(ctx, expr, promv1.Range{Start: start, End: end, Step: step})
	return s.answer(v, err)
}

func (s *server) answer(v model.Value, err error) ([]kit.Series, error) {
	if s.asked++; s.asked == s.failAt {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	if vector, ok := v.(model.Vector); ok {
		m := model.Matrix{}
		for _, x := range vector {
			m = append(m, &model.SampleStream{Metric: x.Metric, Values: []model.SamplePair{{Timestamp: x.Timestamp, Value: x.Value}}})
		}
		v = m
	}
	all, ok := v.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("answered with %s", v.Type())
	}
	n := 0
	out := make([]kit.Series, 0, len(all))
	for _, x := range all {
		n += len(x.Values)
		one := kit.Series{Labels: map[string]string{}}
		for name, text := range x.Metric {
			one.Labels[string(name)] = string(text)
		}
		for _, p := range x.Values {
			one.Points = append(one.Points, kit.Point{At: p.Timestamp.Time(), Value: float64(p.Value)})
		}
		out = append(out, one)
	}
	s.largest = max(s.largest, n)
	return out, nil
}

// scraped are hours of samples of several targets that come and go, are scraped late or not at all, restart, and end with or without a word.
func scraped(tb testing.TB, seed uint64, begin time.Time, length time.Duration) *server {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	db := newServer(tb)
	for i := range 8 {
		jobs := 0.0
		gone := false
		labels := func(name string) map[string]string {
			return map[string]string{"__name__": name, "instance": fmt.Sprintf("w%d", i), "job": "worker"}
		}
		interval := []time.Duration{15 * time.Second, 30 * time.Second, time.Minute}[i%3]
		for at := time.Duration(0); at < length; at += interval {
			t := begin.Add(at).Add(time.Duration(r.IntN(900)) * time.Millisecond)
			if r.IntN(200) == 0 { // it goes, or comes back
				if gone = !gone; gone && i != 7 { // w7 goes without a word, as after a crash of the server
					for _, name := range []string{"jobs_total", "queue_depth", "up"} {
						if err := db.Stale(labels(name), t); err != nil {
							tb.Fatal(err)
						}
					}
				}
				jobs = 0
			}
			if gone || r.IntN(50) == 0 {
				continue
			}
			jobs += float64(r.IntN(100))
			for name, v := range map[string]float64{"jobs_total": jobs, "queue_depth": float64(r.IntN(2000)), "up": float64(min(1, r.IntN(20)))} {
				if err := db.Append(labels(name), t, v); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	if err := db.Append(map[string]string{"__name__": "odd", "kind": "nan"}, begin.Add(length/2), math.NaN()); err != nil {
		tb.Fatal(err)
	}
	if err := db.Append(map[string]string{"__name__": "odd", "kind": "inf"}, begin.Add(length/2), math.Inf(-1)); err != nil {
		tb.Fatal(err)
	}
	return db
}

var begin = time.Date(2026, 3, 1, 0, 0, 3, 0, time.UTC)

// queries are of every kind: over what is there now, over ranges, over what was there, joined and counted.
var queries = []string{
	`queue_depth{job="worker"}`, `rate(jobs_total[5m])`, `rate(jobs_total[1m])`, `increase(jobs_total[1h])`, `count by (job) (up)`, `quantile_over_time(0.9, queue_depth[10m])`,
	`absent(up{instance="w3"})`, `queue_depth > 1000 and on (instance) up == 1`, `max_over_time(rate(jobs_total[2m])[30m:1m])`, `queue_depth offset 20m`, `count_over_time(up[7m])`,
	`changes(up[30m])`, `timestamp(up)`, `odd`, `{job="worker", instance=~"w[12]"}`,
}

func reads(tb testing.TB) []promexpr.Read {
	tb.Helper()
	var out []promexpr.Read
	for _, text := range queries {
		e, err := promexpr.Parse(text, nil)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, e.Reads()...)
	}
	return out
}

// load reads a recording into a database.
func load(tb testing.TB, file string) *recorded.DB {
	tb.Helper()
	f, err := os.Open(file)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	db := recorded.New(recorded.Options{})
	loaded, err := db.Load(f, recorded.Recording{Name: file})
	if err != nil {
		tb.Fatal(err)
	}
	if len(loaded.Warnings) > 0 {
		tb.Errorf("warnings: %v", loaded.Warnings)
	}
	return db
}

func quiet(int64, int64) {}

// same compares the answers of a server and of a recording at every step of the window, and says how many points were compared.
func same(tb testing.TB, live, again *recorded.DB, from, to time.Time, step time.Duration) int {
	tb.Helper()
	points := 0
	for _, q := range queries {
		want, err := live.Range(tb.Context(), q, from, to, step)
		if err != nil {
			tb.Fatal(err)
		}
		got, err := again.Range(tb.Context(), q, from, to, step)
		if err != nil {
			tb.Fatal(err)
		}
		for _, s := range want {
			points += len(s.Points)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
			tb.Errorf("%s differs:\n%.3000s", q, diff)
		}
	}
	return points
}

// Every query has the answers over the recording that it has over what was scraped, at every step of the window.
func TestSameAnswers(t *testing.T) {
	t.Parallel()
	from, to := begin.Add(2*time.Hour).Truncate(time.Minute), begin.Add(8*time.Hour).Truncate(time.Minute)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			live := scraped(t, seed, begin, 9*time.Hour)
			plan, err := capture.Make(t.Context(), live, capture.Options{Reads: reads(t), From: from, To: to, Step: time.Minute, Server: "here", Version: "3.1.0"})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "r.jsonl.gz")
			got, err := plan.Run(t.Context(), live, file, quiet)
			if err != nil {
				t.Fatal(err)
			}
			points := same(t, live.DB, load(t, file), from, to, time.Minute)
			t.Logf("%d chunks, %+v, %d points are the same", len(plan.Chunks), got, points)
			if points < 10_000 || got.Ends == 0 {
				t.Errorf("only %d points were compared, with %d ends of series", points, got.Ends)
			}
		})
	}
}

// What is too much for one answer is asked for in pieces.
func TestPieces(t *testing.T) {
	t.Parallel()
	live := scraped(t, 1, begin, 9*time.Hour)
	for i := range 150_000 { // within three minutes
		err := live.Append(map[string]string{"__name__": "queue_depth", "instance": fmt.Sprint("x", i%5000)}, begin.Add(4*time.Hour+time.Duration(i/5000)*5*time.Second), float64(i))
		if err != nil {
			t.Fatal(err)
		}
	}
	plan, err := capture.Make(t.Context(), live, capture.Options{Reads: reads(t), From: begin.Add(2 * time.Hour), To: begin.Add(8 * time.Hour), Step: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = plan.Run(t.Context(), live, filepath.Join(t.TempDir(), "r.jsonl"), quiet); err != nil {
		t.Fatal(err)
	}
	if live.largest > 100_000 {
		t.Errorf("an answer had %d points", live.largest)
	}
	if n := len(plan.Chunks); n < 8 || n > 100 {
		t.Errorf("%d chunks", n)
	}
}

// A recording that ends at any question goes on from there, and is byte for byte the one that was not interrupted. A line that was written in part is
// fetched again.
func TestInterruptedCapture(t *testing.T) {
	t.Parallel()
	live := scraped(t, 2, begin, 9*time.Hour)
	o := capture.Options{Reads: reads(t), From: begin.Add(2 * time.Hour), To: begin.Add(8 * time.Hour), Step: time.Minute}
	plan, err := capture.Make(t.Context(), live, o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.jsonl")
	before := live.asked
	if _, err := plan.Run(t.Context(), live, whole, quiet); err != nil {
		t.Fatal(err)
	}
	questions := live.asked - before
	want, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for fail := 1; fail <= questions; fail++ {
		file := filepath.Join(dir, fmt.Sprint(fail, ".jsonl"))
		live.asked, live.failAt = 0, fail
		if _, err := plan.Run(t.Context(), live, file, quiet); !errors.Is(err, errGone) {
			t.Fatalf("question %d: %v", fail, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("question %d: there is a file", fail)
		}
		live.failAt = 0
		partial, err := os.ReadFile(capture.Partial(file))
		if err != nil {
			t.Fatal(err)
		}
		if cut := len(partial) - fail%7; fail > 2 && fail%3 == 0 { // the disk was full, or the power went
			if err := os.WriteFile(capture.Partial(file), partial[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		old, err := capture.Unfinished(file)
		if err != nil || old == nil {
			t.Fatalf("question %d: no plan: %v", fail, err)
		}
		before := live.asked
		if _, err := old.Run(t.Context(), live, file, quiet); err != nil {
			t.Fatalf("question %d: go on: %v", fail, err)
		}
		if again := live.asked - before; fail > 4 && again > questions-fail+4 {
			t.Errorf("question %d: %d of %d were asked again", fail, again, questions)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("question %d: the recording differs", fail)
		}
		if _, err := os.Stat(capture.Partial(file)); err == nil {
			t.Errorf("question %d: %s is still there", fail, capture.Partial(file))
		}
	}
}

// What is left behind by something else is not taken for a recording.
func TestBrokenPartial(t *testing.T) {
	t.Parallel()
	live := scraped(t, 3, begin, 4*time.Hour)
	plan, err := capture.Make(t.Context(), live, capture.Options{Reads: reads(t), From: begin.Add(2 * time.Hour), To: begin.Add(3 * time.Hour), Step: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "r.jsonl")
	for text, want := range map[string]string{
		"hello\n":                     "is not what a recording left behind",
		`{"header":{}}` + "\nhello\n": "is broken in line 2",
		`{"header":{}}` + "\n" + `{}` + "\n" + `{}` + "\n": "is broken in line 3",
	} {
		if err := os.WriteFile(capture.Partial(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := capture.Unfinished(file)
		if err == nil {
			_, err = plan.Run(t.Context(), live, file, quiet)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
