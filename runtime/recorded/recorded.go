// Package recorded keeps metric samples in memory and answers PromQL over them with Prometheus' own
// engine, so that a test, a demo or a backtest asks exactly the queries that production asks.
//
// It is the only package that imports the engine. Per series there are slices of times and values, and of native
// histograms if it has any, to which only the end is ever written. A query copies the slice headers of the
// series that it selects and then needs no lock. One selector sees a scraped page as a whole or not at all; two
// selectors of one query may see a page that arrived between them differently.
//
// Nothing here reads a clock: age is judged against the newest sample, and "now" is what Options.Now says.
package recorded

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// ErrOutOfOrder means that a sample is older than the newest one of its series, or has its time and another value.
var ErrOutOfOrder = errors.New("out of order sample")

// Options configure a DB. The zero Options keep everything and judge queries as a Prometheus with its defaults would.
type Options struct {
	// Retention drops samples that are older than the newest sample of the whole DB by more than this; 0 keeps all.
	Retention time.Duration
	// Lookback is how long a sample without successor stands for its series; 0 means 5m.
	Lookback time.Duration
	// Timeout ends a query; 0 means 2m.
	Timeout time.Duration
	// MaxSamples is how many samples one query may hold in memory; 0 means 50 million.
	MaxSamples int
	// SubqueryStep is the step of a subquery that names none; 0 means 1m.
	SubqueryStep time.Duration
	// Now is the time of an API query that names none; nil means the time of the newest sample.
	Now func() time.Time
}

// DB is a set of series. It is safe for concurrent use.
type DB struct {
	opts   Options
	engine *promql.Engine
	parser parser.Parser

	mu     sync.RWMutex
	series map[string]*series // by the bytes of the labels
	index  index
	newest millis // of all samples
	swept  millis // value of newest when series without samples were last removed
}

// millis is a time in milliseconds since 1970, as Prometheus keeps it.
type millis = int64

// series is one series. Elements of its slices are never changed once they are written, so that a copy of the
// headers is a snapshot; retention only moves the front.
type series struct {
	labels labels.Labels
	ts     []millis // rising
	vs     []float64
	hs     []*histogram.FloatHistogram // nil for a series of floats only; else as long as ts, with nil where vs counts
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

// New makes an empty DB.
func New(o Options) *DB {
	if o.Lookback == 0 {
		o.Lookback = 5 * time.Minute
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 50_000_000
	}
	if o.SubqueryStep == 0 {
		o.SubqueryStep = time.Minute
	}
	p := newParser()
	return &DB{
		opts:   o,
		parser: p,
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples:               o.MaxSamples,
			Timeout:                  o.Timeout,
			LookbackDelta:            o.Lookback,
			NoStepSubqueryIntervalFn: func(int64) int64 { return o.SubqueryStep.Milliseconds() },
			EnableAtModifier:         true,
			EnableNegativeOffset:     true,
			Parser:                   p,
		}),
		series: map[string]*series{},
		index:  index{},
		newest: math.MinInt64,
		swept:  math.MinInt64,
	}
}

// Append adds a sample. The labels hold the metric's name as "__name__". Times are kept in milliseconds, as Prometheus
// does. A repeated sample is ignored; ErrOutOfOrder is returned for any other that is not newer than the last one.
func (db *DB) Append(lset map[string]string, t time.Time, v float64) error {
	l := labels.FromMap(lset)
	if err := check(l); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	err := db.append(sample{labels: l, t: t.UnixMilli(), v: v})
	db.sweep()
	return err
}

// Stale says that a series ended at t: from then on queries do not see it, instead of for the lookback to come.
// A series that does not exist or has ended already is left alone.
func (db *DB) Stale(lset map[string]string, t time.Time) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.stale(labels.FromMap(lset), t.UnixMilli())
}

// Newest is the time of the newest sample; false if there is none.
func (db *DB) Newest() (time.Time, bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return time.UnixMilli(db.newest).UTC(), len(db.series) > 0
}

// sample is one sample on its way in.
type sample struct {
	labels labels.Labels
	t      millis
	v      float64
	h      *histogram.FloatHistogram // instead of v
}

// check refuses labels that Prometheus would refuse.
func check(l labels.Labels) error {
	if l.Get(model.MetricNameLabel) == "" {
		return fmt.Errorf("series %s has no metric name (__name__)", l)
	}
	if !l.IsValid(model.UTF8Validation) {
		return fmt.Errorf("series %s has an invalid metric or label name", l)
	}
	return nil
}

