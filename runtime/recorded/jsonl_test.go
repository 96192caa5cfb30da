package recorded

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A piece is read as it was written, whatever its labels and values, also if another program has put spaces into the line.
func TestPieces(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	odd := []string{`,"t":[`, `],"v":[1]}`, `\`, `"`, "ü\n", "", `a\",\"t\":[`, "depth"}
	special := []float64{StaleNaN(), math.NaN(), math.Inf(1), math.Inf(-1), 0, -1.5e-300, math.MaxFloat64}
	for range 2000 {
		p := Piece{Labels: map[string]string{}}
		for range r.IntN(4) {
			p.Labels[odd[r.IntN(len(odd))]] = odd[r.IntN(len(odd))] + odd[r.IntN(len(odd))]
		}
		at := r.Int64N(2e12)
		for range 1 + r.IntN(5) {
			v := r.NormFloat64()
			if r.IntN(3) == 0 {
				v = special[r.IntN(len(special))]
			}
			p.Times, p.Values = append(p.Times, at), append(p.Values, v)
			at += 1 + r.Int64N(1e6)
		}
		var line bytes.Buffer
		if err := WritePiece(&line, p); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{line.String(), strings.TrimSpace(line.String()), strings.Replace(line.String(), `{"labels":{`, ` { "labels" : {`, 1), spaced(line.String())} {
			got, err := ReadPiece([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if diff := cmp.Diff(p, got, cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })); diff != "" {
				t.Fatalf("%s\n%s", text, diff)
			}
		}
	}
}

// spaced puts spaces around the numbers of a line, which are its last two lists.
func spaced(line string) string {
	at := strings.LastIndex(line, `,"t":[`)
	return line[:at] + strings.NewReplacer("[", "[ ", "]", " ]", ",", " , ", ":", ": ").Replace(line[at:])
}
