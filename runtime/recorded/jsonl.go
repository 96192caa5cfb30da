package recorded

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// What runbook record writes is text of one JSON document a line (.jsonl): a Header, then series in pieces of a few thousand samples, each series in order
// of time, then the number of series and of samples, so that a file that was cut off is known. The times of a piece are the first one in milliseconds
// since 1970 and then the time from each to the next. A value is a number, "NaN", "+Inf", "-Inf", or "stale" where the series ended.

// Header is the first line.
type Header struct {
	Recording int       `json:"recording"` // the version of the format: 1
	Server    string    `json:"server"`    // without credentials
	Version   string    `json:"version"`   // of the server, "" if it did not say
	From      time.Time `json:"from"`      // the window in which queries have the answers that they had there
	To        time.Time `json:"to"`
	Step      string    `json:"step"` // of the times at which it was looked which series were there
	Selectors []string  `json:"selectors"`
}

const jsonlVersion = 1

// Piece are samples of one series.
type Piece struct {
	Labels map[string]string
	Times  []int64 // in milliseconds since 1970, rising
	Values []float64
}

// StaleNaN is the value that says that a series ended.
func StaleNaN() float64 { return staleNaN() }

// maxPiece is how many samples of a series are in one line.
const maxPiece = 5000

type jsonlPiece struct {
	Labels map[string]string `json:"labels"`
	Times  []int64           `json:"t"`
	Values []jsonlValue      `json:"v"`
}

type jsonlEnd struct {
	End     bool `json:"end"`
	Series  int  `json:"series"`
	Samples int  `json:"samples"`
}

type jsonlValue float64

// MarshalJSON implements json.Marshaler.
func (v jsonlValue) MarshalJSON() ([]byte, error) {
	f := float64(v)
	switch {
	case value.IsStaleNaN(f):
		return []byte(`"stale"`), nil
	case math.IsNaN(f), math.IsInf(f, 0):
		return strconv.AppendQuote(nil, strconv.FormatFloat(f, 'g', -1, 64)), nil
	}
	return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
}

// readValue reads what MarshalJSON writes.
func readValue(text string) (float64, error) {
	word := strings.Trim(text, `"`)
	if word == "stale" {
		return staleNaN(), nil
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return 0, fmt.Errorf(`a value must be a number, "NaN", "+Inf", "-Inf" or "stale", got %.60s`, text)
	}
	return f, nil
}

func readTime(text string) (int64, error) {
	t, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a time must be whole milliseconds, got %.60s", text)
	}
	return t, nil
}

