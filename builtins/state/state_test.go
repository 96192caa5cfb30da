package state_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/builtins/state"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestState(t *testing.T) {
	t.Parallel()
	h := &kittest.Host{Kept: map[string]value.Value{}}
	get := func(key string, def value.Value) (value.Value, error) {
		args := kit.Args{"key": value.String(key)}
		if def != nil {
			args["default"] = def
		}
		return kittest.Call(t, state.Family(), "get", h, args)
	}
	set := func(key string, v value.Value) error {
		_, err := kittest.Call(t, state.Family(), "set", h, kit.Args{"key": value.String(key), "value": v})
		return err
	}
	for key, v := range map[string]value.Value{
		"int": value.Int(3), "float": value.Float(0.5), "text": value.String("x"), "bool": value.Bool(true), "at": value.Time(time.Unix(1, 0).UTC()),
		"for": value.Duration(time.Minute), "list": value.List{value.Int(1), value.String("a")},
	} {
		if err := set(key, v); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if got, err := get(key, nil); err != nil || !reflect.DeepEqual(v, got) {
			t.Errorf("%s: %v, %v", key, got, err)
		}
	}
	for _, c := range []struct {
		key       string
		def, want value.Value
		err       string
	}{
		{"none", nil, value.Null{}, ""},
		{"none", value.Int(7), value.Int(7), ""},
		{"int", value.Float(1), value.Int(3), ""}, // a number is a number
		{"text", value.Int(0), nil, `"text" holds a string, and the default is a int`},
		{"", nil, nil, "a key has 1 to 100 characters, got 0"},
		{strings.Repeat("k", 101), nil, nil, "got 101"},
	} {
		got, err := get(c.key, c.def)
		if c.err == "" && (err != nil || !reflect.DeepEqual(c.want, got)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %v, %v", c.key, got, err)
		}
	}
	for _, v := range []value.Value{value.Dict{}, value.List{value.List{}}, value.Bytes("x"), value.String(strings.Repeat("x", state.MaxValue))} {
		if err := set("bad", v); err == nil {
			t.Errorf("a %s of that kind was kept", v.Kind())
		}
	}
	h.Err = errors.New("the store is locked")
	if _, err := get("int", value.Int(0)); !errors.Is(err, h.Err) {
		t.Errorf("what cannot be read is not the default: %v", err)
	}
}
