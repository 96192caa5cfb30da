package project

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// TopologyFile is the name of the file at the root of a project that says which component needs which.
const TopologyFile = "topology.star"

// Topology is which component needs which. The zero Topology has none.
type Topology struct {
	components []Component // in the order of the file
	label      string      // of a target: the components that it needs itself; empty if none says so
}

// Component is a part of the whole, such as a service or a database.
type Component struct {
	Name  string
	Needs []string
	Sick  promexpr.Symptom // without Left if nothing says when it is sick
	All   *promexpr.Expr   // its parts; nil if Sick has one answer for all of it
	By    []string         // the labels that tell its parts apart
	Pos   value.Pos
}

// TopologyFamilies is the vocabulary of topology.star.
func TopologyFamilies() []kit.Family {
	return []kit.Family{{Doc: "Which component needs which, in topology.star at the project's root.", Functions: []kit.Function{
		{
			Name: "component", Kind: kit.Declare, Positional: 1, Doc: "Declares a component: what it needs, and when it is sick.",
			Params: []kit.Param{
				{Name: "name", Type: kit.StringT, Required: true, Doc: "its name, which is the value of the label component of its targets"},
				{Name: "needs", Type: kit.Strings, Doc: "the components that it needs to work; none if not given"},
				{Name: "sick", Type: kit.StringT, Doc: "PromQL that compares a query with a number at its root; nothing is known of it if not given"},
				{Name: "all", Type: kit.StringT, Doc: "PromQL: its parts, each of which must be known; without it sick must have one answer, such as that of max(...)"},
				{Name: "by", Type: kit.Strings, Doc: "with all, the label or labels that tell its parts apart"},
			},
		},
		{
			Name: "needs_label", Kind: kit.Declare, Positional: 1, Doc: "Names a label of targets whose value is the components, separated by commas, that this one target needs besides those of its component.",
			Params: []kit.Param{{Name: "label", Type: kit.StringT, Required: true, Doc: "the label, such as storage"}},
		},
	}}}
}

// loadTopology reads topology.star, if there is one.
func loadTopology(ctx context.Context, w sandbox.Worker, t *Tree) (Topology, []sandbox.File, error) {
	if _, err := t.root.Stat(TopologyFile); errors.Is(err, fs.ErrNotExist) {
		return Topology{}, nil, nil
	}
	vocab := Vocabulary(TopologyFamilies())
	m, err := w.Load(ctx, TopologyFile, vocab, t)
	if err != nil {
		return Topology{}, nil, err
	}
	d := &decoder{code: problem.Project, lookup: declaration(vocab)}
	var out Topology
	for _, r := range m.Records {
		f := d.record(r)
		if d.err != nil {
			return Topology{}, nil, d.err
		}
		if r.Type == "needs_label" {
			if out.label != "" {
				f.fail("label", "the label %q says already what a target needs", out.label)
			}
			out.label = f.words("label")
			continue
		}
		c := Component{Name: f.words("name"), Needs: f.strings("needs"), By: f.strings("by"), Pos: r.Pos}
		if f.has("sick") {
			if e := f.query("sick", nil); e != nil {
				if c.Sick, err = e.Symptom(); err != nil {
					f.keepQuery("sick", err)
				}
			}
		}
		if f.has("all") {
			c.All = f.query("all", nil)
		}
		switch {
		case f.has("all") && (!f.has("by") || !f.has("sick")):
			f.fail("all", "goes with by, the labels that tell the parts apart, and with sick, when one of them is")
		case f.has("by") && !f.has("all"):
			f.fail("by", "tells parts apart, and there are none without all")
		}
		if slices.ContainsFunc(out.components, func(o Component) bool { return o.Name == c.Name }) {
			f.fail("name", "%q is declared twice", c.Name)
		}
		out.components = append(out.components, c)
	}
	for _, c := range out.components {
		for _, need := range c.Needs {
			if _, err := out.Component(need); err != nil && d.err == nil {
				d.fail(c.Pos, "component %q needs %q, which is not declared%s", c.Name, need, problem.DidYouMean(need, out.names()))
			}
		}
		if chain := out.cycle(c.Name); chain != nil && d.err == nil {
			d.fail(c.Pos, "components need each other: %s", strings.Join(chain, " -> "))
		}
	}
	return out, m.Closure, d.err
}

func (t Topology) names() []string {
	out := make([]string, len(t.components))
	for i, c := range t.components {
		out[i] = c.Name
	}
	return out
}

// Components are all of them, in the order in which they are declared.
func (t Topology) Components() []Component { return t.components }

// Component is the component of that name.
func (t Topology) Component(name string) (Component, error) {
	for _, c := range t.components {
		if c.Name == name {
			return c, nil
		}
	}
	if len(t.components) == 0 {
		return Component{}, problem.New(problem.Project, "there is no %s, which says what components there are", TopologyFile).
			WithHint(`write it at the project's root: component("web", needs = ["db"], sick = "...")`)
	}
	return Component{}, problem.New(problem.NotFound, "%s has no component %q%s", TopologyFile, name, problem.DidYouMean(name, t.names()))
}

// Named are the components that a target's own label says that it needs.
func (t Topology) Named(labels map[string]string) []string {
	var out []string
	for name := range strings.SplitSeq(labels[t.label], ",") {
		if name = strings.TrimSpace(name); t.label != "" && name != "" {
			out = append(out, name)
		}
	}
	return out
}

// Around are the components that those of start need, or that need them with down, directly and through others, the nearest first, in the order of
// the file. Those of start are not among them. What is needed besides, by one target, is near as well if it is not down.
func (t Topology) Around(start, needed []string, down bool) ([]string, error) {
	for _, name := range slices.Concat(start, needed) {
		if _, err := t.Component(name); err != nil {
			return nil, err
		}
	}
	var out []string
	if down {
		needed = nil
	}
	for near := start; len(near)+len(needed) > 0; needed = nil {
		var next []string
		for _, c := range t.components {
			found := slices.Contains(needed, c.Name)
			for _, n := range near {
				of, _ := t.Component(n)
				found = found || down && slices.Contains(c.Needs, n) || !down && slices.Contains(of.Needs, c.Name)
			}
			if found && !slices.Contains(start, c.Name) && !slices.Contains(out, c.Name) {
				out, next = append(out, c.Name), append(next, c.Name)
			}
		}
		near = next
	}
	return out, nil
}

// cycle is a way from a component back to itself, nil if there is none.
func (t Topology) cycle(name string) []string {
	var walk func(at string, way []string) []string
	walk = func(at string, way []string) []string {
		c, _ := t.Component(at)
		for _, need := range c.Needs {
			if need == name {
				return append(way, name)
			}
			if !slices.Contains(way, need) {
				if found := walk(need, append(slices.Clone(way), need)); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return walk(name, []string{name})
}
