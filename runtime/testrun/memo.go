package testrun

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/samples"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// memo answers the queries of a backtest, which asks the same ones at every tick: one that was asked at the tick before is evaluated once for the ticks to come,
// for more of them the longer it goes on. A range query has at each of its steps what an instant query has at that time, so the answers are the same.
type memo struct {
	db   *recorded.DB
	step time.Duration // between two ticks
	to   time.Time     // the last tick

	mu      sync.Mutex
	queries map[string]*ahead
}

// ahead is one query, as far as it was evaluated.
type ahead struct {
	mu     sync.Mutex
	asked  time.Time // for when it was asked last
	ticks  int       // to evaluate next time
	until  time.Time // the last time for which there is an answer
	series []samples.Series
}

const (
	fewTicks  = 4
	manyTicks = 512
)

// unsteady are queries whose answer at a time depends on the window in which it is asked, or whose order counts.
var unsteady = regexp.MustCompile(`\b(start|end)\s*\(|\b(sort|sort_desc|sort_by_label|sort_by_label_desc|topk|bottomk|limitk|limit_ratio)\b`)

// instant is what an expression has at a time.
func (m *memo) instant(ctx context.Context, expr string, at time.Time) ([]samples.Series, error) {
	return m.answer(ctx, "instant "+expr, expr, at, at, m.step, func() ([]samples.Series, error) { return instant(ctx, m.db, expr, at) })
}

// over is what an expression has at the steps of [start, end].
func (m *memo) over(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]samples.Series, error) {
	direct := func() ([]samples.Series, error) { return over(ctx, m.db, expr, start, end, step) }
	if m.step%step != 0 || end.Sub(start)%step != 0 {
		return direct() // the steps of one tick are not those of the next
	}
	return m.answer(ctx, fmt.Sprintf("over %s %s %s", end.Sub(start), step, expr), expr, start, end, step, direct)
}

// answer cuts what is asked out of what is known, and makes more known if it is asked again.
func (m *memo) answer(ctx context.Context, key, expr string, start, end time.Time, step time.Duration, direct func() ([]samples.Series, error)) ([]samples.Series, error) {
	if unsteady.MatchString(expr) {
		return direct()
	}
	m.mu.Lock()
	q := m.queries[key]
	if q == nil {
		q = &ahead{ticks: fewTicks}
		m.queries[key] = q
	}
	m.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	again := end.Sub(q.asked) == m.step
	q.asked = end
	switch {
	case !again && end.After(q.until):
		q.ticks, q.until = fewTicks, time.Time{}
		return direct()
	case end.After(q.until):
		until := end.Add(time.Duration(q.ticks) * m.step)
		if until.After(m.to) {
			until = end.Add(m.to.Sub(end) / m.step * m.step)
		}
		found, err := over(ctx, m.db, expr, start, until, step)
		if err != nil {
			return direct() // which says what is wrong now
		}
		q.series, q.until, q.ticks = found, until, min(2*q.ticks, manyTicks)
	}
	return cut(q.series, start.UnixMilli(), end.UnixMilli()), nil
}

// cut is the part of series from a time to another; those without a sample there are left out.
func cut(series []samples.Series, from, to int64) []samples.Series {
	var out []samples.Series
	for _, s := range series {
		i := sort.Search(len(s.Points), func(i int) bool { return s.Points[i].Milli >= from })
		j := i + sort.Search(len(s.Points)-i, func(j int) bool { return s.Points[i+j].Milli > to })
		if i < j {
			out = append(out, samples.Series{Labels: s.Labels, Points: s.Points[i:j]})
		}
	}
	return out
}

// instant asks the database.
func instant(ctx context.Context, db *recorded.DB, expr string, at time.Time) ([]samples.Series, error) {
	found, err := db.Instant(ctx, expr, at)
	if err != nil {
		return nil, err
	}
	out := make([]samples.Series, len(found))
	for i, s := range found {
		out[i] = samples.Series{Labels: s.Labels, Points: []samples.Point{{Milli: s.At.UnixMilli(), Value: s.Value}}}
	}
	return out, nil
}

func over(ctx context.Context, db *recorded.DB, expr string, start, end time.Time, step time.Duration) ([]samples.Series, error) {
	found, err := db.Range(ctx, expr, start, end, step)
	if err != nil {
		return nil, err
	}
	out := make([]samples.Series, len(found))
	for i, s := range found {
		out[i] = samples.Series{Labels: s.Labels, Points: make([]samples.Point, len(s.Points))}
		for j, p := range s.Points {
			out[i].Points[j] = samples.Point{Milli: p.At.UnixMilli(), Value: p.Value}
		}
	}
	return out, nil
}
