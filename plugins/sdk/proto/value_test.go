package pluginpb_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	shared := value.Value(value.String(strings.Repeat("x", 1000)))
	for range 20 {
		shared = value.List{shared, shared}
	}
	for part, v := range map[string]value.Value{
		"larger than 16 MiB":                 shared,
		`["a"][1]: text "\xff" is not valid`: value.Dict{{Key: value.String("a"), Value: value.List{value.Null{}, value.String("\xff")}}},
		"a every cannot cross to a plugin":   &value.Record{Type: "every"},
		`"0x10" is not a decimal integer`:    value.Big("0x10"),
		`"" is not a decimal`:                value.Big(""),
		"is not a decimal":                   value.Big(strings.Repeat("9", 5000)),
	} {
		if _, err := pluginpb.Encode(v); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	str := func(s string) *pluginpb.Value {
		return &pluginpb.Value{Kind: &pluginpb.Value_String_{String_: s}}
	}
	dict := func(kv ...*pluginpb.Value) *pluginpb.Value {
		d := &pluginpb.Dict{}
		for i := 0; i < len(kv); i += 2 {
			d.Entries = append(d.Entries, &pluginpb.Entry{Key: kv[i], Value: kv[i+1]})
		}
		return &pluginpb.Value{Kind: &pluginpb.Value_Dict{Dict: d}}
	}
	list := func(v ...*pluginpb.Value) *pluginpb.Value {
		return &pluginpb.Value{Kind: &pluginpb.Value_List{List: &pluginpb.List{Items: v}}}
	}
	deep := str("x")
	for range value.MaxDepth + 1 {
		deep = list(deep)
	}
	for part, p := range map[string]*pluginpb.Value{
		"a value of no kind":              nil,
		"[1]: a value of no kind":         list(str(""), &pluginpb.Value{}),
		`["k"]: a value of no kind`:       dict(str("k"), nil),
		"nested deeper than 64":           deep,
		`key "k" of a dict appears twice`: dict(str("k"), str("a"), str("k"), str("b")),
		"a list cannot be a key":          dict(list(), str("a")),
		"a time with 1000000000":          {Kind: &pluginpb.Value_Time{Time: &pluginpb.Time{Nanos: 1_000_000_000}}},
		`"1.5" is not a decimal`:          {Kind: &pluginpb.Value_Big{Big: "1.5"}},
		`text "\xff" is not valid UTF-8`:  str("\xff"),
	} {
		if _, err := pluginpb.Decode(p); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
	if v, err := pluginpb.Decode(&pluginpb.Value{Kind: &pluginpb.Value_Big{Big: "007"}}); err != nil || v != value.Int(7) {
		t.Errorf("a small big: %v %v", v, err)
	}
}

// FuzzDecode: whatever a plugin sends, decoding ends, and what it accepts goes back the same.
func FuzzDecode(f *testing.F) {
	for _, v := range []value.Value{value.Null{}, value.List{value.Int(-1), value.Float(1)}, value.Dict{{Key: value.String("a"), Value: value.Big("99999999999999999999")}}} {
		p, err := pluginpb.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p pluginpb.Value
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		v, err := pluginpb.Decode(&p)
		if err != nil {
			return
		}
		again, err := pluginpb.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := pluginpb.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := value.Marshal(v)
		b, err2 := value.Marshal(w)
		if string(a) != string(b) || (err1 == nil) != (err2 == nil) {
			t.Errorf("%s became %s", a, b)
		}
	})
}
