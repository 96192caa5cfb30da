// Package sdk is all that the author of a plugin imports.
//
// A plugin is a program that registers typed functions and serves them:
//
//	type Unit struct {
//		Unit string `rb:"unit,required,positional" doc:"systemd unit name"`
//	}
//
//	func main() {
//		p := sdk.New("systemd", "0.1.0", "Units of systemd.")
//		sdk.QueryFunc(p, "state", "State of a unit.", state)       // func(context.Context, Unit) (State, error)
//		sdk.ActionFunc(p, "restart", "Restart a unit.", restart)   // func(*sdk.Call, Unit) (State, error)
//		p.Main()
//	}
//
// The schema comes from the struct's tags. An action prepares, calls Begin, and only after Begin has returned nil changes
// anything: that is what lets the engine say after any crash whether something may have happened.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Plugin is a set of functions, and how a connection of it is configured.
type Plugin struct {
	manifest  Manifest
	functions map[string]*function
	configure func(ctx context.Context, d value.Dict) error
	ready     atomic.Bool // configured
	errs      []error     // what the author got wrong
}

// function is one registered function. Arguments arrive decoded from the wire and are checked against the schema.
type function struct {
	query func(ctx context.Context, args value.Dict) (value.Value, error)
	act   func(c *Call, args value.Dict) (value.Value, error)
	plan  func(ctx context.Context, t Target, args value.Dict) (Plan, error)
	probe func(ctx context.Context, p Probe, args value.Dict) (ProbeAnswer, error)
}

// Target is what an action changes.
type Target struct {
	Key    string
	Name   string
	Labels map[string]string
}

// New makes a plugin without functions.
func New(name, version, doc string) *Plugin {
	p := &Plugin{manifest: Manifest{Name: name, Version: version, Doc: doc}, functions: map[string]*function{}}
	p.checkName("plugin", name)
	return p
}

// Manifest describes the plugin. An error is a mistake of its author: a type that has no schema, a name used twice.
func (p *Plugin) Manifest() (Manifest, error) {
	m := p.manifest
	m.Functions = slices.Clone(m.Functions)
	return m, errors.Join(p.errs...)
}

// Option is a property of a function.
type Option func(*Function)

// Timeout is how long the function takes at most if the runbook does not say, and how long a runbook may allow.
func Timeout(byDefault, atMost time.Duration) Option {
	return func(f *Function) { f.DefaultTimeout, f.MaxTimeout = byDefault, atMost }
}

// Cooldown is the default time between two starts of an action on the same target.
func Cooldown(d time.Duration) Option { return func(f *Function) { f.DefaultCooldown = d } }

// Settle is how long after its end a measurement means anything.
func Settle(d time.Duration) Option { return func(f *Function) { f.Settle = d } }

// EndsTarget says that the target no longer exists afterwards.
func EndsTarget() Option { return func(f *Function) { f.EndsTarget = true } }

// BlastRadius says how much an action can harm: process, node, service, cluster, external.
func BlastRadius(what string) Option { return func(f *Function) { f.BlastRadius = what } }

// Capabilities name what the function needs: "exec", "net".
func Capabilities(names ...string) Option { return func(f *Function) { f.Capabilities = names } }

// QueryFunc registers a function that reads the world. A and R are structs with rb tags; see the package example. R may be any type that
// has a value: also a slice, a map with text keys, or value.Value.
func QueryFunc[A, R any](p *Plugin, name, doc string, fn func(ctx context.Context, args A) (R, error), opts ...Option) {
	register(p, Query, name, doc, fn, opts)
}

// AnalysisFunc registers a query that is expensive.
func AnalysisFunc[A, R any](p *Plugin, name, doc string, fn func(ctx context.Context, args A) (R, error), opts ...Option) {
	register(p, Analysis, name, doc, fn, opts)
}

func register[A, R any](p *Plugin, k Kind, name, doc string, fn func(context.Context, A) (R, error), opts []Option) {
	f := add[A, R](p, k, name, doc, opts)
	f.query = func(ctx context.Context, d value.Dict) (value.Value, error) {
		a, err := decodeArgs[A](d)
		if err != nil {
			return nil, err
		}
		r, err := fn(ctx, a)
		if err != nil {
			return nil, err
		}
		return toValue(r)
	}
}

// ActionFunc registers a function that changes the world. See Call.Begin for what it owes.
func ActionFunc[A, R any](p *Plugin, name, doc string, fn func(c *Call, args A) (R, error), opts ...Option) {
	f := add[A, R](p, Action, name, doc, opts)
	f.act = func(c *Call, d value.Dict) (value.Value, error) {
		a, err := decodeArgs[A](d)
		if err != nil {
			return nil, err
		}
		r, err := fn(c, a)
		var same *noChangeError
		if err != nil && !errors.As(err, &same) {
			return nil, err
		}
		v, resErr := toValue(r)
		if err == nil && resErr != nil {
			err = &resultError{resErr}
		}
		return v, err
	}
}

