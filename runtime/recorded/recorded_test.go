package recorded

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

// fill appends one value a minute from t0 on.
func fill(t *testing.T, db *DB, lset map[string]string, values ...float64) {
	t.Helper()
	for i, v := range values {
		if err := db.Append(lset, at(time.Duration(i)*time.Minute), v); err != nil {
			t.Fatal(err)
		}
	}
}

func depth(instance string) map[string]string {
	return map[string]string{"__name__": "queue_depth", "instance": instance}
}

func instant(t *testing.T, db *DB, expr string, when time.Time) map[string]float64 {
	t.Helper()
	samples, err := db.Instant(t.Context(), expr, when)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range samples {
		got[s.Labels["instance"]] = s.Value
	}
	return got
}

func want(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestInstant(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	fill(t, db, depth("w1"), 1, 2, 3, 4, 5)
	fill(t, db, depth("w2"), 10, 20, 30, 40, 50)
	fill(t, db, map[string]string{"__name__": "up", "instance": "w1"}, 1, 1, 1, 1, 1)

	for _, c := range []struct {
		expr string
		when time.Duration
		want map[string]float64
	}{
		{`queue_depth`, 2 * time.Minute, map[string]float64{"w1": 3, "w2": 30}},
		{`queue_depth`, 2*time.Minute + 59*time.Second, map[string]float64{"w1": 3, "w2": 30}},
		{`queue_depth > 25`, 2 * time.Minute, map[string]float64{"w2": 30}},
		{`queue_depth{instance=~"w[13]"}`, 4 * time.Minute, map[string]float64{"w1": 5}},
		{`queue_depth{instance!="w1"}`, 4 * time.Minute, map[string]float64{"w2": 50}},
		{`queue_depth{nosuch=""}`, 0, map[string]float64{"w1": 1, "w2": 10}},
		{`sum(queue_depth)`, time.Minute, map[string]float64{"": 22}},
		{`max_over_time(queue_depth[2m])`, 4 * time.Minute, map[string]float64{"w1": 5, "w2": 50}},
		{`count_over_time(queue_depth[2m])`, 4 * time.Minute, map[string]float64{"w1": 2, "w2": 2}},
		{`increase(queue_depth{instance="w1"}[4m])`, 4 * time.Minute, map[string]float64{"w1": 4}},
		{`queue_depth offset 3m`, 4 * time.Minute, map[string]float64{"w1": 2, "w2": 20}},
		{`queue_depth and on(instance) up == 1`, time.Minute, map[string]float64{"w1": 2}},
		{`timestamp(queue_depth{instance="w1"})`, 2*time.Minute + 10*time.Second, map[string]float64{"w1": float64(at(2 * time.Minute).Unix())}},
		{`queue_depth`, 4*time.Minute + 5*time.Minute - time.Millisecond, map[string]float64{"w1": 5, "w2": 50}},
		{`queue_depth`, 4*time.Minute + 5*time.Minute, map[string]float64{}}, // the lookback is left-open
		{`queue_depth`, -time.Second, map[string]float64{}},
		{`40 + 2`, 0, map[string]float64{"": 42}},
		{`absent(nothing)`, 0, map[string]float64{"": 1}},
	} {
		t.Run(c.expr, func(t *testing.T) {
			t.Parallel()
			want(t, instant(t, db, c.expr, at(c.when)), c.want)
		})
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	fill(t, db, depth("w2"), 10, 20, 30)
	fill(t, db, depth("w1"), 1, 2, 3)
	got, err := db.Range(t.Context(), `queue_depth * 2`, at(time.Minute), at(2*time.Minute), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	points := func(values ...float64) (out []kit.Point) {
		for i, v := range values {
			out = append(out, kit.Point{At: at(time.Minute + time.Duration(i)*30*time.Second), Value: v})
		}
		return out
	}
	want(t, got, []kit.Series{
		{Labels: map[string]string{"instance": "w1"}, Points: points(4, 4, 6)},
		{Labels: map[string]string{"instance": "w2"}, Points: points(40, 40, 60)},
	})
}

func TestQueryProblems(t *testing.T) {
	t.Parallel()
	db := New(Options{MaxSamples: 10})
	fill(t, db, depth("w1"), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	fill(t, db, map[string]string{"__name__": "queue_depth", "instance": "w1", "copy": "yes"}, 1)
	for expr, code := range map[string]problem.Code{
		`queue_depth{`:                                   problem.Query,
		`nosuch(queue_depth)`:                            problem.Query,
		`queue_depth[5m]`:                                problem.Query,
		`"text"`:                                         problem.Query,
		`queue_depth * on(instance) queue_depth`:         problem.MetricsSource, // many to many
		`sum_over_time(queue_depth{copy=""}[15m])`:       problem.MetricsSource, // more than 10 samples
		`label_replace(queue_depth, "copy", "", "", "")`: problem.MetricsSource, // two series become one
	} {
		when := at(0)
		if expr == `sum_over_time(queue_depth{copy=""}[15m])` {
			when = at(12 * time.Minute)
		}
		_, err := db.Instant(t.Context(), expr, when)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Code != code {
			t.Errorf("%s: got %v, want a problem %s", expr, err, code)
		}
	}
	if _, err := db.Range(t.Context(), `queue_depth`, at(time.Minute), at(0), time.Second); err == nil {
		t.Error("a range that ends before it starts was accepted")
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	fill(t, db, depth("w1"), 1, 2, 3)
	if err := db.Append(depth("w1"), at(2*time.Minute), 3); err != nil {
		t.Errorf("a repeated sample: %v", err)
	}
	for _, c := range []struct {
		when time.Duration
		v    float64
	}{{2 * time.Minute, 4}, {time.Minute, 2}} {
		if err := db.Append(depth("w1"), at(c.when), c.v); !errors.Is(err, ErrOutOfOrder) {
			t.Errorf("%v at %v: got %v, want ErrOutOfOrder", c.v, c.when, err)
		}
	}
	for _, bad := range []map[string]string{{}, {"instance": "w1"}, {"__name__": ""}, {"__name__": "x", "a\xff": "y"}, {"__name__": "x\xff"}} {
		if err := db.Append(bad, at(0), 1); err == nil {
			t.Errorf("labels %q were accepted", bad)
		}
	}
	want(t, instant(t, db, `queue_depth`, at(2*time.Minute)), map[string]float64{"w1": 3})
}

func TestStale(t *testing.T) {
	t.Parallel()
	db := New(Options{})
	fill(t, db, depth("w1"), 1, 2)
	fill(t, db, depth("w2"), 1, 2)
	end := at(90 * time.Second)
	for range 2 { // the second is left alone
		if err := db.Stale(depth("w1"), end); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Stale(depth("nosuch"), end); err != nil {
		t.Fatal(err)
	}
	want(t, instant(t, db, `queue_depth`, at(89*time.Second)), map[string]float64{"w1": 2, "w2": 2})
	want(t, instant(t, db, `queue_depth`, end), map[string]float64{"w2": 2})
	want(t, instant(t, db, `count_over_time(queue_depth[10m])`, at(2*time.Minute)), map[string]float64{"w1": 2, "w2": 2})
	if err := db.Append(depth("w1"), at(2*time.Minute), 7); err != nil {
		t.Fatal(err)
	}
	want(t, instant(t, db, `queue_depth`, at(2*time.Minute)), map[string]float64{"w1": 7, "w2": 2})
}

func TestRetention(t *testing.T) {
	t.Parallel()
	db := New(Options{Retention: 10 * time.Minute})
	fill(t, db, depth("gone"), 1, 2)
	for i := range 1000 {
		if err := db.Append(depth("w1"), at(time.Duration(i)*time.Minute), float64(i)); err != nil {
			t.Fatal(err)
		}
	}
	now := at(999 * time.Minute)
	want(t, instant(t, db, `count_over_time(queue_depth[1000m])`, now), map[string]float64{"w1": 11})
	if n := len(db.series); n != 1 {
		t.Errorf("%d series are kept, want 1", n)
	}
	if n := len(db.index["instance"]); n != 1 {
		t.Errorf("%d instances are indexed, want 1", n)
	}
	if err := db.Append(depth("late"), at(0), 1); err != nil {
		t.Fatal(err)
	}
	want(t, instant(t, db, `queue_depth`, now), map[string]float64{"w1": 999})
}

// Queries run beside writers and retention: what one selector sees of a series is whole. Values here are their times.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	db := New(Options{Retention: time.Second})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 5000 {
				when := at(time.Duration(i) * time.Millisecond)
				if err := db.Append(depth(fmt.Sprint(w)), when, float64(when.UnixMilli())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 200 {
				now, ok := db.Newest()
				if !ok {
					continue
				}
				for _, s := range db.match(nil) {
					for i := range s.ts {
						if float64(s.ts[i]) != s.vs[i] {
							t.Errorf("%s: %v at %d", s.labels, s.vs[i], s.ts[i])
						}
					}
				}
				for instance, n := range instant(t, db, `count_over_time(queue_depth[1s])`, now) {
					if n > 1000 {
						t.Errorf("instance %s: %v samples in a second", instance, n)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestIterator(t *testing.T) {
	t.Parallel()
	s := series{ts: []int64{10, 20, 30}, vs: []float64{1, math.NaN(), 3}}
	it := s.Iterator(nil)
	for _, c := range []struct {
		seek int64 // -1: Next
		want int64 // -1: exhausted
	}{{-1, 10}, {5, 10}, {10, 10}, {11, 20}, {15, 20}, {-1, 30}, {30, 30}, {31, -1}, {-1, -1}, {0, -1}} {
		var kind chunkenc.ValueType
		if c.seek < 0 {
			kind = it.Next()
		} else {
			kind = it.Seek(c.seek)
		}
		if c.want < 0 {
			if kind != chunkenc.ValNone {
				t.Fatalf("%+v: not exhausted", c)
			}
			continue
		}
		if kind != chunkenc.ValFloat || it.AtT() != c.want {
			t.Fatalf("%+v: got %v at %d", c, kind, it.AtT())
		}
	}
	if it = s.Iterator(it); it.Seek(25) != chunkenc.ValFloat || it.AtT() != 30 {
		t.Error("a reused iterator does not start again")
	}
	for _, c := range []struct{ lo, hi, n int64 }{{0, 100, 3}, {10, 30, 3}, {11, 29, 1}, {21, 29, 0}, {31, 40, 0}, {0, 9, 0}, {30, 10, 0}} {
		if n := len(s.between(c.lo, c.hi).ts); int64(n) != c.n {
			t.Errorf("between(%d, %d): %d samples, want %d", c.lo, c.hi, n, c.n)
		}
	}
}
