package recorded

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// MaxFile is how large a recording may be when it is unpacked; 0 in a Recording means this.
const MaxFile = 1 << 30

// Disorder says what becomes of a sample that is not newer than the one before it in its series.
type Disorder string

// The kinds of Disorder. The zero value is Refuse.
const (
	Refuse Disorder = "refuse" // an error with the line
	Drop   Disorder = "drop"   // it is left out, and a warning says how many were
)

// Recording is a file of samples and how it is to be read.
type Recording struct {
	// Name is the file's path, for messages; its ending says what it holds: .jsonl what runbook record writes, .om and .txt
	// OpenMetrics or Prometheus text with times, .json an answer of Prometheus' HTTP API, .csv a table. Each may end in .gz besides.
	Name string
	// CSV says what the columns of a table mean.
	CSV *CSV
	// Disorder is for samples that do not follow each other. One that repeats the last one is always ignored.
	Disorder Disorder
	// MaxBytes is how large the file may be when it is unpacked.
	MaxBytes int64
}

// Loaded says what a recording held.
type Loaded struct {
	Series   int
	Samples  int
	From, To time.Time // of the samples; zero if there are none
	// Begin and End are the window that it was recorded for, in which queries look back on samples before it; From and To if it does not say.
	Begin, End time.Time
	Warnings   []string
}

// loader appends to the series of one recording. Nothing is visible in the DB before all of it was read.
type loader struct {
	rec      Recording
	series   map[string]*series
	samples  int
	dropped  int
	from, to millis
	header   Header   // of a recording in Runbook's own format
	times    []millis // of the series that was settled last
}

// Load reads a whole recording. Its errors are of code recording, with the line. A recording that fails leaves nothing behind.
func (db *DB) Load(r io.Reader, rec Recording) (Loaded, error) {
	l := &loader{rec: rec, series: map[string]*series{}, from: math.MaxInt64, to: math.MinInt64}
	in, err := l.open(r)
	if err != nil {
		return Loaded{}, err
	}
	var warnings []string
	ext := path.Ext(strings.TrimSuffix(rec.Name, ".gz"))
	var text []byte
	if ext != ".jsonl" { // which is read line by line, because it may be a month of a fleet
		if text, err = l.read(in); err != nil {
			return Loaded{}, err
		}
	}
	switch ext {
	case ".om": // also without its end, which the parser then misses: the same text has other times in the other format
		err = l.exposition(text, openMetricsType)
	case ".txt", ".prom":
		kind := "text/plain"
		if bytes.HasSuffix(bytes.TrimSpace(text), []byte("# EOF")) {
			kind = openMetricsType
		}
		err = l.exposition(text, kind)
	case ".json":
		warnings, err = l.json(text)
	case ".jsonl":
		warnings, err = l.jsonl(in)
	case ".csv":
		err = l.csv(text)
	default:
		err = l.bad(0, "the name does not say what it holds: %q is not .jsonl, .om, .txt, .json or .csv", ext).
			WithHint("rename it; each may end in .gz besides. Series in the notation of Prometheus' unit tests are written with t.series")
	}
	if err != nil {
		return Loaded{}, err
	}
	if l.samples == 0 {
		return Loaded{}, l.bad(0, "it has no samples")
	}
	if l.dropped > 0 {
		warnings = append(warnings, fmt.Sprintf("%s: %d samples that were not newer than the one before them were left out", rec.Name, l.dropped))
	}
	if err := db.merge(l); err != nil {
		return Loaded{}, err
	}
	out := Loaded{
		Series: len(l.series), Samples: l.samples, Warnings: warnings,
		From: time.UnixMilli(l.from).UTC(), To: time.UnixMilli(l.to).UTC(),
	}
	if out.Begin, out.End = out.From, out.To; !l.header.From.IsZero() {
		out.Begin, out.End = l.header.From, l.header.To
	}
	return out, nil
}