// append adds a sample; the caller holds the lock.
func (db *DB) append(s sample) error {
	if s.t < db.cutoff() {
		return nil
	}
	return db.appendTo(db.of(s.labels), s)
}

// appendTo adds a sample to its series; the caller holds the lock.
func (db *DB) appendTo(ser *series, s sample) error {
	if err := ser.append(s); err != nil {
		return err
	}
	db.newest = max(db.newest, s.t)
	ser.trim(db.cutoff())
	return nil
}

// of is the series with these labels, which are kept; the caller holds the lock.
func (db *DB) of(l labels.Labels) *series {
	key := string(l.Bytes(nil))
	ser := db.series[key]
	if ser == nil {
		ser = &series{labels: l}
		db.series[key] = ser
		db.index.add(ser)
	}
	return ser
}

// append adds a sample to its series. A repeated one is ignored.
func (s *series) append(x sample) error {
	if n := len(s.ts); n > 0 && x.t <= s.ts[n-1] {
		if x.t == s.ts[n-1] && s.is(n-1, x) {
			return nil
		}
		return fmt.Errorf("%w: %s at %s", ErrOutOfOrder, s.labels, time.UnixMilli(x.t).UTC().Format(time.RFC3339Nano))
	}
	if x.h != nil {
		if s.hs == nil {
			s.hs = make([]*histogram.FloatHistogram, len(s.ts))
		}
		x.h = s.hinted(x.h)
	}
	s.ts = append(s.ts, x.t)
	s.vs = append(s.vs, x.v)
	if s.hs != nil {
		s.hs = append(s.hs, x.h)
	}
	return nil
}

// hinted is a copy of a histogram that says whether its counters were reset, as Prometheus' storage notes it.
func (s *series) hinted(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	h = h.Copy()
	if h.CounterResetHint == histogram.GaugeType {
		return h
	}
	h.CounterResetHint = histogram.UnknownCounterReset
	if n := len(s.hs); n > 0 && s.hs[n-1] != nil && s.hs[n-1].CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.NotCounterReset
		if h.DetectReset(s.hs[n-1]) {
			h.CounterResetHint = histogram.CounterReset
		}
	}
	return h
}

// is says whether the i-th sample has the value of x.
func (s *series) is(i int, x sample) bool {
	if s.hs != nil && s.hs[i] != nil || x.h != nil {
		return s.hs != nil && s.hs[i] != nil && s.hs[i].Equals(x.h)
	}
	return math.Float64bits(x.v) == math.Float64bits(s.vs[i])
}

// stale ends a series; the caller holds the lock.
func (db *DB) stale(l labels.Labels, t millis) error {
	ser := db.series[string(l.Bytes(nil))]
	if ser == nil || len(ser.vs) == 0 || value.IsStaleNaN(ser.vs[len(ser.vs)-1]) {
		return nil
	}
	return db.append(sample{labels: ser.labels, t: t, v: staleNaN()})
}

func staleNaN() float64 { return math.Float64frombits(value.StaleNaN) }

// cutoff is the oldest time that is kept.
func (db *DB) cutoff() millis {
	if db.opts.Retention == 0 || db.newest == math.MinInt64 {
		return math.MinInt64
	}
	return db.newest - db.opts.Retention.Milliseconds()
}

// trim forgets what is older than cutoff. The front moves; the memory goes with the next growth of the slice.
func (s *series) trim(cutoff millis) {
	if len(s.ts) == 0 || s.ts[0] >= cutoff {
		return
	}
	i := sort.Search(len(s.ts), func(i int) bool { return s.ts[i] >= cutoff })
	s.ts, s.vs = s.ts[i:], s.vs[i:]
	if s.hs != nil {
		s.hs = s.hs[i:]
	}
}

// sweep removes series that retention has emptied, a few times per retention; the caller holds the lock.
func (db *DB) sweep() {
	if db.opts.Retention == 0 || db.newest == math.MinInt64 {
		return
	}
	if db.swept == math.MinInt64 {
		db.swept = db.newest
	}
	if db.newest-db.swept < db.opts.Retention.Milliseconds()/4 {
		return
	}
	db.swept = db.newest
	for key, ser := range db.series {
		if ser.trim(db.cutoff()); len(ser.ts) == 0 {
			delete(db.series, key)
			db.index.remove(ser)
		}
	}
}
