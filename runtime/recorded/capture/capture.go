// Package capture records a window from a live Prometheus, so that queries over the recording have the answers that they had there.
//
// Promise: the recording holds the samples that were scraped, not the answers of a range query, which lie on a grid and make rate()
// wrong at every point. It knows where series ended, although the server does not say: beside the samples it is asked which series a
// query sees at each step, and where one is not seen although its last sample is young, its end is written between. What was fetched
// is kept when the recording is interrupted, and not fetched again.
//
//	Make      asks how many samples there are, and cuts the window into pieces that a server and a plugin can answer
//	Run       fetches piece by piece into FILE.partial
//	assemble  puts the pieces together, and the ends of series between them
package capture

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// Source is a Prometheus. The times of an Instant answer of a range selector are those of its samples.
type Source interface {
	Instant(ctx context.Context, expr string, at time.Time) ([]kit.Series, error)
	Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]kit.Series, error)
}

// Options say what is recorded.
type Options struct {
	Reads    []promexpr.Read
	From, To time.Time
	// Step is the time between two looks at which series are there: that between two runs.
	Step    time.Duration
	Server  string // without credentials
	Version string // of the server, "" if it does not say
}

const (
	// lookback is how long a sample without successor stands for its series, unless a server is told otherwise.
	lookback = 5 * time.Minute
	// margin is recorded before what a query reads: the lookback, and an hour in which a run looks for when a series was last there.
	margin = time.Hour + lookback

	maxSamples = 40_000 // of one answer; a plugin answers with up to 100,000
	maxSteps   = 10_000 // of one answer; a server answers with up to 11,000
	maxChunk   = 6 * time.Hour
	maxBuckets = 1000
)

// Plan is what is to be fetched.
type Plan struct {
	Header recorded.Header `json:"header"`
	Asked  []string        `json:"asked"` // the selectors of the chunks: those of the header, each for one metric
	Chunks []Chunk         `json:"chunks"`
	// Series and Samples are as many as the server counted; a series that two selectors choose counts twice.
	Series  int64 `json:"series"`
	Samples int64 `json:"samples"`
	// Empty are selectors that chose nothing.
	Empty []string `json:"empty,omitempty"`
}

// Chunk is the time (From, To], in milliseconds since 1970, of one selector.
type Chunk struct {
	Selector int   `json:"selector"` // of those that are asked
	From     int64 `json:"from"`
	To       int64 `json:"to"`
	Samples  int64 `json:"samples"`
}

// span is the time that is read of a selector.
type span struct {
	selector string
	named    bool
	from, to time.Time
}

// Make asks how much there is and plans how to fetch it.
func Make(ctx context.Context, src Source, o Options) (*Plan, error) {
	if !o.From.Before(o.To) {
		return nil, problem.New(problem.Usage, "the window from %s to %s is empty", o.From.UTC().Format(time.RFC3339), o.To.UTC().Format(time.RFC3339))
	}
	if o.Step < time.Second {
		return nil, problem.New(problem.Usage, "--step must be at least 1s, got %s", value.FormatDuration(o.Step))
	}
	p := &Plan{Header: recorded.Header{Server: o.Server, Version: o.Version, From: o.From.UTC(), To: o.To.UTC(), Step: value.FormatDuration(o.Step)}}
	for _, s := range spans(o) {
		p.Header.Selectors = append(p.Header.Selectors, s.selector)
		each, err := byName(ctx, src, s)
		if err != nil {
			return nil, err
		}
		before := p.Samples
		for _, one := range each {
			p.Asked = append(p.Asked, one.selector)
			if err := p.plan(ctx, src, len(p.Asked)-1, one, o.Step); err != nil {
				return nil, err
			}
		}
		if p.Samples == before {
			p.Empty = append(p.Empty, s.selector)
		}
	}
	return p, nil
}

// byName makes a selector for each metric of one that chooses several: they cannot be counted together, since a count has no name and two of one
// instance would be the same series.
func byName(ctx context.Context, src Source, s span) ([]span, error) {
	if s.named {
		return []span{s}, nil
	}
	found, err := src.Instant(ctx, fmt.Sprintf("count by (__name__) (last_over_time(%s[%dms]))", s.selector, s.to.Sub(s.from).Milliseconds()), s.to)
	if err != nil {
		return nil, err
	}
	e, err := promexpr.Parse(s.selector, nil)
	if err != nil {
		return nil, err
	}
	var out []span
	for _, x := range found {
		one, err := e.WithMatchers(map[string]string{"__name__": x.Labels["__name__"]})
		if err != nil {
			return nil, err
		}
		out = append(out, span{selector: one.String(), named: true, from: s.from, to: s.to})
	}
	slices.SortFunc(out, func(a, b span) int { return strings.Compare(a.selector, b.selector) })
	return out, nil
}

