package sdktest

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Suite is what Conformance has to know of a plugin.
type Suite struct {
	Argv    []string   // how its program is started
	Config  value.Dict // settings that it accepts
	Queries []Question
	Effects []Effect
}

// Question is a query that it answers.
type Question struct {
	Function string
	Args     value.Dict
}

// Effect is an action that it carries out, and how to see that in the world.
type Effect struct {
	Action
	Happened func() bool // whether the effect is there
	Undo     func()      // takes it away
	// Fresh, after Undo, makes the action one on another object: where its effect ends the object, and where it may come so late that it would be taken for
	// that of the next try. nil: it stays.
	Fresh func(*Action)
}

// undo takes the effect away, and makes the action one of what there is now.
func (e *Effect) undo() {
	e.Undo()
	if e.Fresh != nil {
		e.Fresh(&e.Action)
	}
}

// endWithin is how long a plugin may take to end when it is told to, or when its host has gone: longer, and the host kills it.
const endWithin = 3 * time.Second

// Conformance holds a plugin's program, in whatever language it is written, to what the engine relies on: what it says about itself, what it refuses, and
// above all that nothing happens before it is told to go, that the same key is one effect, and that a probe never says what is not so, wherever
// the program was killed.
func Conformance(t *testing.T, s Suite) {
	t.Run("describe", s.describe)
	t.Run("health", s.health)
	t.Run("configure", s.configure)
	t.Run("unknown", s.unknown)
	t.Run("arguments", s.arguments)
	t.Run("end", s.end)
	for _, q := range s.Queries {
		t.Run("query "+q.Function, func(t *testing.T) {
			if _, err := s.start(t).Query(t.Context(), q.Function, q.Args); err != nil {
				t.Error(err)
			}
		})
	}
	for _, e := range s.Effects {
		t.Run("action "+e.Function, func(t *testing.T) { s.effect(t, e) })
	}
}

// start starts it and gives it its settings.
func (s Suite) start(t *testing.T) *Program {
	t.Helper()
	p := Start(t, s.Argv...)
	if err := p.Configure(s.Config); err != nil {
		t.Fatal(err)
	}
	return p
}

func manifest(t *testing.T, p *Program) sdk.Manifest {
	t.Helper()
	r, err := p.rpc.Describe(t.Context(), &pluginpb.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sdk.DecodeManifest(r.GetManifest())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// It says the same of itself each time, before it has any settings, and everything has a name and a description.
func (s Suite) describe(t *testing.T) {
	first := manifest(t, Start(t, s.Argv...))
	p := s.start(t)
	if again := manifest(t, p); !reflect.DeepEqual(first, again) {
		t.Errorf("it describes itself as\n%+v\nand then, with its settings, as\n%+v", first, again)
	}
	if first.Name == "" || first.Version == "" || first.Doc == "" || len(first.Functions) == 0 {
		t.Errorf("a name, a version, a description or any function is missing: %+v", first)
	}
	for _, f := range first.Functions {
		if f.Name == "" || f.Doc == "" || f.Positional > len(f.Params) {
			t.Errorf("function %q has no name, no description, or more positional parameters than it has parameters", f.Name)
		}
		if f.Kind != sdk.Action && (f.CanPlan || f.CanProbe) {
			t.Errorf("%s is no action and cannot plan or probe", f.Name)
		}
	}
	has := func(name string, kinds ...sdk.Kind) bool {
		return slices.ContainsFunc(first.Functions, func(f sdk.Function) bool { return f.Name == name && slices.Contains(kinds, f.Kind) })
	}
	for _, q := range s.Queries {
		if !has(q.Function, sdk.Query, sdk.Analysis) {
			t.Errorf("it does not describe a query %s", q.Function)
		}
	}
	for _, e := range s.Effects {
		if !has(e.Function, sdk.Action) {
			t.Errorf("it does not describe an action %s", e.Function)
		}
	}
}

// It answers the standard health service, which is how the host knows that it is there.
func (s Suite) health(t *testing.T) {
	p := Start(t, s.Argv...)
	r, err := healthpb.NewHealthClient(p.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "plugin"})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf(`the health of "plugin" is %s, %v; want SERVING`, r.GetStatus(), err)
	}
}

// Settings that it does not know, or that are missing or of another type, are errors and not transport errors.
func (s Suite) configure(t *testing.T) {
	refuses := func(what string, config value.Dict) {
		t.Helper()
		err := Start(t, s.Argv...).Configure(config)
		if err == nil {
			t.Errorf("settings with %s are accepted", what)
		}
		notTransport(t, "Configure", err)
	}
	refuses("one that it does not have", append(slices.Clone(s.Config), value.Entry{Key: value.String("no_such_setting"), Value: value.Int(1)}))
	for _, param := range manifest(t, Start(t, s.Argv...)).Config {
		without := slices.DeleteFunc(slices.Clone(s.Config), func(e value.Entry) bool { return e.Key == value.String(param.Name) })
		if param.Required {
			refuses("no "+param.Name, without)
		}
		refuses("a "+param.Name+" of a type that no setting has", append(without, value.Entry{Key: value.String(param.Name), Value: value.List{value.Null{}}}))
	}
}

// What it does not have is an error that says so, and the program goes on.
func (s Suite) unknown(t *testing.T) {
	p := s.start(t)
	const name = "no_such_function"
	if _, err := p.Query(t.Context(), name, nil); err == nil {
		t.Error("a query that it does not have is answered")
	} else {
		notTransport(t, "Query", err)
	}
	if o := p.Act(Action{Function: name, Key: "unknown"}); o.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || o.Started {
		t.Errorf("an action that it does not have: %+v", o)
	}
	_, err := p.Plan(Action{Function: name})
	notTransport(t, "Plan", err)
	_, err = p.Probe(Action{Function: name, Key: "unknown"}, nil)
	notTransport(t, "Probe", err)
	_ = manifest(t, p)
}

