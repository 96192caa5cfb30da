package topology_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/builtins/kit/kittest"
	"github.com/seed1de3961f/runbook/builtins/topology"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// host knows a web that needs a disk of parts and a db that is asked about as one.
type host struct {
	*kittest.Host
	own string
}

func (h host) Component() (string, error) {
	if h.own == "" {
		return "", problem.New(problem.Argument, "x has no label")
	}
	return h.own, nil
}

func (h host) Around(component string, down bool) ([]string, error) {
	if down {
		return []string{"batch"}, nil
	}
	return []string{"db", "disk"}, nil
}

func (h host) Symptom(component string) (kit.Symptom, error) {
	high := func(x float64) bool { return x > 1 }
	switch component {
	case "db":
		return kit.Symptom{Expr: "load", Holds: high}, nil
	case "disk":
		return kit.Symptom{Expr: "latency", Holds: high, All: "up", By: []string{"disk"}}, nil
	}
	return kit.Symptom{}, nil
}

func disk(name string, v float64) kit.Sample {
	return kit.Sample{Labels: map[string]string{"disk": name, "job": "x"}, Value: v}
}

func world(load []kit.Sample, latency ...kit.Sample) host {
	return host{own: "disk", Host: &kittest.Host{Vectors: map[string][]kit.Sample{
		"load": load, "latency": latency, "up": {disk("a", 1), disk("b", 1), disk("c", 0)},
	}}}
}

func counted(sick, of int64) value.Value {
	return value.Dict{
		{Key: value.String("sick"), Value: value.Int(sick)},
		{Key: value.String("of"), Value: value.Int(of)},
		{Key: value.String("all"), Value: value.Bool(sick == of)},
	}
}

func TestSick(t *testing.T) {
	t.Parallel()
	fine := []kit.Sample{{Value: 0.5}}
	for _, c := range []struct {
		name string
		h    host
		args kit.Args
		want value.Value
		err  string
	}{
		{"some", world(nil, disk("a", 5), disk("b", 0), disk("c", 0)), nil, counted(1, 3), ""},
		{"all", world(nil, disk("a", 5), disk("b", 5), disk("c", 5)), nil, counted(3, 3), ""},
		{"a part is silent", world(nil, disk("a", 5), disk("b", 5)), nil, nil, `nothing is known of {disk="c"}, which belongs to disk: latency has no number for it`},
		{"silent is sick", world(nil, disk("a", 5), disk("b", 0)), kit.Args{"default": value.Bool(true)}, counted(2, 3), ""},
		{"silent is well", world(nil, disk("a", 5), disk("b", 0)), kit.Args{"default": value.Bool(false)}, counted(1, 3), ""},
		{"no number", world(nil, disk("a", math.NaN()), disk("b", 0), disk("c", 0)), nil, nil, `nothing is known of {disk="a"}`},
		{"no number in one of two series", world(nil, disk("a", math.Inf(1)), disk("a", 0), disk("b", 0), disk("c", 0)), nil, nil, `nothing is known of {disk="a"}`},
		{"two series of a part", world(nil, disk("a", 0), disk("a", 7), disk("b", 0), disk("c", 0)), nil, counted(1, 3), ""},
		{"a stranger", world(nil, disk("a", 0), disk("b", 0), disk("c", 0), disk("d", 9)), nil, nil, `the symptom of disk answers for {disk="d"}, which all does not have`},
		{"of one answer", world(fine), kit.Args{"component": value.String("db")}, counted(0, 1), ""},
		{"of one sick answer", world([]kit.Sample{{Value: 3}}), kit.Args{"component": value.String("db")}, counted(1, 1), ""},
		{"of no answer", world(nil), kit.Args{"component": value.String("db")}, nil, "nothing is known of db: load has no data"},
		{"of no number", world([]kit.Sample{{Value: math.NaN()}}), kit.Args{"component": value.String("db")}, nil, "nothing is known of db: load is NaN"},
		{"of several answers", world([]kit.Sample{{Value: 0}, {Value: 5}}), kit.Args{"component": value.String("db"), "default": value.Bool(false)}, nil, "the symptom of db has 2 answers, and nothing says how many there should be"},
		{"no symptom", world(nil), kit.Args{"component": value.String("web")}, nil, "nothing is known of web: topology.star says no symptom of it"},
		{"no symptom, taken for sick", world(nil), kit.Args{"component": value.String("web"), "default": value.Bool(true)}, counted(1, 1), ""},
		{"no component", host{Host: &kittest.Host{}}, nil, nil, "x has no label"},
	} {
		got, err := kittest.Call(t, topology.Family(), "sick", c.h, c.args)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if d := cmp.Diff(c.want, got); c.err == "" && d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestSickUpstream(t *testing.T) {
	t.Parallel()
	well := []kit.Sample{disk("a", 0), disk("b", 0), disk("c", 0)}
	for _, c := range []struct {
		name string
		h    host
		args kit.Args
		want value.List
		err  string
	}{
		{"none", world([]kit.Sample{{Value: 0}}, well...), nil, value.List{}, ""},
		{"one", world([]kit.Sample{{Value: 2}}, well...), nil, value.List{value.String("db")}, ""},
		{"one is sick and the other unknown", world([]kit.Sample{{Value: 2}}, well[:2]...), nil, nil, `nothing is known of {disk="c"}`},
		{"unknown taken for well", world([]kit.Sample{{Value: 2}}, well[:2]...), kit.Args{"default": value.Bool(false)}, value.List{value.String("db")}, ""},
		{"unknown taken for sick", world([]kit.Sample{{Value: 2}}, well[:2]...), kit.Args{"default": value.Bool(true)}, value.List{value.String("db"), value.String("disk")}, ""},
	} {
		got, err := kittest.Call(t, topology.Family(), "sick_upstream", c.h, c.args)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if d := cmp.Diff(value.Value(c.want), got); c.err == "" && d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	broken := world(nil)
	broken.Err = errors.New("connection refused")
	if _, err := kittest.Call(t, topology.Family(), "sick_upstream", broken, kit.Args{"default": value.Bool(false)}); !errors.Is(err, broken.Err) {
		t.Errorf("a source that cannot be asked is no default: %v", err)
	}
}

func TestAround(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]value.List{"upstream": {value.String("db"), value.String("disk")}, "downstream": {value.String("batch")}} {
		if got, err := kittest.Call(t, topology.Family(), name, world(nil), nil); err != nil || !cmp.Equal(value.Value(want), got) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := kittest.Call(t, topology.Family(), "upstream", &kittest.Host{}, nil); err == nil || !strings.Contains(err.Error(), "not answered here") {
		t.Errorf("%v", err)
	}
}