// elements reads the elements of a JSON array of numbers and words, none of which has a comma in it: in a fraction of the time that it takes encoding/json.
func elements[T any](array []byte, read func(text string) (T, error)) ([]T, error) {
	inner, ok := bytes.CutPrefix(array, []byte("["))
	inner, closed := bytes.CutSuffix(inner, []byte("]"))
	if inner = bytes.TrimSpace(inner); !ok || !closed || len(inner) == 0 {
		return nil, nil
	}
	out := make([]T, 0, bytes.Count(inner, []byte(","))+1)
	for text := range bytes.SplitSeq(inner, []byte(",")) {
		v, err := read(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// WritePiece writes one series as one line.
func WritePiece(w io.Writer, p Piece) error {
	line := jsonlPiece{Labels: p.Labels, Times: make([]int64, len(p.Times)), Values: make([]jsonlValue, len(p.Values))}
	for i, t := range p.Times {
		if line.Times[i] = t; i > 0 {
			line.Times[i] = t - p.Times[i-1]
		}
		line.Values[i] = jsonlValue(p.Values[i])
	}
	return json.NewEncoder(w).Encode(line)
}

// ReadPiece reads such a line.
func ReadPiece(line []byte) (Piece, error) {
	var in struct {
		Labels map[string]string `json:"labels"`
		Times  json.RawMessage   `json:"t"`
		Values json.RawMessage   `json:"v"`
	}
	// As WritePiece writes it, the numbers need not be gone through three times. None of this is in a label: a quote there has a backslash before it.
	i, j, end := bytes.Index(line, []byte(`,"t":[`)), bytes.Index(line, []byte(`],"v":[`)), bytes.LastIndex(line, []byte("]}"))
	if 0 < i && i < j && j < end && len(bytes.TrimSpace(line[end:])) == len("]}") && jsontext.Value(line).IsValid() {
		in.Times, in.Values = line[i+len(`,"t":`):j+1], line[j+len(`],"v":`):end+1]
		line = slices.Concat(line[:i], []byte("}"))
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return Piece{}, err
	}
	p := Piece{Labels: in.Labels}
	var err error
	if p.Times, err = elements(in.Times, readTime); err != nil {
		return Piece{}, err
	}
	if p.Values, err = elements(in.Values, readValue); err != nil {
		return Piece{}, err
	}
	if len(p.Times) != len(p.Values) || len(p.Times) == 0 {
		return Piece{}, fmt.Errorf("a piece must have a value for each time, got %d times and %d values", len(p.Times), len(p.Values))
	}
	for i := 1; i < len(p.Times); i++ {
		p.Times[i] += p.Times[i-1]
	}
	return p, nil
}

// WriteRecording writes a whole recording, packed with gzip if packed is set. Each series is one Piece, of any length.
func WriteRecording(w io.Writer, packed bool, h Header, series []Piece) error {
	if packed {
		z := gzip.NewWriter(w)
		if err := WriteRecording(z, false, h, series); err != nil {
			return err
		}
		return z.Close()
	}
	b := bufio.NewWriter(w)
	h.Recording = jsonlVersion
	out := json.NewEncoder(b)
	if err := out.Encode(h); err != nil {
		return err
	}
	end := jsonlEnd{End: true, Series: len(series)}
	for _, s := range series {
		for from := 0; from < len(s.Times); from += maxPiece {
			to := min(from+maxPiece, len(s.Times))
			if err := WritePiece(b, Piece{Labels: s.Labels, Times: s.Times[from:to], Values: s.Values[from:to]}); err != nil {
				return err
			}
			end.Samples += to - from
		}
	}
	if err := out.Encode(end); err != nil {
		return err
	}
	return b.Flush()
}

// jsonLine is a line of a recording.
type jsonLine struct {
	text   []byte
	unread error // what ended the reading, other than its end
	piece  Piece // if the text is one
	bad    error // why it is none
}

// readLines reads lines, and what they say as pieces, side by side: they come in their order. The caller ends it with stop.
func readLines(in *bufio.Reader) (lines <-chan chan jsonLine, stop func()) {
	out, stopped := make(chan chan jsonLine, runtime.GOMAXPROCS(0)), make(chan struct{})
	go func() {
		defer close(out)
		for more := true; more; {
			text, err := in.ReadBytes('\n')
			more = err == nil
			if errors.Is(err, io.EOF) {
				err = nil
			}
			next := make(chan jsonLine, 1)
			select {
			case out <- next:
			case <-stopped:
				return
			}
			go func() {
				line := jsonLine{text: text, unread: err}
				if len(text) > 0 && err == nil {
					line.piece, line.bad = ReadPiece(text)
				}
				next <- line
			}()
		}
	}()
	return out, func() {
		close(stopped)
		for range out { // until nothing reads any more
		}
	}
}

// jsonl reads what WriteRecording writes.
func (l *loader) jsonl(in *bufio.Reader) ([]string, error) {
	var warnings []string
	const again = "record it again: runbook record"
	n, ended := 0, false
	var last *series
	lines, stop := readLines(in)
	defer stop()
	for next := range lines {
		read := <-next
		line := read.text
		if err := read.unread; err != nil {
			return nil, l.unread(err)
		}
		if len(line) == 0 {
			break
		}
		n++
		switch {
		case !utf8.Valid(line):
			return nil, l.notText(n)
		case len(bytes.TrimSpace(line)) == 0:
			continue
		case n == 1:
			h := &l.header
			if err := json.Unmarshal(line, h); err != nil || h.Recording == 0 {
				return nil, l.bad(1, "it does not begin as a recording does").WithHint(`runbook record writes such files; their first line begins with {"recording":1`)
			}
			if h.Recording != jsonlVersion {
				return nil, l.bad(1, "it is of version %d of the format, and this program reads version %d", h.Recording, jsonlVersion).WithHint("use the release of runbook that wrote it, or " + again)
			}
			if w := VersionWarning(h.Version); w != "" {
				warnings = append(warnings, l.rec.Name+": "+w)
			}
			continue
		case ended:
			return nil, l.bad(n, "something follows its end").WithHint(again)
		case bytes.HasPrefix(line, []byte(`{"end":`)):
			var end jsonlEnd
			if err := json.Unmarshal(line, &end); err != nil {
				return nil, l.bad(n, "%v", err).WithHint(again)
			}
			if end.Series != len(l.series) || end.Samples != l.samples+l.dropped {
				return nil, l.bad(n, "it holds %d series and %d samples, and says that it has %d and %d", len(l.series), l.samples+l.dropped, end.Series, end.Samples).WithHint(again)
			}
			ended = true
			continue
		}
		p := read.piece
		if read.bad != nil {
			return nil, l.bad(n, "%v", read.bad).WithHint(again)
		}
		s, err := l.of(labels.FromMap(p.Labels))
		if err != nil {
			return nil, l.bad(n, "%v", err)
		}
		if last != nil && last != s {
			l.settle(last)
		}
		last = s
		for i, t := range p.Times {
			if err := l.add(s, sample{labels: s.labels, t: t, v: p.Values[i]}, func() int { return n }); err != nil {
				return nil, err
			}
		}
	}
	if last != nil {
		l.settle(last)
	}
	if !ended {
		return nil, l.bad(n, "it was cut off: its last line is missing").WithHint(again)
	}
	return warnings, nil
}

// VersionWarning says in what a server's answers may differ from those of the engine that tests use, "" if in nothing that is known.
func VersionWarning(server string) string {
	major, _, _ := strings.Cut(server, ".")
	if ours, _, _ := strings.Cut(engineVersion, "."); server == "" || major == ours {
		return ""
	}
	return fmt.Sprintf("recorded from Prometheus %s, and tests ask as %s does: a range then no longer takes in a sample that is exactly as old as it is long, so that rate(x[5m]) and the like can differ by one sample", server, engineVersion)
}
