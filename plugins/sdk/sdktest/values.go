package sdktest

import (
	"fmt"
	"strings"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Dict is a dict of names and values in turn; a Go string, int or bool stands for a value of that type.
func Dict(pairs ...any) value.Dict {
	var d value.Dict
	for i := 0; i < len(pairs); i += 2 {
		d = append(d, value.Entry{Key: value.String(pairs[i].(string)), Value: val(pairs[i+1])})
	}
	return d
}

func val(v any) value.Value {
	switch v := v.(type) {
	case value.Value:
		return v
	case string:
		return value.String(v)
	case int:
		return value.Int(v)
	case bool:
		return value.Bool(v)
	}
	panic(fmt.Sprintf("no value is made of %T", v))
}

// Texts is a list of texts.
func Texts(list ...string) value.List {
	var l value.List
	for _, s := range list {
		l = append(l, value.String(s))
	}
	return l
}

// Ask asks, and fails the test if there is no answer.
func (h *Harness) Ask(function string, args value.Dict) value.Value {
	h.t.Helper()
	v, err := h.Query(h.t.Context(), function, args)
	if err != nil {
		h.t.Fatalf("%s: %v", function, err)
	}
	return v
}

// Field is a field of a dict, or of the first dict of a list, that an action or a query has answered; nil if it is not there.
func Field(v value.Value, name string) value.Value {
	if l, ok := v.(value.List); ok && len(l) > 0 {
		v = l[0]
	}
	d, _ := v.(value.Dict)
	f, _ := d.Get(name)
	return f
}

// Expect carries an action out and expects an outcome, and a message that contains a text.
func (h *Harness) Expect(a Action, want pluginpb.Outcome, message string) Outcome {
	h.t.Helper()
	out := h.Act(a)
	if out.Outcome != want || !strings.Contains(out.Message, message) {
		h.t.Errorf("%s: got %s %q, want %s %q", a.Function, out.Outcome, out.Message, want, message)
	}
	return out
}

// Probes expects what a probe of an action says.
func (h *Harness) Probes(a Action, receipt []byte, want pluginpb.ProbeState) {
	h.t.Helper()
	if got, err := h.Probe(a, receipt); err != nil || got.GetState() != want {
		h.t.Errorf("probe of %s: %s %q (%v), want %s", a.Function, got.GetState(), got.GetMessage(), err, want)
	}
}
