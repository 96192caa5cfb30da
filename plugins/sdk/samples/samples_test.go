package samples

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var answer = []Series{
	{Labels: map[string]string{"__name__": "depth", "instance": "w1"}, Points: []Point{{1772359200000, 5}, {1772359215000, math.Inf(1)}}},
	{Labels: map[string]string{}, Points: []Point{{-1, -0.5}}},
	{Labels: map[string]string{"ä": ""}, Points: []Point{}},
}

func encode(all []Series) []byte {
	var out []byte
	for _, s := range all {
		out = Append(out, s)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	got, err := Decode(encode(answer))
	if diff := cmp.Diff(answer, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if got, err := Decode(nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
	nan, err := Decode(encode([]Series{{Points: []Point{{0, math.NaN()}}}}))
	if err != nil || !math.IsNaN(nan[0].Points[0].Value) {
		t.Errorf("NaN: %v, %v", nan, err)
	}
}

func TestBroken(t *testing.T) {
	t.Parallel()
	whole := encode(answer)
	ends := map[int]bool{0: true, len(whole): true}
	for i := range answer {
		ends[len(encode(answer[:i]))] = true
	}
	for i := range whole {
		if got, err := Decode(whole[:i]); (err == nil) != ends[i] {
			t.Errorf("cut off at %d: %v, %v", i, got, err)
		}
	}
	for name, in := range map[string][]byte{
		"more labels than bytes": {0xff, 0xff, 0xff, 0xff, 0x0f, 1, 'a'},
		"more points than bytes": {0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"a number without end":   bytes.Repeat([]byte{0xff}, 20),
		"a label twice":          {2, 1, 'a', 0, 1, 'a', 0, 0},
		"text that is not UTF-8": {1, 1, 0xff, 0, 0},
	} {
		if got, err := Decode(in); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(answer))
	f.Add([]byte{1, 1, 'a', 1, 'b', 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Decode(in)
		if err != nil {
			return
		}
		again, err := Decode(encode(got))
		if diff := cmp.Diff(got, again, cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}
