package cli

import (
	"context"
	"crypto/rand"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/control"
)

// selectorFlags are how a control is told what it is about.
func selectorFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "runbook", Usage: "this `RUNBOOK`"},
		&cli.StringFlag{Name: "action", Usage: "this `ACTION`, such as exec.run"},
		&cli.StringFlag{Name: "target", Usage: "this `TARGET`, by name or key"},
		labelFlag(),
	}
}

func labelFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "label", Usage: "targets with this label, `NAME=VALUE`; again for more, all must agree"}
}

// selector reads those flags. It checks names that can be checked, because a control that is misspelt would look as if it held.
func (c *call) selector(ctx context.Context) (control.Selector, error) {
	s := control.Selector{Action: c.String("action"), Target: c.String("target")}
	s.Runbook = strings.TrimSuffix(c.String("runbook"), ".star")
	var err error
	if s.Labels, err = c.labels(); err != nil {
		return s, err
	}
	if s.Action != "" {
		if err := c.knownAction(ctx, s.Action); err != nil {
			return s, err
		}
	}
	if s.Runbook != "" {
		name, err := c.knownRunbook(ctx, s.Runbook)
		if err != nil {
			return s, err
		}
		s.Runbook = name
	}
	return s, nil
}

// labels reads --label, nil if there is none.
func (c *call) labels() (map[string]string, error) {
	var out map[string]string
	for _, text := range c.StringSlice("label") {
		k, v, ok := strings.Cut(text, "=")
		if !ok {
			return nil, problem.New(problem.Usage, "--label %q is not of the form NAME=VALUE", text).WithHint("--label customer=acme")
		}
		if out == nil {
			out = map[string]string{}
		}
		if old, twice := out[k]; twice && old != v {
			return nil, problem.New(problem.Usage, "--label %s is given twice: a target has one value of it", k)
		}
		out[k] = v
	}
	return out, nil
}

// knownAction says whether there is such an action: of the bundled plugins and, where the project can be read, of its own.
func (c *call) knownAction(ctx context.Context, name string) error {
	manifests, err := plugins.Manifests()
	if err != nil {
		return err
	}
	if o, err := c.openProject(ctx); err == nil {
		manifests = o.manifests
		o.close()
	}
	var known []string
	for _, m := range manifests {
		for _, f := range m.Functions {
			if f.Kind != sdk.Query {
				known = append(known, m.Name+"."+f.Name)
			}
		}
	}
	if slices.Contains(known, name) {
		return nil
	}
	return problem.New(problem.Usage, "there is no action %q%s", name, problem.DidYouMean(name, known)).WithHint("the actions are: %s", strings.Join(known, ", "))
}

// knownRunbook is the name of a runbook of the project. Without a project that can be read the name is taken as it is, with a warning.
func (c *call) knownRunbook(ctx context.Context, name string) (string, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		c.ui.Warn("%v; whether there is a runbook %q is not checked", err, name)
		return name, nil
	}
	defer o.close()
	paths, err := o.settings.Runbooks(o.tree, []string{name})
	if err != nil {
		return "", err
	}
	if len(paths) != 1 {
		return "", problem.New(problem.Usage, "%s is not one runbook: it has %s", name, strings.Join(paths, ", ")).WithHint("name one")
	}
	return strings.TrimSuffix(paths[0], ".star"), nil
}

// until reads --for and --until: when a control ends by itself, zero if it does not.
func (c *call) until() (time.Time, error) {
	length, text := c.Duration("for"), c.String("until")
	now := c.stdio.Now().UTC()
	switch {
	case length > 0 && text != "":
		return time.Time{}, problem.New(problem.Usage, "--for and --until are both given").WithHint("give one of them")
	case length > 0:
		return now.Add(length), nil
	case text == "":
		return time.Time{}, nil
	}
	t, err := control.ParseMoment(text, "UTC")
	if err == nil && !t.After(now) {
		err = problem.New(problem.Usage, "--until %s has passed already", clockTime(t))
	}
	return t, err
}

func untilFlags(what string) []cli.Flag {
	return []cli.Flag{
		durationFlag("for", what+" by itself after this `DURATION`; default: when a person does"),
		&cli.StringFlag{Name: "until", Usage: "the same, at this `TIME`: 2026-12-20T22:00:00Z"},
	}
}

var controlName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) })

// controlName is --name, or a new one: short, and never used before, so that an old terminal cannot lift somebody else's.
func (c *call) controlName(prefix string) (string, error) {
	name := c.String("name")
	if name == "" {
		return prefix + "-" + strings.ToLower(rand.Text()[:5]), nil
	}
	if !controlName().MatchString(name) {
		return "", problem.New(problem.Usage, "--name %q: use letters, digits, dot, dash and underscore", name)
	}
	return name, nil
}

// withStore opens the state directory and its store for one command.
func (c *call) withStore(ctx context.Context, command string, fn func(st auditedStore) error) error {
	state, err := c.openState(ctx)
	if err != nil {
		return err
	}
	st, err := c.openStore(state, command)
	if err != nil {
		return err
	}
	defer st.Close()
	return fn(st)
}

// ends says when a control ends, for people.
func ends(until time.Time, lift string) string {
	if until.IsZero() {
		return "a person lifts it: " + lift
	}
	return clockTime(until) + ", or: " + lift
}
