package convert

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.starlark.net/starlark"
)

// Render is x as Starlark would write it, in at most about limit bytes of valid UTF-8; what is left out is "...".
// Starlark's own String takes exponential time and space on a list that holds itself often.
func Render(x starlark.Value, limit int) string {
	r := renderer{left: limit}
	r.value(x, 0)
	return r.b.String()
}

type renderer struct {
	b    strings.Builder
	left int
}

// write adds s as far as there is room; false means that no more is wanted.
func (r *renderer) write(s string) bool {
	if r.left < 0 {
		return false
	}
	if len(s) > r.left {
		r.b.WriteString(strings.ToValidUTF8(s[:r.left], "") + "...")
		r.left = -1
		return false
	}
	r.left -= len(s)
	r.b.WriteString(s)
	return true
}

func (r *renderer) value(x starlark.Value, depth int) bool {
	if depth > 8 {
		return r.write("...")
	}
	switch x := x.(type) {
	case starlark.String:
		s := string(x)
		if len(s) > r.left+utf8.UTFMax { // do not quote megabytes to show a line
			s = s[:max(r.left, 0)+utf8.UTFMax]
		}
		return r.write(strconv.Quote(strings.ToValidUTF8(s, "\uFFFD")))
	case starlark.Bytes:
		return r.write(fmt.Sprintf("<%d bytes>", len(x)))
	case starlark.Int:
		if _, ok := x.Int64(); !ok && x.BigInt().BitLen() > 256 {
			return r.write(fmt.Sprintf("<int of %d bits>", x.BigInt().BitLen()))
		}
		return r.write(x.String())
	case *starlark.List:
		return r.sequence("[", "]", x, depth)
	case starlark.Tuple:
		if len(x) == 1 {
			return r.sequence("(", ",)", x, depth)
		}
		return r.sequence("(", ")", x, depth)
	case *starlark.Set:
		return r.sequence("set([", "])", x, depth)
	case *starlark.Dict:
		return r.dict(x, depth)
	case *Record:
		return r.record(x, depth)
	case starlark.NoneType, starlark.Bool, starlark.Float, Time, Duration:
		return r.write(x.String())
	case starlark.Callable:
		return r.write("<function " + x.Name() + ">")
	}
	return r.write("<" + x.Type() + ">")
}

func (r *renderer) sequence(open, end string, s starlark.Iterable, depth int) bool {
	if !r.write(open) {
		return false
	}
	first := true
	for e := range starlark.Elements(s) {
		if !first && !r.write(", ") || !r.value(e, depth+1) {
			return false
		}
		first = false
	}
	return r.write(end)
}

func (r *renderer) dict(d *starlark.Dict, depth int) bool {
	if !r.write("{") {
		return false
	}
	first := true
	for k, v := range d.Entries() {
		if !first && !r.write(", ") || !r.value(k, depth+1) || !r.write(": ") || !r.value(v, depth+1) {
			return false
		}
		first = false
	}
	return r.write("}")
}

func (r *renderer) record(x *Record, depth int) bool {
	if !r.write(x.Type() + "(") {
		return false
	}
	for i, f := range x.rec.Fields {
		if i > 0 && !r.write(", ") || !r.write(f.Name+"=") || !r.value(x.fields[f.Name], depth+1) {
			return false
		}
	}
	return r.write(")")
}
