package sdk_test

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

type inner struct {
	Name string `rb:"name,required"`
}

type all struct {
	First  string            `rb:"first,required,positional" doc:"the first"`
	Int    int32             `rb:"int" default:"0"`
	Float  float64           `rb:"float" default:"0.5"`
	Bool   bool              `rb:"bool" default:"true"`
	Wait   time.Duration     `rb:"wait" default:"90s"`
	Words  []string          `rb:"words"`
	Labels map[string]string `rb:"labels"`
	List   []inner           `rb:"list"`
	Any    value.Value       `rb:"any"`
	Big    *big.Int          `rb:"big"`
	Opt    *int              `rb:"opt"`
	At     time.Time         `rb:"at"`
	Secret string            `rb:"secret,sensitive"`
	Hidden string
}

func echo() *sdk.Plugin {
	p := sdk.New("echo", "1", "Says what it hears.")
	sdk.QueryFunc(p, "all", "All types.", func(_ context.Context, a all) (all, error) { return a, nil })
	return p
}

func str(s string) value.Value { return value.String(s) }

func dict(kv ...any) value.Dict {
	var d value.Dict
	for i := 0; i < len(kv); i += 2 {
		d = append(d, value.Entry{Key: value.String(kv[i].(string)), Value: kv[i+1].(value.Value)})
	}
	return d
}