// Plan is what an action would do.
type Plan struct {
	NoChange bool
	Changes  []PlannedChange
}

// PlannedChange is one thing that an action would change.
type PlannedChange struct{ What, Before, After string }

// PlanFunc adds a dry run to the action of that name. It has no effect.
func PlanFunc[A any](p *Plugin, action string, fn func(ctx context.Context, t Target, args A) (Plan, error)) {
	f, meta := p.action("PlanFunc", action)
	if f == nil {
		return
	}
	meta.CanPlan = true
	f.plan = func(ctx context.Context, t Target, d value.Dict) (Plan, error) {
		a, err := decodeArgs[A](d)
		if err != nil {
			return Plan{}, err
		}
		return fn(ctx, t, a)
	}
}

// Probe is an action whose outcome is not known.
type Probe struct {
	Target  Target
	Key     string
	Receipt []byte // what Begin was given
}

// ProbeState says what became of an action.
type ProbeState string

// The probe states. The zero one reads as ProbeUnknown.
const (
	ProbeUnknown ProbeState = "unknown"
	ProbeDone    ProbeState = "done"
	ProbeNotDone ProbeState = "not_done" // and it cannot land any more
)

// ProbeAnswer is a probe state and how it is known.
type ProbeAnswer struct {
	State   ProbeState
	Message string
}

// again is how long a probe waits before it believes that nothing has happened: a request that was still on its way has arrived by then.
const again = time.Second

// LookTwice is for a probe that looks at the state of something: what does not show as done is looked at once more a second later, because the request of a
// process that was killed may still be on its way.
func LookTwice(ctx context.Context, look func() (ProbeAnswer, error)) (ProbeAnswer, error) {
	a, err := look()
	if err != nil || a.State == ProbeDone {
		return a, err
	}
	select {
	case <-time.After(again):
	case <-ctx.Done():
		return ProbeAnswer{}, context.Cause(ctx)
	}
	return look()
}

// ProbeFunc adds to the action of that name how to find out later whether it happened. It has no effect.
func ProbeFunc[A any](p *Plugin, action string, fn func(ctx context.Context, pr Probe, args A) (ProbeAnswer, error)) {
	f, meta := p.action("ProbeFunc", action)
	if f == nil {
		return
	}
	meta.CanProbe = true
	f.probe = func(ctx context.Context, pr Probe, d value.Dict) (ProbeAnswer, error) {
		a, err := decodeArgs[A](d)
		if err != nil {
			return ProbeAnswer{}, err
		}
		return fn(ctx, pr, a)
	}
}

// ConfigFunc registers what a connection of this plugin is configured with. fn is called once, before any function.
func ConfigFunc[C any](p *Plugin, fn func(ctx context.Context, c C) error) {
	params, _, err := schema(reflect.TypeFor[C]())
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("config: %w", err))
	}
	p.manifest.Config = params
	p.configure = func(ctx context.Context, d value.Dict) error {
		c, err := decodeArgs[C](d)
		if err != nil {
			return err
		}
		return fn(ctx, c)
	}
}

func add[A, R any](p *Plugin, k Kind, name, doc string, opts []Option) *function {
	p.checkName("function", name)
	f := &function{}
	if p.functions[name] != nil {
		p.errs = append(p.errs, fmt.Errorf("function %s is registered twice", name))
	}
	params, positional, err := schema(reflect.TypeFor[A]())
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("function %s: %w", name, err))
	}
	returns, err := typeName(reflect.TypeFor[R](), nil)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("function %s: result: %w", name, err))
	}
	meta := Function{Name: name, Kind: k, Doc: doc, Params: params, Positional: positional, Returns: returns}
	for _, o := range opts {
		o(&meta)
	}
	p.functions[name] = f
	p.manifest.Functions = append(p.manifest.Functions, meta)
	return f
}

// action finds a registered action and its description.
func (p *Plugin) action(what, name string) (*function, *Function) {
	for i := range p.manifest.Functions {
		if m := &p.manifest.Functions[i]; m.Name == name && m.Kind == Action {
			return p.functions[name], m
		}
	}
	p.errs = append(p.errs, fmt.Errorf("%s: there is no action %s yet", what, name))
	return nil, nil
}

// IsName says whether a name, of a plugin, a function or a parameter, is lower-case letters, digits and _, a letter first. Every plugin's are looked at
// whenever the program starts.
func IsName(s string) bool {
	for i, c := range []byte(s) {
		if letter := 'a' <= c && c <= 'z'; !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

func (p *Plugin) checkName(what, name string) {
	if !IsName(name) {
		p.errs = append(p.errs, fmt.Errorf("%s name %q must be lower-case letters, digits and _", what, name))
	}
}

// ConfigVar is ConfigFunc for a plugin that keeps its settings in a variable.
func ConfigVar[C any](p *Plugin, c *C) {
	ConfigFunc(p, func(_ context.Context, got C) error { *c = got; return nil })
}
