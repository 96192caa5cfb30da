package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// What a runbook's own questions find beside the metrics: the records, the topology, and its own memory.
var (
	_ kit.Memory   = asker{}
	_ kit.State    = asker{}
	_ kit.Notifier = asker{}
	_ kit.Topology = asker{}
)

// LastAttempt implements kit.Memory.
func (a asker) LastAttempt(ctx context.Context) (*kit.Attempt, error) {
	var out *kit.Attempt
	var id string
	key := ledger.KeyLast(a.v.target.Key)
	err := a.v.e.Store.View(ctx, []string{ledger.KeyClock, key}, func(tx store.ReadTx) error {
		now, err := ledger.Moment(tx, a.v.e.Sample)
		if err != nil {
			return err
		}
		last, err := ledger.Read[*ledger.Last](tx, key)
		if err == nil && last != nil {
			id = last.ID
			out = &kit.Attempt{State: string(last.State), Age: max(0, now.Trusted-last.EndedAt.Trusted)}
		}
		return err
	})
	if err != nil || out == nil {
		return nil, err
	}
	attempt, steps, err := ledger.Attempt(ctx, a.v.e.Store, id)
	if err != nil {
		return nil, err
	}
	out.Runbook, out.State = attempt.Runbook, string(attempt.State)
	for _, s := range steps {
		out.Actions = append(out.Actions, s.Action)
	}
	return out, nil
}

// LastStarted implements kit.Memory.
func (a asker) LastStarted(ctx context.Context, name string) (age time.Duration, ok bool, err error) {
	key := ledger.KeyCool(name, a.v.target.Key)
	err = a.v.e.Store.View(ctx, []string{ledger.KeyClock, key}, func(tx store.ReadTx) error {
		now, err := ledger.Moment(tx, a.v.e.Sample)
		if err != nil {
			return err
		}
		cool, err := ledger.Read[*ledger.Cool](tx, key)
		if err == nil && cool != nil && cool.StartedAt.Trusted > 0 {
			age, ok = max(0, now.Trusted-cool.StartedAt.Trusted), true
		}
		return err
	})
	return age, ok, err
}

// LastChange implements kit.Memory.
func (a asker) LastChange(ctx context.Context, component string) (out *kit.Change, err error) {
	if component == "" {
		if component, err = a.Component(); err != nil {
			return nil, err
		}
	}
	err = a.v.e.Store.View(ctx, []string{ledger.KeyDeploys}, func(tx store.ReadTx) error {
		c, d, err := ledger.LastChange(tx, component, a.v.e.wall())
		if err == nil && c != nil {
			out = &kit.Change{Component: c.Component, Version: c.Version, Going: d.Going, Started: c.Started, Ended: c.Ended}
		}
		return err
	})
	return out, err
}

// stateKey is where a runbook's memory of a target is kept.
func (a asker) stateKey() string { return ledger.KeyState(a.v.rb.Name, a.v.target.Key) }

// Get implements kit.State.
func (a asker) Get(ctx context.Context, key string) (v value.Value, ok bool, err error) {
	err = a.v.e.Store.View(ctx, []string{a.stateKey()}, func(tx store.ReadTx) error {
		all, err := ledger.Read[map[string]value.JSON](tx, a.stateKey())
		if x, has := all[key]; err == nil && has {
			v, ok = x.Value, true
		}
		return err
	})
	return v, ok, err
}

// maxStateKeys bounds what is remembered about one target.
const maxStateKeys = 32

// Set implements kit.State.
func (a asker) Set(ctx context.Context, key string, v value.Value) error {
	if a.v.e.dry {
		return nil
	}
	return a.v.e.Store.Update(ctx, []string{a.stateKey()}, func(tx store.Tx) error {
		all, err := ledger.Read[map[string]value.JSON](tx, a.stateKey())
		if err != nil {
			return err
		}
		if all == nil {
			all = map[string]value.JSON{}
		}
		if _, forget := v.(value.Null); forget {
			delete(all, key)
		} else {
			all[key] = value.JSON{Value: v}
		}
		if len(all) > maxStateKeys {
			return problem.New(problem.Argument, "state.set: more than %d keys are remembered about %s", maxStateKeys, a.v.target.Name).
				WithHint("set those that are no longer needed to None: %s", fmt.Sprint(slices.Sorted(maps.Keys(all))[:3]))
		}
		return ledger.Write(tx, a.stateKey(), all)
	})
}

// Tell implements kit.Notifier.
func (a asker) Tell(ctx context.Context, text string) error {
	if a.v.e.dry {
		return nil
	}
	return a.v.e.tell(ctx, notify.Notice{
		Runbook: a.v.rb.Name, Target: a.v.target.Key, Episode: a.v.record.Episode, Owner: a.v.rb.Owner, Run: a.v.e.run.ID, At: a.v.e.wall(),
		Kind: notify.Info, Reason: text, Text: text,
	})
}

// Component implements kit.Topology.
func (a asker) Component() (string, error) {
	label := a.v.rb.Policy.WithDefaults().Component
	c := a.v.target.Labels[label]
	if c == "" {
		return "", problem.New(problem.Argument, "%s has no label %q, which names its component", a.v.target.Name, label).
			WithHint("name the component in the call, or the label in project.star: policy(component = ...)")
	}
	return c, nil
}

// Around implements kit.Topology.
func (a asker) Around(component string, down bool) ([]string, error) {
	top := a.v.e.Settings.Topology
	if component != "" {
		return top.Around([]string{component}, nil, down)
	}
	named := top.Named(a.v.target.Labels)
	own, err := a.Component()
	if own != "" {
		return top.Around([]string{own}, named, down)
	}
	if len(named) == 0 {
		return nil, err
	}
	return top.Around(nil, named, down)
}

// Symptom implements kit.Topology.
func (a asker) Symptom(component string) (kit.Symptom, error) {
	c, err := a.v.e.Settings.Topology.Component(component)
	if err != nil || c.Sick.Left == nil {
		return kit.Symptom{}, err
	}
	out := kit.Symptom{
		Expr:  c.Sick.Left.String(),
		Holds: func(x float64) bool { return promexpr.Compare(x, c.Sick.Op, c.Sick.Threshold) },
		By:    c.By,
	}
	if c.All != nil {
		out.All = c.All.String()
	}
	return out, nil
}
