package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// Controls are what persons have set and not lifted: one small document, so that every decision reads them whole.
type Controls struct {
	V        int               `json:"v"` // 1
	Disables []control.Disable `json:"disables,omitempty"`
	Windows  []control.Window  `json:"windows,omitempty"`
}

// ControlEvent is one control that was set or lifted, for the record.
type ControlEvent struct {
	What   string           `json:"what"` // "disable", "enable", "maintenance add", "maintenance remove"
	Name   string           `json:"name"`
	Covers control.Selector `json:"covers"`
	By     string           `json:"by"`
	At     time.Time        `json:"at"`
	Reason string           `json:"reason,omitempty"`
	Until  time.Time        `json:"until,omitzero"`
}

func keyControl(ev ControlEvent) string { return "control/" + stamp(ev.At) + "-" + ev.Name }

// maxControls bounds the document that every decision reads.
const maxControls = 1000

// ReadControls reads what is set; KeyControls is read.
func ReadControls(tx store.ReadTx) (Controls, error) {
	c, err := Read[Controls](tx, KeyControls)
	if err == nil && c.V > 1 {
		err = problem.New(problem.StateUnusable, "the controls were written by a newer version (format %d, this one knows 1)", c.V).
			WithHint("use the newer runbook binary that wrote them")
	}
	return c, err
}

// change applies fn to the controls and records what was done. What has ended by itself is dropped.
func change(ctx context.Context, st store.Store, now Clock, fn func(c *Controls, at time.Time) (ControlEvent, error)) error {
	return st.Update(ctx, []string{KeyClock, KeyControls}, func(tx store.Tx) error {
		moment, err := Tick(tx, now)
		if err != nil {
			return err
		}
		c, err := ReadControls(tx)
		if err != nil {
			return err
		}
		at := moment.Wall
		c.V = 1
		c.Disables = slices.DeleteFunc(c.Disables, func(d control.Disable) bool { return !d.Live(at) })
		c.Windows = slices.DeleteFunc(c.Windows, func(w control.Window) bool { return w.Over(at) })
		ev, err := fn(&c, at)
		if err != nil {
			return err
		}
		if len(c.Disables)+len(c.Windows) > maxControls {
			return problem.New(problem.Refused, "there are %d controls, more than fit", len(c.Disables)+len(c.Windows)).WithHint("lift those that are no longer needed: runbook status")
		}
		ev.At = at
		if err := Write(tx, keyControl(ev), ev); err != nil {
			return err
		}
		store.Mark(tx)
		return Write(tx, KeyControls, c)
	})
}

// Disable sets one; a name that is taken is an error, so that nobody replaces another person's.
func Disable(ctx context.Context, st store.Store, now Clock, d control.Disable) (control.Disable, error) {
	err := change(ctx, st, now, func(c *Controls, at time.Time) (ControlEvent, error) {
		for _, o := range c.Disables {
			if o.Name == d.Name {
				return ControlEvent{}, taken("disable", o.Name, o.By)
			}
		}
		d.At = at
		c.Disables = append(c.Disables, d)
		return ControlEvent{What: "disable", Name: d.Name, Covers: d.Selector, By: d.By, Reason: d.Reason, Until: d.Until}, nil
	})
	return d, err
}

func taken(what, name, by string) error {
	return problem.New(problem.Usage, "there is a %s with the name %q already, by %s", what, name, by).WithHint("give another --name: they stack")
}

// Enable lifts the disable of that name and returns it. still are those that cover the same all the same.
func Enable(ctx context.Context, st store.Store, now Clock, name, by, reason string) (lifted control.Disable, still []control.Disable, err error) {
	err = change(ctx, st, now, func(c *Controls, _ time.Time) (ControlEvent, error) {
		i := slices.IndexFunc(c.Disables, func(d control.Disable) bool { return d.Name == name })
		if i < 0 {
			return ControlEvent{}, none("disable", name, names(c.Disables, func(d control.Disable) string { return d.Name }))
		}
		lifted = c.Disables[i]
		c.Disables = slices.Delete(c.Disables, i, i+1)
		still = nil
		for _, d := range c.Disables {
			if d.Same(lifted.Selector) {
				still = append(still, d)
			}
		}
		return ControlEvent{What: "enable", Name: name, Covers: lifted.Selector, By: by, Reason: reason}, nil
	})
	return lifted, still, err
}

// AddWindow sets a maintenance window.
func AddWindow(ctx context.Context, st store.Store, now Clock, w control.Window) (control.Window, error) {
	err := change(ctx, st, now, func(c *Controls, at time.Time) (ControlEvent, error) {
		for _, o := range c.Windows {
			if o.Name == w.Name {
				return ControlEvent{}, taken("maintenance window", o.Name, o.By)
			}
		}
		if w.Over(at) {
			return ControlEvent{}, problem.New(problem.Usage, "the window is over already: it ends %s", w.End.Format(time.RFC3339))
		}
		w.Made = at
		c.Windows = append(c.Windows, w)
		return ControlEvent{What: "maintenance add", Name: w.Name, Covers: w.Selector, By: w.By, Reason: w.Reason, Until: w.End}, nil
	})
	return w, err
}

// RemoveWindow takes a maintenance window away and returns it.
func RemoveWindow(ctx context.Context, st store.Store, now Clock, name, by, reason string) (control.Window, error) {
	var gone control.Window
	err := change(ctx, st, now, func(c *Controls, _ time.Time) (ControlEvent, error) {
		i := slices.IndexFunc(c.Windows, func(w control.Window) bool { return w.Name == name })
		if i < 0 {
			return ControlEvent{}, none("maintenance window", name, names(c.Windows, func(w control.Window) string { return w.Name }))
		}
		gone = c.Windows[i]
		c.Windows = slices.Delete(c.Windows, i, i+1)
		return ControlEvent{What: "maintenance remove", Name: name, Covers: gone.Selector, By: by, Reason: reason}, nil
	})
	return gone, err
}

func names[T any](all []T, name func(T) string) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = name(x)
	}
	return out
}

func none(what, name string, known []string) error {
	p := problem.New(problem.NotFound, "there is no %s %q%s", what, name, problem.DidYouMean(name, known))
	if len(known) == 0 {
		return p.WithHint("none is set")
	}
	return p.WithHint("those that are set are in: runbook status")
}

// ListControls reads them outside a decision, with what has ended left out.
func ListControls(ctx context.Context, st store.Store, now time.Time) (Controls, error) {
	var c Controls
	err := st.View(ctx, []string{KeyControls}, func(tx store.ReadTx) (err error) {
		c, err = ReadControls(tx)
		return err
	})
	c.Disables = slices.DeleteFunc(c.Disables, func(d control.Disable) bool { return !d.Live(now) })
	c.Windows = slices.DeleteFunc(c.Windows, func(w control.Window) bool { return w.Over(now) })
	if err != nil {
		return c, fmt.Errorf("read the controls: %w", err)
	}
	return c, nil
}
