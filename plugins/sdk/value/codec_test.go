package value

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// equal compares values; NaN equals itself, and times by instant.
func equal(a, b Value) string {
	return cmp.Diff(a, b,
		cmp.Comparer(func(a, b Time) bool { return time.Time(a).Equal(time.Time(b)) }),
		cmp.Comparer(func(a, b Float) bool { return math.Float64bits(float64(a)) == math.Float64bits(float64(b)) }))
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    Value
		want string
	}{
		{Null{}, `null`},
		{Bool(true), `true`},
		{Int(12), `12`},
		{Big("-123456789012345678901234567890"), `-123456789012345678901234567890`},
		{Float(12), `12.0`},
		{Float(12.5), `12.5`},
		{Float(1e300), `1e+300`},
		{Float(math.Copysign(0, -1)), `-0.0`},
		{Float(math.NaN()), `{"$float":"NaN"}`},
		{Float(math.Inf(1)), `{"$float":"+Inf"}`},
		{Float(math.Inf(-1)), `{"$float":"-Inf"}`},
		{String("a<b\n\u2028"), `"a<b\n\u2028"`},
		{Bytes("hi"), `{"$bytes":"aGk="}`},
		{Duration(90 * time.Minute), `{"$duration":"1h30m"}`},
		{Duration(math.MinInt64), `{"$duration":"-106751d23h47m16s854ms775us808ns"}`},
		{Time(time.Date(2026, 3, 1, 10, 20, 0, 5e8, time.UTC)), `{"$time":"2026-03-01T10:20:00.5Z"}`},
		{List{Int(1), List{}}, `[1,[]]`},
		{Dict{{String("b"), Int(1)}, {String("a"), Int(2)}}, `{"b":1,"a":2}`},
		{Dict{}, `{}`},
		{Dict{{String("$b"), Int(1)}}, `{"$dict":[["$b",1]]}`},
		{Dict{{Int(1), Int(2)}}, `{"$dict":[[1,2]]}`},
		{
			&Record{Type: "every", Pos: Pos{"a.star", 1, 2}, Fields: []Field{{"d", Duration(time.Minute), Pos{"a.star", 1, 8}}}},
			`{"$record":{"type":"every","pos":{"file":"a.star","line":1,"col":2},"fields":[{"name":"d","value":{"$duration":"1m"},"pos":{"file":"a.star","line":1,"col":8}}]}}`,
		},
	} {
		got, err := Marshal(c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("Marshal(%#v) = %s, %v; want %s", c.v, got, err, c.want)
		}
		back, err := Unmarshal(got)
		if err != nil {
			t.Errorf("Unmarshal(%s): %v", got, err)
		}
		if d := equal(c.v, back); d != "" {
			t.Errorf("%s: %s", got, d)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	deep := Value(Int(1))
	for range MaxDepth + 1 {
		deep = List{deep}
	}
	for _, v := range []Value{
		String("\xff"), Big("abc"), Big("007"), Big("-"), deep,
		Dict{{String("a"), Int(1)}, {String("a"), Int(2)}},
		Time(time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)),
		&Record{Type: "\xff"},
	} {
		if got, err := Marshal(v); err == nil {
			t.Errorf("Marshal(%#v) = %s, want an error", v, got)
		}
	}
	for _, s := range []string{
		``, `[`, `{`, `[1,`, `{"a"`, `{"a":`, `{"a":1,"a":2}`, `{"$dict":[[1,2],[1,3]]}`, `{"$dict":[[1]]}`, `{"$dict":[[1,2,3]]}`,
		`{"$x":1}`, `{"a":1,"$float":"NaN"}`, `{"$float":"NaN","a":1}`, `{"$float":1}`, `{"$float":"1"}`, `{"$bytes":"?"}`,
		`{"$duration":""}`, `{"$duration":"-"}`, `{"$duration":"9999999999d"}`, `{"$duration":"106751d23h47m16s854ms775us808ns"}`,
		`{"$time":"now"}`, `{"$record":[]}`, `{"$record":{"type":1}}`, `{"$record":{"fields":[{"pos":{"line":-1}}]}}`,
		`1 2`, `1e999`, `"` + "\xff" + `"`, `-0`, strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat("[", 1<<20),
	} {
		if v, err := Unmarshal([]byte(s)); err == nil {
			t.Errorf("Unmarshal(%.60s) = %#v, want an error", s, v)
		}
	}
	if _, err := Unmarshal([]byte(strings.Repeat(" ", MaxJSON) + "1")); err == nil {
		t.Error("too long a text was accepted")
	}
}

