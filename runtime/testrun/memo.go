package testrun

import (
	"context"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// memo answers the queries of a backtest, which asks the same ones at every tick: one that was asked at the tick before is evaluated once for the ticks to come,
// for more of them the longer it goes on. A range query has at each of its steps what an instant query has at that time, so the answers are the same, and
// whoever asks for the same steps of an expression, over whatever window, gets them from one evaluation. What is asked more than once at one tick, as
// runbooks of one fleet do, is answered once.
type memo struct {
	db   *recorded.DB
	step time.Duration // between two ticks
	to   time.Time     // the last tick

	mu      sync.Mutex
	queries map[times]*ahead
	said    map[question][]kit.Series // at this tick
	coming  map[question]*answer      // of which it is known that they will be asked
}

// answer is one that is on its way until done is closed.
type answer struct {
	from   time.Time // the tick for which it was asked
	done   chan struct{}
	series []kit.Series
	err    error
}

func newMemo(db *recorded.DB, step time.Duration, to time.Time) *memo {
	return &memo{db: db, step: step, to: to, queries: map[times]*ahead{}, said: map[question][]kit.Series{}, coming: map[question]*answer{}}
}

// question is an expression and when it is asked for; step is 0 for what it has at one time.
type question struct {
	expr       string
	start, end time.Time
	step       time.Duration
}

// tick begins the next one.
func (m *memo) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.said)
}

// once answers what was answered at this tick, and asks for the rest. Whoever asks may put the series in another order, and changes nothing of their points.
func (m *memo) once(q question, ask func() ([]kit.Series, error)) ([]kit.Series, error) {
	m.mu.Lock()
	found, ok := m.said[q]
	m.mu.Unlock()
	if ok {
		return slices.Clone(found), nil
	}
	found, err := ask()
	if err != nil {
		return nil, err // whoever asks next learns the same
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said[q] = slices.Clone(found)
	return found, nil
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
	return m.once(question{expr: expr, start: at, end: at}, func() ([]kit.Series, error) {
		if found, ok := m.answer(ctx, expr, at, at, m.step); ok {
			return found, nil
		}
		return instant(ctx, m.db, expr, at)
	})
}

// over is what an expression has at the steps of [start, end].
func (m *memo) over(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error) {
	return m.once(question{expr, start, end, step}, func() ([]kit.Series, error) {
		if found, ok := m.answer(ctx, expr, start, end, step); ok {
			return found, nil
		}
		return m.db.Range(ctx, expr, start, end, step)
	})
}

// ahead is what an expression has at the steps that are asked for, and maybe before and after; what is asked for in it later is cut out of that. It is false if
// that is not what the expression has when it is asked at each step by itself, and for what cannot be asked at all.
func (m *memo) ahead(ctx context.Context, ask question) ([]kit.Series, bool) {
	if unsteady().MatchString(ask.expr) {
		return nil, false
	}
	q := m.query(ask.expr, ask.start, ask.step, ask.start)
	q.mu.Lock()
	defer q.mu.Unlock()
	if ask.start.Before(q.from) || ask.end.After(q.until) {
		a := m.prepare(ctx, ask, ask.start)
		if <-a.done; a.err != nil {
			return nil, false // whoever asks now learns what is wrong
		}
		q.set(a.series, ask.start, ask.end)
	}
	q.asked = ask.end
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.coming, ask)
	return q.series, true
}

// prepare asks what will be asked at a tick, beside everything else.
func (m *memo) prepare(ctx context.Context, ask question, at time.Time) *answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.coming[ask]
	if a == nil {
		a = &answer{from: at, done: make(chan struct{})}
		m.coming[ask] = a
		go func() {
			defer close(a.done)
			a.series, a.err = m.db.Range(ctx, ask.expr, ask.start, ask.end, ask.step)
		}()
	}
	return a
}

// drop lets go of what was prepared for a tick long before this one and that nobody has asked for: the runbook was not due.
func (m *memo) drop(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ask, a := range m.coming {
		if now.Sub(a.from) >= manyTicks*m.step {
			<-a.done
			delete(m.coming, ask)
		}
	}
}

// end waits for what is still on its way.
func (m *memo) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.coming {
		<-a.done
	}
}

// query is what is known of an expression at the steps from start on.
func (m *memo) query(expr string, start time.Time, step time.Duration, now time.Time) *ahead {
	key := times{expr, step, time.Duration(start.UnixNano()) % step}
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queries[key]
	if q == nil {
		m.forget(now)
		q = &ahead{ticks: fewTicks}
		m.queries[key] = q
	}
	return q
}

func (q *ahead) set(found []kit.Series, from, until time.Time) {
	q.series, q.at, q.from, q.until = found, make([]int, len(found)), from, until
}

// answer cuts what is asked out of what is known, and makes more known if it is asked again. It is false for what has to be asked by itself.
func (m *memo) answer(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, bool) {
	longer, shorter := max(m.step, step), min(m.step, step)
	if unsteady().MatchString(expr) || longer%shorter != 0 {
		return nil, false // the steps of one tick are not those of the next
	}
	q := m.query(expr, start, step, end)
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
		q.set(found, from, until)
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