// open unpacks the file, and begins with its text.
func (l *loader) open(r io.Reader) (*bufio.Reader, error) {
	if l.rec.MaxBytes == 0 {
		l.rec.MaxBytes = MaxFile
	}
	if strings.HasSuffix(l.rec.Name, ".gz") {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, l.bad(0, "unpack: %v", err)
		}
		r = z
	}
	in := bufio.NewReaderSize(&atMost{r, l.rec.MaxBytes}, 64<<10)
	switch start, err := in.Peek(3); {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, l.unread(err)
	case bytes.HasPrefix(start, []byte("\xff\xfe")) || bytes.HasPrefix(start, []byte("\xfe\xff")):
		return nil, l.bad(1, "it is written in UTF-16").WithHint("convert it: iconv -f UTF-16 -t UTF-8")
	case string(start) == "\xef\xbb\xbf":
		_, _ = in.Discard(len(start))
	}
	return in, nil
}

var errTooLarge = errors.New("too large")

// atMost fails as soon as there is more to read than it has left.
type atMost struct {
	r    io.Reader
	left int64
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// unread says why the file could not be read.
func (l *loader) unread(err error) *problem.Problem {
	if errors.Is(err, errTooLarge) {
		return l.bad(0, "it is larger than %d bytes", l.rec.MaxBytes).WithHint("record a shorter window or fewer series")
	}
	return l.bad(0, "read: %v", err)
}

// read is the whole text.
func (l *loader) read(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, l.unread(err)
	}
	if !utf8.Valid(text) {
		return nil, l.notText(lineOf(text, invalid(text)))
	}
	return text, nil
}

func (l *loader) notText(line int) *problem.Problem {
	return l.bad(line, "it is not valid UTF-8").WithHint("convert it: iconv -t UTF-8")
}

// invalid is the place of the first byte that is not UTF-8.
func invalid(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

func lineOf(text []byte, offset int) int { return 1 + bytes.Count(text[:offset], []byte{'\n'}) }

func (l *loader) bad(line int, format string, args ...any) *problem.Problem {
	return problem.New(problem.Recording, "recording %s: %s", path.Base(l.rec.Name), fmt.Sprintf(format, args...)).At(value.Pos{File: l.rec.Name, Line: line})
}

// of is the series with these labels.
func (l *loader) of(lset labels.Labels) (*series, error) {
	if err := check(lset); err != nil {
		return nil, err
	}
	key := string(lset.Bytes(nil))
	s := l.series[key]
	if s == nil {
		s = &series{labels: lset}
		l.series[key] = s
	}
	return s, nil
}

// add appends a sample that stands in a line of the file.
func (l *loader) add(s *series, x sample, line func() int) error {
	err := s.append(x)
	switch {
	case errors.Is(err, ErrOutOfOrder) && l.rec.Disorder == Drop:
		l.dropped++
		return nil
	case err != nil:
		return l.bad(line(), "%v: the one before it is of %s", err, time.UnixMilli(s.ts[len(s.ts)-1]).UTC().Format(time.RFC3339Nano)).
			WithHint(`sort the file by time, or leave such samples out with disorder = "drop"`)
	}
	l.samples++
	l.from, l.to = min(l.from, x.t), max(l.to, x.t)
	return nil
}

// settle is for a series that is complete, as far as is known: it gives up the room that it does not need, and shares its times with the one before it if they
// are the same, as they are for what was scraped together. Nobody changes them in place.
func (l *loader) settle(s *series) {
	if !slices.Equal(s.ts, l.times) {
		l.times = slices.Clip(slices.Clone(s.ts))
	}
	s.ts, s.vs = l.times, slices.Clip(slices.Clone(s.vs))
}

// merge makes what was read visible.
func (db *DB) merge(l *loader) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	for key, s := range l.series {
		if old := db.series[key]; old != nil && len(old.ts) > 0 && len(s.ts) > 0 && old.ts[len(old.ts)-1] >= s.ts[0] {
			return l.bad(0, "series %s has samples already, up to %s", s.labels, time.UnixMilli(old.ts[len(old.ts)-1]).UTC().Format(time.RFC3339)).
				WithHint("load what comes first before what comes later")
		}
	}
	for key, s := range l.series {
		old := db.series[key]
		if old == nil {
			db.series[key] = s
			db.index.add(s)
			continue
		}
		for i := range s.ts {
			x := sample{t: s.ts[i], v: s.vs[i]}
			if s.hs != nil {
				x.h = s.hs[i]
			}
			if err := old.append(x); err != nil {
				return l.bad(0, "%v", err) // cannot be: it was looked at above
			}
		}
	}
	db.newest = max(db.newest, l.to)
	db.sweep()
	return nil
}
