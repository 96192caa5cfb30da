package capture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// Partial is where the pieces are kept until the recording is whole.
func Partial(file string) string { return file + ".partial" }

// Unfinished is the plan of a recording that was interrupted, nil if there is none.
func Unfinished(file string) (*Plan, error) {
	f, err := os.Open(Partial(file))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, problem.Wrap(problem.Usage, err, "go on with a recording")
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadBytes('\n')
	var p Plan
	if err != nil || json.Unmarshal(line, &p) != nil || slices.ContainsFunc(p.Chunks, func(c Chunk) bool { return c.Selector < 0 || c.Selector >= len(p.Asked) }) {
		return nil, problem.New(problem.Usage, "%s is not what a recording left behind", Partial(file)).WithHint("remove it to begin again")
	}
	return &p, nil
}

// fetched is one line of the partial file: what was answered about a chunk.
type fetched struct {
	Chunk   int               `json:"chunk"`
	Samples []json.RawMessage `json:"samples"`
	Present []presence        `json:"present"`
}

// presence are the steps at which a query sees a series: pairs of the first time, in milliseconds since 1970, and how many follow each other.
type presence struct {
	Labels map[string]string `json:"labels"`
	Runs   [][2]int64        `json:"runs"`
}

// Result is what a recording holds.
type Result struct {
	Series  int `json:"series"`
	Samples int `json:"samples"`
	Ends    int `json:"ends"` // of series, that were written between
}

// Run fetches what is missing and writes the file, which appears as a whole or not at all. progress is told how many samples of how many there are.
func (p *Plan) Run(ctx context.Context, src Source, file string, progress func(done, all int64)) (Result, error) {
	step, err := value.ParseDuration(p.Header.Step)
	if err != nil {
		return Result{}, problem.New(problem.Usage, "%s: step: %v", Partial(file), err)
	}
	f, err := os.OpenFile(Partial(file), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return Result{}, problem.Wrap(problem.Usage, err, "record")
	}
	defer f.Close()
	b := newBook(p)
	next, err := b.resume(f)
	if err != nil {
		return Result{}, err
	}
	done := int64(0)
	for i, c := range p.Chunks {
		if i >= next {
			got, err := fetch(ctx, src, p.Asked[c.Selector], c, step)
			if err == nil {
				got.Chunk = i
				err = b.keep(f, got)
			}
			if err != nil {
				return Result{}, err
			}
		}
		done += c.Samples
		progress(done, p.Samples)
	}
	series, r := b.assemble(step)
	if err := writeWhole(file, p.Header, series); err != nil {
		return Result{}, problem.Wrap(problem.Usage, err, "write %s", file)
	}
	if err := os.Remove(Partial(file)); err != nil {
		return Result{}, problem.Wrap(problem.Usage, err, "record")
	}
	return r, nil
}

// fetch asks for the samples of a chunk, and at which steps its series are seen.
func fetch(ctx context.Context, src Source, selector string, c Chunk, step time.Duration) (fetched, error) {
	var out fetched
	to := time.UnixMilli(c.To)
	// A range took in a sample that is exactly as old as it is long up to version 2, and does not since version 3.
	samples, err := src.Instant(ctx, fmt.Sprintf("%s[%dms]", selector, c.To-c.From+1), to)
	if err != nil {
		return out, err
	}
	for _, s := range samples {
		if len(s.Points) == 0 {
			continue
		}
		piece := recorded.Piece{Labels: s.Labels}
		for _, pt := range s.Points {
			piece.Times, piece.Values = append(piece.Times, pt.At.UnixMilli()), append(piece.Values, pt.Value)
		}
		var line bytes.Buffer
		if err := recorded.WritePiece(&line, piece); err != nil {
			return out, err
		}
		out.Samples = append(out.Samples, bytes.TrimSpace(line.Bytes()))
	}
	first := time.UnixMilli((c.From/step.Milliseconds() + 1) * step.Milliseconds())
	if first.After(to) {
		return out, nil
	}
	present, err := src.Range(ctx, selector, first, to, step)
	if err != nil {
		return out, err
	}
	for _, s := range present {
		p := presence{Labels: s.Labels}
		for _, pt := range s.Points {
			at := pt.At.UnixMilli()
			if n := len(p.Runs); n > 0 && p.Runs[n-1][0]+p.Runs[n-1][1]*step.Milliseconds() == at {
				p.Runs[n-1][1]++
			} else {
				p.Runs = append(p.Runs, [2]int64{at, 1})
			}
		}
		out.Present = append(out.Present, p)
	}
	return out, nil
}

