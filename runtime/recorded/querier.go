package recorded

import (
	"context"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// index maps label name and value to the series that have it.
type index map[string]map[string]map[*series]struct{}

func (x index) add(s *series) {
	s.labels.Range(func(l labels.Label) {
		values := x[l.Name]
		if values == nil {
			values = map[string]map[*series]struct{}{}
			x[l.Name] = values
		}
		if values[l.Value] == nil {
			values[l.Value] = map[*series]struct{}{}
		}
		values[l.Value][s] = struct{}{}
	})
}

func (x index) remove(s *series) {
	s.labels.Range(func(l labels.Label) {
		delete(x[l.Name][l.Value], s)
		if len(x[l.Name][l.Value]) == 0 {
			delete(x[l.Name], l.Value)
		}
		if len(x[l.Name]) == 0 {
			delete(x, l.Name)
		}
	})
}

// match returns snapshots of the series that all matchers accept. It starts from the rarest label that a matcher asks for
// by value and lets the matchers judge those, since a matcher may also accept a label that is absent.
func (db *DB) match(matchers []*labels.Matcher) []series {
	db.mu.RLock()
	defer db.mu.RUnlock()
	var found []series
	take := func(s *series) {
		for _, m := range matchers {
			if !m.Matches(s.labels.Get(m.Name)) {
				return
			}
		}
		found = append(found, *s)
	}
	var rarest map[*series]struct{}
	narrowed := false
	for _, m := range matchers {
		if m.Type == labels.MatchEqual && m.Value != "" {
			if set := db.index[m.Name][m.Value]; !narrowed || len(set) < len(rarest) {
				rarest, narrowed = set, true
			}
		}
	}
	if narrowed {
		for s := range rarest {
			take(s)
		}
		return found
	}
	for _, s := range db.series {
		take(s)
	}
	return found
}

// between narrows a snapshot to samples in [mint, maxt].
func (s series) between(mint, maxt millis) series {
	lo := sort.Search(len(s.ts), func(i int) bool { return s.ts[i] >= mint })
	hi := sort.Search(len(s.ts), func(i int) bool { return s.ts[i] > maxt })
	hi = max(lo, hi)
	s.ts, s.vs = s.ts[lo:hi], s.vs[lo:hi]
	if s.hs != nil {
		s.hs = s.hs[lo:hi]
	}
	return s
}

// Querier implements storage.Queryable.
func (db *DB) Querier(mint, maxt millis) (storage.Querier, error) {
	return &querier{db, mint, maxt}, nil
}

type querier struct {
	db         *DB
	mint, maxt millis
}

// Select implements storage.Querier. The series are always sorted, wanted or not, so that the same question over the same
// samples has the same answer in the same order, and sums of floats add up in the same order.
func (q *querier) Select(_ context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = max(mint, hints.Start), min(maxt, hints.End)
	}
	set := &seriesSet{at: -1}
	for _, s := range q.db.match(matchers) {
		if s = s.between(mint, maxt); len(s.ts) > 0 {
			set.all = append(set.all, s)
		}
	}
	slices.SortFunc(set.all, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
	return set
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(_ context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	pick := func(l labels.Label) (string, bool) { return l.Value, l.Name == name }
	return q.distinct(hints, [][]*labels.Matcher{matchers}, pick), nil, nil
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(_ context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	pick := func(l labels.Label) (string, bool) { return l.Name, true }
	return q.distinct(hints, [][]*labels.Matcher{matchers}, pick), nil, nil
}

// distinct returns what pick takes from the labels of all series that one of the matcher sets accepts, sorted.
func (q *querier) distinct(hints *storage.LabelHints, sets [][]*labels.Matcher, pick func(labels.Label) (string, bool)) []string {
	seen := map[string]struct{}{}
	for _, matchers := range sets {
		for _, s := range q.db.match(matchers) {
			if s = s.between(q.mint, q.maxt); len(s.ts) == 0 {
				continue
			}
			s.labels.Range(func(l labels.Label) {
				if v, ok := pick(l); ok {
					seen[v] = struct{}{}
				}
			})
		}
	}
	all := make([]string, 0, len(seen))
	for v := range seen {
		all = append(all, v)
	}
	slices.Sort(all)
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all
}

// Close implements storage.Querier.
func (q *querier) Close() error { return nil }

// seriesSet walks over snapshots.
type seriesSet struct {
	all []series
	at  int
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool { s.at++; return s.at < len(s.all) }

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return &s.all[s.at] }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// Labels implements storage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *series) Iterator(old chunkenc.Iterator) chunkenc.Iterator {
	it, ok := old.(*iterator)
	if !ok {
		it = &iterator{}
	}
	*it = iterator{ts: s.ts, vs: s.vs, hs: s.hs, at: -1}
	return it
}

// iterator walks over the samples of one series.
type iterator struct {
	ts []millis
	vs []float64
	hs []*histogram.FloatHistogram
	at int
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	if it.at < len(it.ts) {
		it.at++
	}
	return it.kind()
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t millis) chunkenc.ValueType {
	from := max(it.at, 0)
	it.at = from + sort.Search(len(it.ts)-from, func(i int) bool { return it.ts[from+i] >= t })
	return it.kind()
}

func (it *iterator) kind() chunkenc.ValueType {
	switch {
	case it.at >= len(it.ts):
		return chunkenc.ValNone
	case it.hs != nil && it.hs[it.at] != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (millis, float64) { return it.ts[it.at], it.vs[it.at] }

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() millis { return it.ts[it.at] }

// AtST implements chunkenc.Iterator: start timestamps are not kept.
func (it *iterator) AtST() millis { return 0 }

// AtHistogram implements chunkenc.Iterator; it is never asked for, since histograms are kept as those of floats.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return it.ts[it.at], nil
}

// AtFloatHistogram implements chunkenc.Iterator. The engine changes what it is given.
func (it *iterator) AtFloatHistogram(into *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	h := it.hs[it.at]
	if into == nil {
		return it.ts[it.at], h.Copy()
	}
	h.CopyTo(into)
	return it.ts[it.at], into
}

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return nil }
