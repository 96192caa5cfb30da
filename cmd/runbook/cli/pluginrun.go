package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
)

type pluginRunResult struct {
	Connection string                     `json:"connection"`
	Function   string                     `json:"function"`
	Value      *value.JSON                `json:"value,omitempty"` // of a query
	NoChange   bool                       `json:"no_change,omitempty"`
	Changes    []pluginhost.PlannedChange `json:"changes,omitempty"` // that an action would make
}

func runPluginRun(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	conn, err := o.connection(c.args[0])
	if err != nil {
		return nil, err
	}
	m, err := o.manifest(conn.Plugin)
	if err != nil {
		return nil, err
	}
	fn, args, err := handArgs(m, c.args[1], c.args[2:])
	if err != nil {
		return nil, err
	}
	labels, err := c.labels()
	if err != nil {
		return nil, err
	}
	config, err := o.settings.Resolve(conn)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "runbook-")
	if err != nil {
		return nil, problem.Wrap(problem.Internal, err, "make a directory for the plugin's socket")
	}
	defer func() { _ = os.RemoveAll(dir) }()
	host, err := o.host(dir)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	at := pluginhost.Connection{Name: conn.Name, Plugin: conn.Plugin, Config: config, Confine: (*pluginhost.Confine)(conn.Confine)}
	r := pluginRunResult{Connection: conn.Name, Function: fn.Name}
	if fn.Kind != sdk.Action {
		v, err := host.Query(ctx, at, fn.Name, args)
		if err != nil {
			return nil, err
		}
		r.Value = &value.JSON{Value: v}
		return r, nil
	}
	target := handTarget(c.String("target"), labels)
	if target.Name == "" {
		return nil, problem.New(problem.Usage, "%s.%s is an action, and its dry run needs a target", m.Name, fn.Name).WithHint("--target NAME, and the labels of the target that matter: --label instance=w3")
	}
	if !fn.CanPlan {
		return nil, problem.New(problem.Usage, "%s.%s is an action without a dry run: by hand it could only be carried out, past every guard", m.Name, fn.Name).
			WithHint(`write a runbook with trigger = manual() that calls it, and start that: runbook run --target %s`, target.Name)
	}
	plan, err := host.Plan(ctx, at, pluginhost.Plan{Function: fn.Name, Args: args, Target: target})
	if err != nil {
		return nil, err
	}
	r.NoChange, r.Changes = plan.NoChange, plan.Changes
	return r, nil
}

func (r pluginRunResult) text(u *ui) {
	switch {
	case r.Value != nil:
		text, err := json.MarshalIndent(*r.Value, "", "  ")
		if err != nil {
			text = []byte(err.Error())
		}
		u.Printf("%s\n", text)
	case r.NoChange:
		u.Printf("it would change nothing\n")
	default:
		u.Printf("it would do this; nothing was done:\n")
		for _, ch := range r.Changes {
			u.Printf("  %s\n", ch.What)
			if ch.Before != "" {
				u.Printf("    is now  %s\n", ch.Before)
			}
			if ch.After != "" {
				u.Printf("    then    %s\n", ch.After)
			}
		}
	}
}

// connection finds a connection of the project by its name.
func (o *opened) connection(name string) (project.Connection, error) {
	all := slices.Concat([]project.Connection{o.settings.Metrics}, o.settings.Alerts, o.settings.Connections)
	var names []string
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return project.Connection{}, problem.New(problem.NotFound, "project.star has no connection %q%s", name, problem.DidYouMean(name, names)).
		WithHint("its connections are: %s", strings.Join(names, ", "))
}

// handArgs finds a function of a plugin and gives what was typed the types of its parameters: text and durations as they are, all else as JSON.
func handArgs(m sdk.Manifest, name string, typed []string) (sdk.Function, value.Dict, error) {
	i := slices.IndexFunc(m.Functions, func(f sdk.Function) bool { return f.Name == name })
	if i < 0 {
		var names []string
		for _, f := range m.Functions {
			names = append(names, f.Name)
		}
		return sdk.Function{}, nil, problem.New(problem.NotFound, "plugin %s has no function %q%s", m.Name, name, problem.DidYouMean(name, names)).
			WithHint("its functions are: %s", strings.Join(names, ", "))
	}
	f := m.Functions[i]
	// As a query: what the engine adds to an action, such as its reason, is not asked for here.
	fn := kit.Function{Name: f.Name, Kind: kit.Query}
	for _, p := range f.Params {
		fn.Params = append(fn.Params, kit.Param{Name: p.Name, Type: kit.Type(p.Type), Required: p.Required, Default: p.Default, Doc: p.Doc})
	}
	given := kit.Args{}
	for _, text := range typed {
		k, v, ok := strings.Cut(text, "=")
		if !ok {
			return f, nil, problem.New(problem.Usage, "%q is not of the form NAME=VALUE", text).WithHint("usage: %s", kit.Usage(m.Name+"."+f.Name, fn))
		}
		if _, twice := given[k]; twice {
			return f, nil, problem.New(problem.Usage, "%s is given twice", k)
		}
		x, err := handValue(fn, k, v)
		if err != nil {
			return f, nil, err
		}
		given[k] = x
	}
	checked, err := kit.Check(fn, given)
	if err != nil {
		return f, nil, err
	}
	var args value.Dict
	for _, p := range f.Params {
		if v, ok := checked[p.Name]; ok && v != nil {
			args = append(args, value.Entry{Key: value.String(p.Name), Value: v})
		}
	}
	return f, args, nil
}

func handValue(fn kit.Function, name, text string) (value.Value, error) {
	for _, p := range fn.Params {
		if p.Name != name || p.Type == kit.StringT || p.Type == kit.Duration {
			continue
		}
		v, err := value.Unmarshal([]byte(text))
		switch {
		case err == nil:
			return v, nil
		case p.Type == kit.Any:
		default:
			return nil, problem.New(problem.Usage, "%s: %q is not of type %s", name, text, p.Type).WithHint(`write it as JSON: '["a", "b"]', '{"a": 1}', 5, true`)
		}
	}
	return value.String(text), nil
}

// handTarget is a target that was named by hand.
func handTarget(name string, labels map[string]string) action.Target {
	if labels == nil {
		labels = map[string]string{}
	}
	return action.Target{Key: name, Name: name, Labels: labels}
}
