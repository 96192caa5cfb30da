package testrun

import (
	"context"
	"regexp"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// memo answers the queries of a backtest, which asks the same ones at every tick: one that was asked at the tick before is evaluated once for the ticks to come,
// for more of them the longer it goes on. A range query has at each of its steps what an instant query has at that time, so the answers are the same, and
// whoever asks for the same steps of an expression, over whatever window, gets them from one evaluation.
type memo struct {
	db   *recorded.DB
	step time.Duration // between two ticks
	to   time.Time     // the last tick

	mu      sync.Mutex
	queries map[times]*ahead
}

// times are those at which an expression is asked: all that are phase after a multiple of step.
type times struct {
	expr        string
	step, phase time.Duration
}

// ahead is one expression, as far as it was evaluated.
type ahead struct {
	mu     sync.Mutex
	asked  time.Time     // for when it was asked last
	back   time.Duration // how long before that the answers began, at most
	ticks  int           // to evaluate next time
	from   time.Time     // the first time for which there is an answer
	until  time.Time     // the last one
	series []kit.Series
	at     []int // where the last part began, in each
}

const (
	fewTicks  = 4
	manyTicks = 256
)

// unsteady are queries whose answer at a time depends on the window in which it is asked, or whose order counts.
var unsteady = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(start|end)\s*\(|\b(sort|sort_desc|sort_by_label|sort_by_label_desc|topk|bottomk|limitk|limit_ratio)\b`)
})

// instant is what an expression has at a time.
func (m *memo) instant(ctx context.Context, expr string, at time.Time) ([]kit.Series, error) {
	if found, ok := m.answer(ctx, expr, at, at, m.step); ok {
		return found, nil
	}
	return instant(ctx, m.db, expr, at)
}

// over is what an expression has at the steps of [start, end].
func (m *memo) over(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error) {
	if found, ok := m.answer(ctx, expr, start, end, step); ok {
		return found, nil
	}
	return m.db.Range(ctx, expr, start, end, step)
}

// answer cuts what is asked out of what is known, and makes more known if it is asked again. It is false for what has to be asked by itself.
func (m *memo) answer(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, bool) {
	longer, shorter := max(m.step, step), min(m.step, step)
	if unsteady().MatchString(expr) || longer%shorter != 0 {
		return nil, false // the steps of one tick are not those of the next
	}
	key := times{expr, step, time.Duration(start.UnixNano()) % step}
	m.mu.Lock()
	q := m.queries[key]
	if q == nil {
		m.forget(end)
		q = &ahead{ticks: fewTicks}
		m.queries[key] = q
	}
	m.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	again := end.Sub(q.asked) <= longer
	q.asked, q.back = end, max(q.back, end.Sub(start))
	if !again && end.After(q.until) {
		q.ticks, q.back, q.until = fewTicks, 0, time.Time{}
		return nil, false
	}
	if end.After(q.until) || start.Before(q.from) {
		until := q.until
		if end.After(until) {
			until, q.ticks = end.Add(time.Duration(q.ticks)*longer), min(2*q.ticks, manyTicks)
		}
		if until.After(m.to) {
			until = end.Add(m.to.Sub(end) / longer * longer)
		}
		// What looks back further each time, as long as something has not settled, is not to be evaluated anew each time.
		from := start.Add(-(q.back + end.Sub(start)) / step * step)
		found, err := m.db.Range(ctx, expr, from, until, step)
		if err != nil {
			return nil, false // whoever asks now learns what is wrong
		}
		q.series, q.at, q.from, q.until = found, make([]int, len(found)), from, until
	}
	return q.cut(start, end), true
}

// forget lets go of what nobody has asked for in a long time; mu is held.
func (m *memo) forget(now time.Time) {
	for key, q := range m.queries {
		if !q.mu.TryLock() {
			continue // it is being asked for
		}
		if now.Sub(q.asked) > manyTicks*m.step {
			delete(m.queries, key)
		}
		q.mu.Unlock()
	}
}

// cut is the part of the series from a time to another; those without a sample there are left out. The points are those of the series itself. Ticks follow
// each other, so that a part begins near where the last one did.
func (q *ahead) cut(from, to time.Time) []kit.Series {
	out := make([]kit.Series, 0, len(q.series))
	for n, s := range q.series {
		i := q.at[n]
		for i > 0 && !s.Points[i-1].At.Before(from) {
			i--
		}
		for i < len(s.Points) && s.Points[i].At.Before(from) {
			i++
		}
		q.at[n] = i
		j := i
		for j < len(s.Points) && !s.Points[j].At.After(to) {
			j++
		}
		if i < j {
			out = append(out, kit.Series{Labels: s.Labels, Points: s.Points[i:j:j]})
		}
	}
	return out
}

// instant asks the database.
func instant(ctx context.Context, db *recorded.DB, expr string, at time.Time) ([]kit.Series, error) {
	found, err := db.Instant(ctx, expr, at)
	if err != nil {
		return nil, err
	}
	out := make([]kit.Series, len(found))
	points := make([]kit.Point, len(found))
	for i, s := range found {
		points[i] = kit.Point{At: s.At, Value: s.Value}
		out[i] = kit.Series{Labels: s.Labels, Points: points[i : i+1 : i+1]}
	}
	return out, nil
}