func TestInStruct(t *testing.T) {
	t.Parallel()
	type step struct {
		Args  Dict
		Value JSON
		None  JSON
		List  List
		Rec   *Record
	}
	in := step{Dict{{String("n"), Float(2)}}, JSON{Duration(time.Second)}, JSON{}, List{Int(1)}, &Record{Type: "x"}}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Args":{"n":2.0},"Value":{"$duration":"1s"},"None":null,"List":[1],"Rec":{"$record":{"type":"x","fields":[]}}}`; string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
	var out step
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	in.None.Value = Null{}
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	if err := json.Unmarshal([]byte(`{"Args":[1]}`), &out); err == nil {
		t.Error("a list was accepted as a dict")
	}
}

// gen draws any value that Marshal accepts.
func gen(depth int) *rapid.Generator[Value] {
	str := rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") })
	pos := rapid.Custom(func(t *rapid.T) Pos {
		return Pos{str.Draw(t, "file"), rapid.IntRange(0, 1e6).Draw(t, "line"), rapid.IntRange(0, 1e6).Draw(t, "col")}
	})
	return rapid.Custom(func(t *rapid.T) Value {
		kinds := 12
		if depth == 0 {
			kinds = 9
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return Null{}
		case 1:
			return Bool(rapid.Bool().Draw(t, "bool"))
		case 2:
			return Int(rapid.Int64().Draw(t, "int"))
		case 3:
			return Big(strconv.Itoa(rapid.IntRange(1, 9).Draw(t, "digit")) + rapid.StringMatching(`[0-9]{19,40}`).Draw(t, "digits"))
		case 4:
			return Float(rapid.Float64().Draw(t, "float"))
		case 5:
			return String(str.Draw(t, "string"))
		case 6:
			return Bytes(append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")...))
		case 7:
			return Duration(rapid.Int64().Draw(t, "duration"))
		case 8:
			return Time(time.Unix(rapid.Int64Range(-6e10, 2.5e11).Draw(t, "sec"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC())
		case 9:
			return List(append([]Value{}, rapid.SliceOfN(gen(depth-1), 0, 4).Draw(t, "list")...))
		case 10:
			d := Dict{}
			seen := map[string]bool{}
			for range rapid.IntRange(0, 4).Draw(t, "n") {
				k := gen(depth-1).Draw(t, "key")
				b, err := Marshal(k)
				if err != nil {
					t.Fatal(err)
				}
				if !seen[string(b)] {
					seen[string(b)] = true
					d = append(d, Entry{k, gen(depth-1).Draw(t, "val")})
				}
			}
			return d
		}
		r := &Record{Type: str.Draw(t, "type"), Pos: pos.Draw(t, "pos")}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			r.Fields = append(r.Fields, Field{str.Draw(t, "name"), gen(depth-1).Draw(t, "val"), pos.Draw(t, "pos")})
		}
		return r
	})
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := gen(3).Draw(t, "value")
		b, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Fatalf("not JSON: %s", b)
		}
		back, err := Unmarshal(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := equal(v, back); d != "" {
			t.Fatalf("%s: %s", b, d)
		}
	})
}

// FuzzUnmarshal: the decoder never panics, and what it accepts it writes again in a form that it
// reads as the same value.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{
		`null`, `[1,2.0,"x"]`, `{"a":{"$float":"NaN"}}`, `{"$dict":[[1,{}],["$",[]]]}`, `{"$duration":"-1d2ns"}`,
		`{"$record":{"type":"t","pos":{"file":"f","line":1},"fields":[{"name":"n","value":{"$time":"2026-01-01T00:00:00Z"}}]}}`, `[[[[`, `{"$bytes":"aGk="}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Unmarshal(data)
		if err != nil {
			return
		}
		b, err := Marshal(v)
		if err != nil {
			t.Fatalf("accepted %q but cannot write it: %v", data, err)
		}
		again, err := Unmarshal(b)
		if err != nil {
			t.Fatalf("cannot read its own %s: %v", b, err)
		}
		if d := equal(v, again); d != "" {
			t.Fatal(d)
		}
	})
}
