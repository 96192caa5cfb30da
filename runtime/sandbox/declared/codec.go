package declared

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// The memory is read in every run, so it is not JSON: that takes ten times as long. Its form may change with every binary.

// writer appends; a text that was written before is a number.
type writer struct {
	out   []byte
	texts map[string]uint64
}

func (w *writer) number(n uint64) { w.out = binary.AppendUvarint(w.out, n) }

func (w *writer) text(s string) {
	if n, ok := w.texts[s]; ok {
		w.number(n)
		return
	}
	w.number(0)
	w.number(uint64(len(s)))
	w.out = append(w.out, s...)
	w.texts[s] = uint64(len(w.texts) + 1)
}

func (w *writer) pos(p value.Pos) {
	w.text(p.File)
	w.number(uint64(p.Line))
	w.number(uint64(p.Col))
}

const (
	tagNull = iota
	tagFalse
	tagTrue
	tagInt
	tagBig
	tagFloat
	tagString
	tagBytes
	tagDuration
	tagTime
	tagList
	tagDict
	tagRecord
)

func (w *writer) value(v value.Value) {
	tag := func(t byte) { w.out = append(w.out, t) }
	switch v := v.(type) {
	case nil, value.Null:
		tag(tagNull)
	case value.Bool:
		tag(tagFalse)
		if v {
			w.out[len(w.out)-1] = tagTrue
		}
	case value.Int:
		tag(tagInt)
		w.number(uint64(v))
	case value.Big:
		tag(tagBig)
		w.text(string(v))
	case value.Float:
		tag(tagFloat)
		w.number(math.Float64bits(float64(v)))
	case value.String:
		tag(tagString)
		w.text(string(v))
	case value.Bytes:
		tag(tagBytes)
		w.text(string(v))
	case value.Duration:
		tag(tagDuration)
		w.number(uint64(v))
	case value.Time:
		tag(tagTime)
		w.number(uint64(time.Time(v).Unix()))
		w.number(uint64(time.Time(v).Nanosecond()))
	case value.List:
		tag(tagList)
		w.number(uint64(len(v)))
		for _, x := range v {
			w.value(x)
		}
	case value.Dict:
		tag(tagDict)
		w.number(uint64(len(v)))
		for _, e := range v {
			w.value(e.Key)
			w.value(e.Value)
		}
	case *value.Record:
		tag(tagRecord)
		w.text(v.Type)
		w.pos(v.Pos)
		w.number(uint64(len(v.Fields)))
		for _, f := range v.Fields {
			w.text(f.Name)
			w.pos(f.Pos)
			w.value(f.Value)
		}
	}
}

func (w *writer) entries(all map[string]entry) {
	w.number(uint64(len(all)))
	for path, e := range all {
		w.text(path)
		w.text(e.vocabulary)
		w.text(e.doc)
		w.number(uint64(len(e.closure)))
		for _, f := range e.closure {
			w.text(f.Path)
			w.text(f.SHA256)
		}
		w.number(uint64(len(e.defs)))
		for _, d := range e.defs {
			w.text(d)
		}
		w.number(uint64(len(e.records)))
		for _, r := range e.records {
			w.value(r)
		}
	}
}

// reader takes from the front. It trusts what it reads, which a hash has vouched for, but not so far that it would panic.
type reader struct {
	in     []byte
	texts  []string
	depth  int
	broken bool
}

// deepest is far beyond what a worker may nest.
const deepest = 1000

var errBroken = errors.New("what was remembered is broken")

func (r *reader) number() uint64 {
	n, used := binary.Uvarint(r.in)
	if used <= 0 {
		r.in, r.broken = nil, true
		return 0
	}
	r.in = r.in[used:]
	return n
}

// count is a number of things that take at least a byte each.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.in)) {
		r.in, r.broken = nil, true
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.number()
	switch {
	case n > uint64(len(r.texts)):
		r.broken = true
		return ""
	case n > 0:
		return r.texts[n-1]
	}
	size := r.count()
	s := string(r.in[:size])
	r.in = r.in[size:]
	r.texts = append(r.texts, s)
	return s
}

func (r *reader) pos() value.Pos {
	return value.Pos{File: r.text(), Line: int(r.number()), Col: int(r.number())}
}

func (r *reader) value() value.Value {
	if r.depth++; len(r.in) == 0 || r.depth > deepest {
		r.in, r.broken = nil, true
		return value.Null{}
	}
	defer func() { r.depth-- }()
	tag := r.in[0]
	r.in = r.in[1:]
	switch tag {
	case tagNull:
		return value.Null{}
	case tagFalse, tagTrue:
		return value.Bool(tag == tagTrue)
	case tagInt:
		return value.Int(r.number())
	case tagBig:
		return value.Big(r.text())
	case tagFloat:
		return value.Float(math.Float64frombits(r.number()))
	case tagString:
		return value.String(r.text())
	case tagBytes:
		return value.Bytes(r.text())
	case tagDuration:
		return value.Duration(r.number())
	case tagTime:
		seconds := int64(r.number())
		return value.Time(time.Unix(seconds, int64(r.number())).UTC())
	case tagList:
		v := make(value.List, r.count())
		for i := range v {
			v[i] = r.value()
		}
		return v
	case tagDict:
		v := make(value.Dict, r.count())
		for i := range v {
			v[i] = value.Entry{Key: r.value(), Value: r.value()}
		}
		return v
	case tagRecord:
		return r.record()
	}
	r.broken = true
	return value.Null{}
}

func (r *reader) record() *value.Record {
	v := &value.Record{Type: r.text(), Pos: r.pos()}
	v.Fields = make([]value.Field, r.count())
	for i := range v.Fields {
		v.Fields[i] = value.Field{Name: r.text(), Pos: r.pos(), Value: r.value()}
	}
	return v
}

func (r *reader) entries() (map[string]entry, error) {
	n := r.count()
	all := make(map[string]entry, n)
	for range n {
		path := r.text()
		e := entry{vocabulary: r.text(), doc: r.text()}
		e.closure = make([]sandbox.File, r.count())
		for i := range e.closure {
			e.closure[i] = sandbox.File{Path: r.text(), SHA256: r.text()}
		}
		e.defs = make([]string, r.count())
		for i := range e.defs {
			e.defs[i] = r.text()
		}
		for range r.count() {
			rec, ok := r.value().(*value.Record)
			if !ok {
				return nil, errBroken
			}
			e.records = append(e.records, rec)
		}
		all[path] = e
	}
	if r.broken || len(r.in) > 0 {
		return nil, errBroken
	}
	return all, nil
}
