package testrun

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// Whatever is asked, in whatever order, over whatever windows, the answer is that of the database.
func TestMemoAnswersTheSame(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	db := recorded.New(recorded.Options{})
	for i := range 5 {
		for minute := range 220 {
			if r.IntN(10) == 0 {
				continue // a gap
			}
			labels := map[string]string{"__name__": "m", "i": fmt.Sprint(i), "even": fmt.Sprint(i%2 == 0)}
			if err := db.Append(labels, Beginning.Add(time.Duration(minute)*time.Minute+time.Duration(r.IntN(50))*time.Second), r.Float64()); err != nil {
				t.Fatal(err)
			}
		}
	}
	exprs := []string{"m", "sum by (even) (m)", "rate(m[7m])", "timestamp(m)", `m{i="3"} > 0.5`, "max_over_time(m[10m:1m])", "topk(2, m)", "m offset 3m", "absent(m{i=\"9\"})", "time()"}
	end := Beginning.Add(4 * time.Hour)
	m := newMemo(db, time.Minute, end)
	byLabels := cmpopts.SortSlices(func(a, b kit.Series) bool { return fmt.Sprint(a.Labels) < fmt.Sprint(b.Labels) })
	for at := Beginning; at.Before(end); at = at.Add(time.Duration(1+r.IntN(20)/19) * time.Minute) {
		m.tick()
		for range 3 {
			expr, then := exprs[r.IntN(len(exprs))], at
			if r.IntN(10) == 0 {
				then = at.Add(-time.Duration(r.IntN(20)) * time.Minute)
			}
			if r.IntN(10) == 0 {
				ask := question{expr, then.Add(-time.Duration(r.IntN(5)) * time.Minute), then.Add(time.Duration(r.IntN(40)) * time.Minute), time.Minute}
				if r.IntN(2) == 0 {
					m.prepare(t.Context(), ask, at)
				}
				m.ahead(t.Context(), ask)
			}
			got, err := m.instant(t.Context(), expr, then)
			if err != nil {
				t.Fatal(err)
			}
			want, err := instant(t.Context(), db, expr, then)
			if diff := cmp.Diff(want, got, byLabels, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Fatalf("%s at %s: %v\n%s", expr, then, err, diff)
			}
			step := []time.Duration{15 * time.Second, time.Minute, 2 * time.Minute, 90 * time.Second}[r.IntN(4)]
			start := then.Add(-time.Duration(r.IntN(30)) * time.Minute)
			got, err = m.over(t.Context(), expr, start, then, step)
			if err != nil {
				t.Fatal(err)
			}
			want, err = db.Range(t.Context(), expr, start, then, step)
			if diff := cmp.Diff(want, got, byLabels, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Fatalf("%s from %s to %s by %s: %v\n%s", expr, start, then, step, err, diff)
			}
		}
	}
}

// What one runbook does with its answer is not seen by the next that asks the same at the same tick.
func TestMemoAnswersEachByItself(t *testing.T) {
	t.Parallel()
	db := recorded.New(recorded.Options{})
	for i := range 3 {
		if err := db.Append(map[string]string{"__name__": "m", "i": fmt.Sprint(i)}, Beginning, float64(i)); err != nil {
			t.Fatal(err)
		}
	}
	m := newMemo(db, time.Minute, Beginning.Add(time.Hour))
	ask := func() []kit.Series {
		found, err := m.over(t.Context(), "m", Beginning, Beginning.Add(time.Minute), time.Minute)
		if err != nil || len(found) != 3 {
			t.Fatalf("%v, %v", found, err)
		}
		return found
	}
	first := ask()
	want := slices.Clone(first)
	for range 2 {
		slices.Reverse(first)
		first = ask()
		if diff := cmp.Diff(want, first); diff != "" {
			t.Errorf("in another order:\n%s", diff)
		}
		first[0] = kit.Series{}
	}
}

// A backtest of a month asks about many targets, and does not keep what it knows of all of them.
func TestMemoForgets(t *testing.T) {
	t.Parallel()
	db := recorded.New(recorded.Options{})
	if err := db.Append(map[string]string{"__name__": "m"}, Beginning, 1); err != nil {
		t.Fatal(err)
	}
	m := newMemo(db, time.Minute, Beginning.Add(24*time.Hour))
	for minute := range 1440 {
		expr, at := fmt.Sprintf("m > %d", minute), Beginning.Add(time.Duration(minute)*time.Minute)
		if _, err := m.instant(t.Context(), expr, at); err != nil {
			t.Fatal(err)
		}
		m.drop(at)
		m.prepare(t.Context(), question{expr, at, at.Add(time.Hour), time.Minute}, at)
	}
	if n := len(m.coming); n > manyTicks {
		t.Errorf("%d answers are kept that nobody wants", n)
	}
	m.end()
	if n := len(m.queries); n > manyTicks+1 {
		t.Errorf("%d queries are kept", n)
	}
}
