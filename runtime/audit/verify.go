package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/runtime/store"
)

// maxFindings bounds what is said of one store.
const maxFindings = 100

// Report is what Verify found.
type Report struct {
	Entries  int      `json:"entries"`
	Records  int      `json:"records"` // that the log covers
	Head     Head     `json:"head"`
	Findings []string `json:"findings"`
	More     int      `json:"more,omitempty"` // findings that are not listed
}

// Verify reads the whole store in one go and says what does not fit. If n is not 0, entry n must have had that hash.
func (l Log) Verify(ctx context.Context, st store.Scanner, n int, hash Digest) (*Report, error) {
	v := verifier{r: &Report{Findings: []string{}}, log: l, said: map[string]said{}, have: map[string]Digest{}, want: n}
	err := st.Scan(ctx, "", false, func(key string, val []byte) bool {
		switch {
		case key == keyHead:
			v.head(val)
		case strings.HasPrefix(key, prefix):
			v.entry(key, val)
		case l.Covers(key):
			v.have[key] = digest(val)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	v.ends()
	v.records()
	if n > 0 {
		v.compare(n, hash)
	}
	return v.r, nil
}

// said is what the log last said of a record.
type said struct {
	Digest
	n int
}

type verifier struct {
	r      *Report
	log    Log
	first  int    // number of the first entry that is there
	prev   Digest // that it names
	last   int
	hash   Digest // of the last
	said   map[string]said
	have   map[string]Digest
	order  []string // keys of said, as they came
	want   int      // whose hash is asked for
	wanted Digest
}

func (v *verifier) find(format string, args ...any) {
	if len(v.r.Findings) == maxFindings {
		v.r.More++
		return
	}
	v.r.Findings = append(v.r.Findings, fmt.Sprintf(format, args...))
}

func (v *verifier) head(val []byte) {
	if err := json.Unmarshal(val, &v.r.Head); err != nil {
		v.find("the head of the log cannot be read: %v", err)
	}
}

// entry looks at one, and whether it follows the one before.
func (v *verifier) entry(key string, val []byte) {
	var n int
	var e Entry
	if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%d", &n); err != nil || key != keyOf(n) {
		v.find("%q is no entry of the log", key)
		return
	}
	v.r.Entries++
	if err := json.Unmarshal(val, &e); err != nil {
		v.find("entry %d was changed: it cannot be read (%v)", n, err)
	} else if e.N != n {
		v.find("entry %d was put elsewhere: it is at the place of entry %d", e.N, n)
	}
	switch {
	case v.last == 0:
		v.first, v.prev = n, e.Prev
	case n > v.last+1:
		v.find("%s removed", missing(v.last+1, n-1))
	case e.Prev != v.hash && e.N == n:
		v.find("entry %d was changed: entry %d names %s as its hash, and it is %s", v.last, n, short(e.Prev), short(v.hash))
	}
	v.last, v.hash = n, digest(val)
	if n == v.want {
		v.wanted = v.hash
	}
	for _, w := range e.Writes {
		if _, ok := v.said[w.Key]; !ok {
			v.order = append(v.order, w.Key)
		}
		v.said[w.Key] = said{w.Digest, n}
	}
}

func missing(from, to int) string {
	if from == to {
		return fmt.Sprintf("entry %d was", from)
	}
	return fmt.Sprintf("entries %d to %d were", from, to)
}

func short(d Digest) string {
	if len(d) > 12 {
		return string(d[:12]) + "..."
	}
	return string(d)
}

// ends compares both ends of the log with the head.
func (v *verifier) ends() {
	h := v.r.Head
	switch {
	case h.N == 0 && v.last == 0:
		return
	case h.N == 0:
		v.find("the head of the log was removed")
		return
	case v.last == 0 && h.First <= h.N:
		v.find("%s removed", missing(h.First, h.N))
		return
	}
	if v.last > 0 && v.first > h.First {
		v.find("%s removed", missing(h.First, v.first-1))
	} else if v.last > 0 && (v.first < h.First || v.prev != h.Before) {
		v.find("the beginning of the log was changed: the head says that it is entry %d after %q, and it is entry %d after %q", h.First, short(h.Before), v.first, short(v.prev))
	}
	switch {
	case v.last == 0: // all are forgotten
	case v.last < h.N:
		v.find("%s removed", missing(v.last+1, h.N))
	case v.last > h.N || v.hash != h.Hash:
		v.find("entry %d was changed: the head of the log is %d:%s, and it is %d:%s", v.last, h.N, short(h.Hash), v.last, short(v.hash))
	}
}

// records compares what is there with what the log says of it.
func (v *verifier) records() {
	for _, key := range v.order {
		s := v.said[key]
		have, there := v.have[key]
		if s.Digest != "" {
			v.r.Records++
		}
		switch {
		case s.Digest == "" && there:
			v.find("record %s is there, and entry %d removed it", key, s.n)
		case s.Digest != "" && !there:
			v.find("record %s was removed: entry %d wrote it", key, s.n)
		case s.Digest != "" && have != s.Digest:
			v.find("record %s was changed after entry %d wrote it", key, s.n)
		}
		delete(v.have, key)
	}
	for _, key := range slices.Sorted(maps.Keys(v.have)) {
		v.find("record %s was added: no entry of the log wrote it", key)
	}
}

// compare looks for a head that was kept elsewhere.
func (v *verifier) compare(n int, hash Digest) {
	h := v.r.Head
	switch {
	case n > h.N:
		v.find("the log was cut or written anew: it ends at entry %d, and entry %d was seen", h.N, n)
	case n == h.First-1 && n > 0:
		if hash != h.Before {
			v.find("the log was written anew: entry %d had the hash %s, and it is %s", n, short(hash), short(h.Before))
		}
	case n < h.First:
		v.find("entry %d has been forgotten (retention), so the head %s says nothing any more: compare a newer one", n, Head{N: n, Hash: hash})
	case v.wanted != hash:
		v.find("the log was written anew: entry %d had the hash %s, and it is %s", n, short(hash), short(v.wanted))
	}
}

// Export writes every entry as it is stored, one in a line, and the head at last: {"head":"17:9f86..."}. Its hash is that of the line before it.
func (l Log) Export(ctx context.Context, st store.Scanner, w io.Writer) (h Head, err error) {
	var bad error
	err = st.Scan(ctx, prefix, false, func(key string, val []byte) bool {
		if _, bad = fmt.Sscanf(strings.TrimPrefix(key, prefix), "%d", &h.N); bad == nil {
			h.V, h.Hash = 1, digest(val)
			_, bad = fmt.Fprintf(w, "%s\n", val)
		}
		return bad == nil
	})
	if err := errors.Join(err, bad); err != nil || h.N == 0 {
		return h, err
	}
	_, err = fmt.Fprintf(w, "{\"head\":%q}\n", h.String())
	return h, err
}