// spans are the selectors, each once, with all that is read of it.
func spans(o Options) []span {
	var out []span
	for _, r := range o.Reads {
		s := span{selector: r.Selector, named: r.Named, from: o.From.Add(-r.Back - margin), to: o.To}
		if !r.At.IsZero() {
			if from := r.At.Add(-r.Back - margin); from.Before(s.from) {
				s.from = from
			}
			if r.At.After(s.to) {
				s.to = r.At
			}
		}
		i := slices.IndexFunc(out, func(x span) bool { return x.selector == s.selector })
		if i < 0 {
			out = append(out, s)
			continue
		}
		if s.from.Before(out[i].from) {
			out[i].from = s.from
		}
		if s.to.After(out[i].to) {
			out[i].to = s.to
		}
	}
	slices.SortFunc(out, func(a, b span) int { return strings.Compare(a.selector, b.selector) })
	return out
}

// plan cuts the time of one selector: the server counts the samples and the series of short buckets. One that is too much for an answer is cut, and
// others are put together as long as they are not.
func (p *Plan) plan(ctx context.Context, src Source, selector int, s span, step time.Duration) error {
	buckets, err := count(ctx, src, s)
	if err != nil {
		return err
	}
	var cells []cell
	most := int64(0)
	for _, b := range buckets {
		most = max(most, b.series)
		p.Samples += b.samples
		cells = append(cells, b.cut(step)...)
	}
	if most == 0 {
		return nil
	}
	p.Series += most
	open := cells[0]
	put := func() {
		p.Chunks = append(p.Chunks, Chunk{Selector: selector, From: open.from, To: open.to, Samples: open.samples})
	}
	for _, c := range cells[1:] {
		both := cell{from: open.from, to: c.to, samples: open.samples + c.samples, series: max(open.series, c.series)}
		if both.load(step) > maxSamples || both.steps(step) > maxSteps || both.to-both.from > maxChunk.Milliseconds() {
			put()
			both = c
		}
		open = both
	}
	put()
	return nil
}

// cell is a time with as many samples, of as many series.
type cell struct{ from, to, samples, series int64 }

func (c cell) steps(step time.Duration) int64 { return (c.to-c.from)/step.Milliseconds() + 1 }

// load is how many points the larger of the two answers about it has: the samples, or which series are there at each step.
func (c cell) load(step time.Duration) int64 { return max(c.samples, c.series*c.steps(step)) }

// cut makes as many cells as answers are needed.
func (c cell) cut(step time.Duration) []cell {
	n := min((c.load(step)+maxSamples-1)/maxSamples, c.to-c.from)
	if n <= 1 {
		return []cell{c}
	}
	var out []cell
	for i := range n {
		out = append(out, cell{from: c.from + (c.to-c.from)*i/n, to: c.from + (c.to-c.from)*(i+1)/n, samples: c.samples / n, series: c.series})
	}
	return out
}

// count asks how many samples and series there are in each bucket of a time.
func count(ctx context.Context, src Source, s span) ([]cell, error) {
	bucket := max((s.to.Sub(s.from)/maxBuckets).Truncate(time.Second)+time.Second, time.Minute)
	n := int(math.Ceil(float64(s.to.Sub(s.from)) / float64(bucket)))
	out := make([]cell, n)
	for i := range out {
		from := s.from.Add(time.Duration(i) * bucket)
		out[i].from, out[i].to = from.UnixMilli(), min(from.Add(bucket).UnixMilli(), s.to.UnixMilli())
	}
	start, end := s.from.Add(bucket), s.from.Add(time.Duration(n)*bucket)
	for what, set := range map[string]func(c *cell, n int64){
		"sum": func(c *cell, n int64) { c.samples = n }, "count": func(c *cell, n int64) { c.series = n },
	} {
		answer, err := src.Range(ctx, fmt.Sprintf("%s(count_over_time(%s[%dms]))", what, s.selector, bucket.Milliseconds()), start, end, bucket)
		if err != nil {
			return nil, err
		}
		for _, a := range answer {
			for _, pt := range a.Points {
				if i := int(pt.At.Sub(start) / bucket); i >= 0 && i < n {
					set(&out[i], int64(pt.Value))
				}
			}
		}
	}
	return out, nil
}
