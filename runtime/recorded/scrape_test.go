package recorded

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// page serves whatever text was set last; "" is an error of the server.
type page struct {
	text        atomic.Value
	contentType atomic.Value
}

func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	text, _ := p.text.Load().(string)
	if text == "" {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	if ct, _ := p.contentType.Load().(string); ct != "" {
		w.Header().Set("Content-Type", ct)
	}
	_, _ = fmt.Fprint(w, text)
}

func newPage(t *testing.T) (*page, *Target) {
	t.Helper()
	p := &page{}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return p, &Target{URL: srv.URL, Labels: map[string]string{"job": "worker", "instance": "w1"}}
}

func values(t *testing.T, db *DB, when time.Time) map[string]float64 {
	t.Helper()
	samples, err := db.Instant(t.Context(), `{__name__=~".+"}`, when)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range samples {
		if s.Labels["job"] != "worker" || s.Labels["instance"] != "w1" {
			t.Errorf("labels %v", s.Labels)
		}
		got[s.Labels["__name__"]+s.Labels["queue"]] = s.Value
	}
	return got
}

func TestScrape(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	p, target := newPage(t)
	steps := []struct {
		text  string
		fails string
		want  map[string]float64
	}{
		{
			"# HELP queue_depth jobs waiting\n# TYPE queue_depth gauge\nqueue_depth{queue=\"a\"} 3\nqueue_depth{queue=\"b\"} 4\n# TYPE jobs_total counter\njobs_total 7\n", "",
			map[string]float64{"up": 1, "queue_deptha": 3, "queue_depthb": 4, "jobs_total": 7},
		},
		{"queue_depth{queue=\"a\"} 5\njobs_total 8\n", "", map[string]float64{"up": 1, "queue_deptha": 5, "jobs_total": 8}}, // b has vanished
		{"", "HTTP status 503", map[string]float64{"up": 0}},
		{"queue_depth{queue=\"a\"} 6\n", "", map[string]float64{"up": 1, "queue_deptha": 6}},
		{"queue_depth{queue=\"a\"} 7\nthis is {no page\n", "invalid syntax", map[string]float64{"up": 0}}, // half a page is no page
		{"# nothing\n", "", map[string]float64{"up": 1}},
		{"queue_depth{queue=\"a\"} 8\nqueue_depth{queue=\"a\"} 9\n", "out of order", map[string]float64{"up": 1, "queue_deptha": 8}}, // twice on a page
	}
	for i, s := range steps {
		p.text.Store(s.text)
		when := at(time.Duration(i) * time.Second)
		err := db.Scrape(t.Context(), target, when)
		if (err == nil) != (s.fails == "") || err != nil && !strings.Contains(err.Error(), s.fails) {
			t.Fatalf("step %d: error %v, want %q", i, err, s.fails)
		}
		want(t, values(t, db, when), s.want)
	}
	if err := db.Forget(target, at(time.Minute)); err != nil {
		t.Fatal(err)
	}
	want(t, values(t, db, at(time.Minute)), map[string]float64{})
}

func TestScrapeUnreachable(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	block := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(block) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	target := &Target{URL: srv.URL, Labels: map[string]string{"job": "worker", "instance": "w1"}}
	if err := db.Scrape(ctx, target, at(0)); err == nil {
		t.Error("a page that does not come was scraped")
	}
	want(t, values(t, db, at(0)), map[string]float64{"up": 0})
}

func TestScrapeTimes(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	p, target := newPage(t)
	p.text.Store(fmt.Sprintf("old 1 %d\n", at(-time.Minute).UnixMilli()))
	if err := db.Scrape(t.Context(), target, at(0)); err != nil {
		t.Fatal(err)
	}
	want(t, instant(t, db, `timestamp(old)`, at(0)), map[string]float64{"w1": float64(at(-time.Minute).Unix())})
	p.text.Store("new 1\n") // a series with times of its own is not ended when it vanishes
	if err := db.Scrape(t.Context(), target, at(time.Second)); err != nil {
		t.Fatal(err)
	}
	want(t, values(t, db, at(time.Second)), map[string]float64{"up": 1, "old": 1, "new": 1})
}

func TestScrapeOpenMetrics(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	p, target := newPage(t)
	p.contentType.Store("application/openmetrics-text; version=1.0.0; charset=utf-8")
	p.text.Store("# TYPE jobs counter\njobs_total 7\n# EOF\n")
	if err := db.Scrape(t.Context(), target, at(0)); err != nil {
		t.Fatal(err)
	}
	want(t, values(t, db, at(0)), map[string]float64{"up": 1, "jobs_total": 7})
	p.text.Store("# TYPE jobs counter\njobs_total 8\n") // cut off before its end
	if err := db.Scrape(t.Context(), target, at(time.Second)); err == nil {
		t.Error("a page without its end was accepted")
	}
}

func TestScrapeLabels(t *testing.T) {
	t.Parallel()
	for honor, expected := range map[bool]map[string]string{
		false: {"__name__": "x", "job": "worker", "instance": "w1", "exported_instance": "own", "exported_job": "a", "exported_exported_job": "b"},
		true:  {"__name__": "x", "job": "b", "instance": "own", "exported_job": "a"},
	} {
		db := New(Options{})
		p, target := newPage(t)
		target.HonorLabels = honor
		p.text.Store("x{instance=\"own\",job=\"b\",exported_job=\"a\"} 1\n")
		if err := db.Scrape(t.Context(), target, at(0)); err != nil {
			t.Fatal(err)
		}
		got, err := db.Instant(t.Context(), `x`, at(0))
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		want(t, got[0].Labels, expected)
		if up := instant(t, db, `up{instance="w1",job="worker"}`, at(0)); up["w1"] != 1 {
			t.Errorf("up: %v", up)
		}
	}
}