func TestSchema(t *testing.T) {
	t.Parallel()
	m, err := echo().Manifest()
	if err != nil {
		t.Fatal(err)
	}
	want := []sdk.Param{
		{Name: "first", Type: "string", Required: true, Doc: "the first"},
		{Name: "int", Type: "int", Default: value.Int(0)},
		{Name: "float", Type: "float", Default: value.Float(0.5)},
		{Name: "bool", Type: "bool", Default: value.Bool(true)},
		{Name: "wait", Type: "duration", Default: value.Duration(90 * time.Second)},
		{Name: "words", Type: "strings"},
		{Name: "labels", Type: "labels"},
		{Name: "list", Type: "list"},
		{Name: "any", Type: "any"},
		{Name: "big", Type: "int"},
		{Name: "opt", Type: "int"},
		{Name: "at", Type: "any"},
		{Name: "secret", Type: "string", Sensitive: true},
	}
	if d := cmp.Diff(want, m.Functions[0].Params); d != "" || m.Functions[0].Positional != 1 || m.Functions[0].Returns != "dict" {
		t.Error(d, m.Functions[0])
	}
	p, err := sdk.EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sdk.DecodeManifest(p)
	if d := cmp.Diff(m, again); err != nil || d != "" {
		t.Error(err, d)
	}
	p.Functions[0].Kind = 99
	if again, err := sdk.DecodeManifest(p); err != nil || again.Functions[0].Kind != sdk.Action {
		t.Errorf("an unknown kind is a %s", again.Functions[0].Kind)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	h := sdktest.New(t, echo())
	if err := h.Configure(nil); err != nil {
		t.Fatal(err)
	}
	at := value.Time(time.Unix(5, 0).UTC())
	got, err := h.Query(t.Context(), "all", dict("first", str("x"), "int", value.Int(7), "float", value.Int(2), "words", str("one"),
		"labels", dict("b", str("1")), "list", value.List{dict("name", str("n"))}, "any", value.Bytes("b"), "big", value.Big("99999999999999999999"), "at", at))
	want := dict("first", str("x"), "int", value.Int(7), "float", value.Float(2), "bool", value.Bool(true), "wait", value.Duration(90*time.Second),
		"words", value.List{str("one")}, "labels", dict("b", str("1")), "list", value.List{dict("name", str("n"))}, "any", value.Bytes("b"),
		"big", value.Big("99999999999999999999"), "opt", value.Null{}, "at", at, "secret", str(""))
	same := cmp.Comparer(func(a, b value.Time) bool { return time.Time(a).Equal(time.Time(b)) })
	if d := cmp.Diff(value.Value(want), got, same); err != nil || d != "" {
		t.Error(err, d)
	}
	for part, args := range map[string]value.Dict{
		"first is required":                   {},
		"first: must be string, got int":      dict("first", value.Int(1)),
		"int: 3000000000 is out of range":     dict("first", str(""), "int", value.Int(3e9)),
		"int: must be int, got float":         dict("first", str(""), "int", value.Float(1)),
		`must be a duration such as "5m"`:     dict("first", str(""), "wait", value.Int(5)),
		"list: [0]: name is required":         dict("first", str(""), "list", value.List{dict()}),
		`words: [1]: must be string, got int`: dict("first", str(""), "words", value.List{str(""), value.Int(1)}),
		`no "frist" (did you mean "first"?)`:  dict("first", str(""), "frist", str("")),
	} {
		_, err := h.Query(t.Context(), "all", args)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

func TestAuthorsMistakes(t *testing.T) {
	t.Parallel()
	type loop struct {
		Next *loop `rb:"next"`
	}
	type bad struct {
		A chan int `rb:"a"`
	}
	type late struct {
		A string `rb:"a"`
		B string `rb:"b,positional"`
	}
	for part, make := range map[string]func(*sdk.Plugin){
		"contains itself":    func(p *sdk.Plugin) { query[struct{}, *loop](p, "q") },
		"has no value":       func(p *sdk.Plugin) { query[bad, int](p, "q") },
		"only the first":     func(p *sdk.Plugin) { query[late, int](p, "q") },
		"registered twice":   func(p *sdk.Plugin) { query[inner, int](p, "q"); query[inner, int](p, "q") },
		"must be lower-case": func(p *sdk.Plugin) { query[inner, int](p, "Q") },
		"there is no action q": func(p *sdk.Plugin) {
			sdk.PlanFunc(p, "q", func(context.Context, sdk.Target, inner) (sdk.Plan, error) { return sdk.Plan{}, nil })
		},
		"int is not a struct": func(p *sdk.Plugin) { query[int, int](p, "q") },
	} {
		p := sdk.New("p", "1", "")
		make(p)
		if _, err := p.Manifest(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
	if err := echo().Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "project.star") {
		t.Errorf("started by hand: %v", err)
	}
}

func query[A, R any](p *sdk.Plugin, name string) {
	sdk.QueryFunc(p, name, "", func(context.Context, A) (r R, err error) { return r, nil })
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	p := sdk.New("p", "1", "")
	acted := map[string]bool{}
	sdk.ActionFunc(p, "act", "", func(c *sdk.Call, a inner) (string, error) {
		switch a.Name {
		case "before":
			return "", errors.New("not ready")
		case "same":
			return "was", sdk.NoChange("it was so")
		case "forgets":
			return "did it", nil
		}
		if err := c.Begin([]byte("receipt")); err != nil {
			return "", err
		}
		if err := c.Begin(nil); err == nil {
			return "", errors.New("begun twice")
		}
		acted[a.Name] = true
		switch a.Name {
		case "fails":
			return "", errors.New("disk full")
		case "unsure":
			return "", sdk.Unknown(errors.New("lost"))
		case "late":
			<-c.Done()
			return "", errors.New("stopped")
		case "same after all":
			return "was", sdk.NoChange("it was so")
		}
		return "done", nil
	})
	h := sdktest.New(t, p)
	if err := h.Configure(nil); err != nil {
		t.Fatal(err)
	}
	type o = sdktest.Outcome
	for name, want := range map[string]o{
		"ok":             {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_SUCCEEDED, Value: str("done")},
		"before":         {Outcome: pluginpb.Outcome_OUTCOME_NOT_STARTED, Message: "not ready"},
		"same":           {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_NO_CHANGE, Message: "it was so", Value: str("was")},
		"same after all": {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_NO_CHANGE, Message: "it was so", Value: str("was")},
		"fails":          {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_FAILED, Message: "disk full"},
		"unsure":         {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_UNKNOWN, Message: "lost"},
		"late":           {Started: true, Acting: true, Outcome: pluginpb.Outcome_OUTCOME_UNKNOWN, Message: "stopped"},
	} {
		got := h.Act(sdktest.Action{Function: "act", Args: dict("name", str(name)), Timeout: 200 * time.Millisecond})
		if got.Receipt != nil && string(got.Receipt) != "receipt" {
			t.Errorf("receipt %q", got.Receipt)
		}
		got.Receipt = nil
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	got := h.Act(sdktest.Action{Function: "act", Args: dict("name", str("forgets"))})
	if got.Outcome != pluginpb.Outcome_OUTCOME_UNKNOWN || !got.Started {
		t.Errorf("success without Begin: %+v", got)
	}
	got = h.Act(sdktest.Action{Function: "act", Args: dict("name", str("declined")), Decline: true})
	if !got.Declined || got.Acting || acted["declined"] {
		t.Errorf("declined: %+v", got)
	}
	got = h.Act(sdktest.Action{Function: "nothing"})
	if got.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || got.Started {
		t.Errorf("unknown action: %+v", got)
	}
}