// resume reads what was fetched before and returns the number of the first chunk that was not. A file without anything begins with the plan. A
// line that was not written to its end is taken back.
func (b *book) resume(f *os.File) (next int, err error) {
	r := bufio.NewReader(f)
	whole := int64(0)
	for n := 0; ; n++ {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, problem.Wrap(problem.Usage, err, "go on with a recording")
		}
		if err != nil {
			break
		}
		if n > 0 {
			var got fetched
			if err := json.Unmarshal(line, &got); err != nil || got.Chunk != n-1 {
				return 0, problem.New(problem.Usage, "%s is broken in line %d", f.Name(), n+1).WithHint("remove it to begin again")
			}
			if err := b.take(got); err != nil {
				return 0, err
			}
			next = n
		}
		whole += int64(len(line))
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return 0, problem.Wrap(problem.Usage, err, "go on with a recording")
	}
	if err := f.Truncate(whole); err != nil {
		return 0, problem.Wrap(problem.Usage, err, "go on with a recording")
	}
	if whole > 0 {
		return next, nil
	}
	return 0, appendLine(f, b.plan)
}

// keep puts what was fetched where an interruption does not lose it.
func (b *book) keep(f *os.File, got fetched) error {
	if err := appendLine(f, got); err != nil {
		return err
	}
	return b.take(got)
}

func appendLine(f *os.File, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return problem.Wrap(problem.Usage, err, "record").WithHint("what was fetched so far is kept: make room, and the same command goes on")
	}
	return nil
}

// writeWhole writes a file beside its place and moves it there.
func writeWhole(file string, h recorded.Header, series []recorded.Piece) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = recorded.WriteRecording(f, strings.HasSuffix(file, ".gz"), h, series)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// book gathers the pieces.
type book struct {
	plan   *Plan
	series map[string]*whole
}

// whole is one series.
type whole struct {
	labels  map[string]string
	samples map[int64]float64
	runs    [][2]int64 // of presence
}

func newBook(p *Plan) *book { return &book{plan: p, series: map[string]*whole{}} }

func (b *book) of(labels map[string]string) *whole {
	key, _ := json.Marshal(labels) // sorted by name, and text always can
	s := b.series[string(key)]
	if s == nil {
		s = &whole{labels: labels, samples: map[int64]float64{}}
		b.series[string(key)] = s
	}
	return s
}

func (b *book) take(got fetched) error {
	for _, line := range got.Samples {
		p, err := recorded.ReadPiece(line)
		if err != nil {
			return problem.Wrap(problem.Usage, err, "go on with a recording")
		}
		s := b.of(p.Labels)
		for i, t := range p.Times {
			s.samples[t] = p.Values[i]
		}
	}
	for _, p := range got.Present {
		s := b.of(p.Labels)
		s.runs = append(s.runs, p.Runs...)
	}
	return nil
}

// assemble puts the samples in order, writes the ends of series between them, and sorts the series by their labels.
func (b *book) assemble(step time.Duration) ([]recorded.Piece, Result) {
	var out []recorded.Piece
	var r Result
	keys := make([]string, 0, len(b.series))
	for key, s := range b.series {
		if len(s.samples) > 0 {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		p, ends := b.series[key].piece(step.Milliseconds(), b.plan.Header.To.UnixMilli())
		r.Series, r.Samples, r.Ends = r.Series+1, r.Samples+len(p.Times), r.Ends+ends
		out = append(out, p)
	}
	return out, r
}

// piece is the series in order. Where a step does not see it although its sample before that is younger than the lookback, it had ended: as long after that
// sample as samples usually follow, but after the last step that saw it, and not after the one that did not.
func (s *whole) piece(step, until int64) (p recorded.Piece, ends int) {
	p.Labels = s.labels
	times := make([]int64, 0, len(s.samples))
	for t := range s.samples {
		times = append(times, t)
	}
	slices.Sort(times)
	slices.SortFunc(s.runs, func(a, b [2]int64) int { return int(a[0] - b[0]) })
	usual := usually(times)
	for i, t := range times {
		p.Times, p.Values = append(p.Times, t), append(p.Values, s.samples[t])
		next := until + 1
		if i+1 < len(times) {
			next = times[i+1]
		}
		seen := t
		for g := (t + step - 1) / step * step; g < min(next, t+lookback.Milliseconds()); g += step {
			if s.at(g, step) {
				seen = g
				continue
			}
			if end := min(max(t+usual, seen+1), g); end > t {
				p.Times, p.Values = append(p.Times, end), append(p.Values, recorded.StaleNaN())
				ends++
			}
			break
		}
	}
	return p, ends
}

// at says whether a step saw the series.
func (s *whole) at(t, step int64) bool {
	i, found := slices.BinarySearchFunc(s.runs, t, func(r [2]int64, t int64) int { return int(r[0] - t) })
	if found {
		return true
	}
	return i > 0 && t < s.runs[i-1][0]+s.runs[i-1][1]*step && (t-s.runs[i-1][0])%step == 0
}

// usually is the median time between two samples, 0 if there is none.
func usually(times []int64) int64 {
	var apart []int64
	for i := 1; i < len(times); i++ {
		apart = append(apart, times[i]-times[i-1])
	}
	if len(apart) == 0 {
		return 0
	}
	slices.Sort(apart)
	return apart[len(apart)/2]
}