// An argument that is missing, that it does not have or that is of another type is refused, before anything has started; and a large one is not too
// large.
func (s Suite) arguments(t *testing.T) {
	p := s.start(t)
	refuses := func(f sdk.Function, what string, args value.Dict) {
		t.Helper()
		if f.Kind == sdk.Action {
			if o := p.Act(Action{Function: f.Name, Args: args, Key: "arguments"}); o.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || o.Started {
				t.Errorf("%s with %s: %+v", f.Name, what, o)
			}
			return
		}
		_, err := p.Query(t.Context(), f.Name, args)
		if err == nil {
			t.Errorf("%s is answered with %s", f.Name, what)
		}
		notTransport(t, f.Name, err)
	}
	good := map[string]value.Dict{}
	for _, q := range s.Queries {
		good[q.Function] = q.Args
	}
	for _, e := range s.Effects {
		good[e.Function] = e.Args
	}
	for _, f := range manifest(t, p).Functions {
		args, ok := good[f.Name]
		if !ok {
			t.Errorf("the suite has no call of %s", f.Name)
			continue
		}
		refuses(f, "an argument that it does not have", append(slices.Clone(args), value.Entry{Key: value.String("no_such_argument"), Value: value.String(strings.Repeat("x", 8<<20))}))
		for _, param := range f.Params {
			without := slices.DeleteFunc(slices.Clone(args), func(e value.Entry) bool { return e.Key == value.String(param.Name) })
			if param.Required {
				refuses(f, "no "+param.Name, without)
			}
			refuses(f, "a "+param.Name+" of another type", append(without, value.Entry{Key: value.String(param.Name), Value: value.List{value.Null{}}}))
		}
	}
}

// It ends when it is told to, and when its host has gone.
func (s Suite) end(t *testing.T) {
	p := s.start(t)
	p.Terminate()
	if !p.Ended(endWithin) {
		t.Errorf("it has not ended %s after SIGTERM", endWithin)
	}
	p = s.start(t)
	p.LoseHost()
	if !p.Ended(endWithin) {
		t.Errorf("it has not ended %s after the end of its standard input", endWithin)
	}
}

// effect is everything about one action.
func (s Suite) effect(t *testing.T, e Effect) {
	p := s.start(t)
	i := slices.IndexFunc(manifest(t, p).Functions, func(f sdk.Function) bool { return f.Name == e.Function })
	if i < 0 {
		t.Fatalf("it does not describe an action %s", e.Function)
	}
	f := manifest(t, p).Functions[i]
	is := func(when string, want bool) {
		t.Helper()
		if got := e.Happened(); got != want {
			t.Fatalf("%s the effect is there: %v, want %v", when, got, want)
		}
	}
	e.undo()
	is("before anything", false)

	_, err := p.Plan(e.Action)
	if f.CanPlan != (err == nil) {
		t.Errorf("it says can_plan = %v, and a plan gives %v", f.CanPlan, err)
	}
	notTransport(t, "Plan", err)
	is("after a plan", false)

	no := e.Action
	no.Decline, no.Key = true, e.Key+"-declined"
	if o := p.Act(no); !o.Started || !o.Declined || o.Acting {
		t.Errorf("told not to act: %+v", o)
	}
	is("after it was told not to act", false)
	s.probe(t, e, f, no.Key, nil, pluginpb.ProbeState_PROBE_STATE_DONE)

	// Killed after it is ready and before it is told to go: nothing has happened, and nobody says that it has.
	early := e.Action
	early.Key += "-early"
	receipt := p.Ready(early)
	is("before it is told to go", false)
	p.Kill()
	is("when it was killed before it was told to go", false)
	s.probe(t, e, f, early.Key, receipt, pluginpb.ProbeState_PROBE_STATE_DONE)

	p = s.start(t)
	o := p.Act(e.Action)
	if !o.Started || !o.Acting || o.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("told to act: %+v", o)
	}
	is("after it has acted", true)
	p.Kill()
	is("when it was killed afterwards", true)
	s.probe(t, e, f, e.Key, o.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)

	// The same key again is the same action, which has been carried out.
	p = s.start(t)
	if o := p.Act(e.Action); o.Outcome != pluginpb.Outcome_OUTCOME_NO_CHANGE && o.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
		t.Errorf("the same key again: %+v", o)
	}
	is("after the same key again", true)
	e.Undo()
}

// probe asks a new process what became of an action; never may the answer be wrong.
func (s Suite) probe(t *testing.T, e Effect, f sdk.Function, key string, receipt []byte, wrong pluginpb.ProbeState) {
	t.Helper()
	a := e.Action
	a.Key = key
	r, err := s.start(t).Probe(a, receipt)
	notTransport(t, "Probe", err)
	if f.CanProbe && err != nil {
		t.Errorf("it says that it can probe, and a probe gives %v", err)
	}
	if known := r.GetState() == pluginpb.ProbeState_PROBE_STATE_DONE || r.GetState() == pluginpb.ProbeState_PROBE_STATE_NOT_DONE; known && !f.CanProbe {
		t.Errorf("it says that it cannot probe, and a probe gives %s", r.GetState())
	}
	if r.GetState() == wrong {
		t.Errorf("a probe says %s (%s), which is not so", r.GetState(), r.GetMessage())
	}
}

// notTransport fails if an error is gRPC's own: what a plugin has to say travels in its answers, and a status of the transport is a broken plugin.
func notTransport(t *testing.T, what string, err error) {
	t.Helper()
	if _, transport := status.FromError(err); err != nil && transport {
		t.Errorf("%s ends with a status of gRPC instead of an answer: %v", what, err)
	}
}
