package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
)

func pluginCommand() spec {
	return spec{
		name: "plugin", group: "Maintain", summary: "list, describe, lock, verify and try plugins",
		about: `Some plugins are part of this program. Others are programs that project.star names;
they are started only while their file is the one in runbook.lock. See docs/plugins.md.`,
		example: "runbook plugin list",
		sub: []spec{
			{
				name: "list", summary: "list the plugins that there are", takes: takesProject,
				about:   `The bundled ones, and those that project.star names, with where each comes from.`,
				example: "runbook plugin list",
				run:     runPluginList,
			},
			{
				name: "describe", summary: "show a plugin's settings and functions, and what it may touch", takes: takesProject,
				about: `From this program or from runbook.lock: nothing is started.`,
				args:  "NAME", min: 1, max: 1,
				example: "runbook plugin describe exec",
				run:     runPluginDescribe,
			},
			{
				name: "lock", summary: "write runbook.lock: which file each plugin is, and what it says of itself", takes: takesProject,
				about: `Starts each plugin that project.star names, or only those given, to hear what it
says about itself, and shows what is new. Commit runbook.lock: whoever changes a
plugin changes it too.`,
				args: "[NAME...]", max: many,
				flags:   []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "show what would change; write nothing"}},
				example: "runbook plugin lock --dry-run",
				run:     runPluginLock,
			},
			{
				name: "verify", summary: "say whether each plugin's file is the one that was locked", takes: takesProject,
				about:   `Starts nothing. Exits 3 if a file is another one, is missing, or was never locked.`,
				example: "runbook plugin verify",
				run:     runPluginVerify,
			},
			{
				name: "run", summary: "ask a plugin one question by hand, or show what an action would do", takes: takesProject,
				about: `Starts the plugin of a connection of project.star. A query or analysis is asked;
of an action only the dry run is shown, for --target and --label: acting by hand
would be without guards and records, for which there are runbooks.`,
				args: "CONNECTION FUNCTION [NAME=VALUE...]", min: 2, max: many,
				flags: []cli.Flag{
					&cli.StringFlag{Name: "target", Usage: "the `NAME` of the target of an action"},
					labelFlag(),
				},
				example: "runbook plugin run prometheus instant expr=up",
				run:     runPluginRun,
			},
		},
	}
}

// maybeProject is the project, nil where there is none and none was named: bundled plugins can be looked at anywhere.
func (c *call) maybeProject(ctx context.Context, open func(context.Context) (*opened, error)) (*opened, error) {
	if c.String("project") == "" && c.stdio.env(envProject) == "" {
		if _, err := project.Find("."); err != nil {
			manifests, err := plugins.Manifests()
			return &opened{manifests: manifests, settings: &project.Settings{}}, err
		}
	}
	return open(ctx)
}

// pluginInfo is one plugin of a list.
type pluginInfo struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Doc       string `json:"doc"`
	Bundled   bool   `json:"bundled"`
	Path      string `json:"path,omitempty"`
	SHA256    string `json:"sha256,omitempty"` // that is locked; "" of one that is not bundled: it is not
	Functions int    `json:"functions"`
}

func (o *opened) pluginInfo(m sdk.Manifest) pluginInfo {
	e, external := o.external[m.Name]
	return pluginInfo{
		Name: m.Name, Version: m.Version, Doc: m.Doc, Functions: len(m.Functions), Bundled: !external, Path: e.Path, SHA256: e.SHA256,
	}
}

func (i pluginInfo) where() string {
	switch {
	case i.Bundled:
		return "bundled"
	case i.SHA256 == "":
		return i.Path + ", not locked"
	}
	return i.Path
}

type pluginListResult struct {
	Plugins []pluginInfo `json:"plugins"`
}

// runPluginList also lists what is not locked yet, which keeps every other command from going on.
func runPluginList(ctx context.Context, c *call) (result, error) {
	o, err := c.maybeProject(ctx, c.readProject)
	if err != nil {
		return nil, err
	}
	defer o.close()
	bundled, err := plugins.Manifests()
	if err != nil {
		return nil, err
	}
	r := pluginListResult{}
	for _, m := range bundled {
		r.Plugins = append(r.Plugins, o.pluginInfo(m))
	}
	var lock pluginhost.Lock
	if o.tree != nil {
		if lock, err = readLock(o.tree); err != nil {
			return nil, err
		}
	}
	for _, p := range o.settings.Plugins {
		l := lock[p.Name]
		r.Plugins = append(r.Plugins, pluginInfo{
			Name: p.Name, Version: l.Manifest.Version, Doc: l.Manifest.Doc, Functions: len(l.Manifest.Functions), Path: p.Path, SHA256: l.SHA256,
		})
	}
	return r, nil
}

func (r pluginListResult) text(u *ui) {
	var rows [][]string
	for _, p := range r.Plugins {
		rows = append(rows, []string{p.Name, p.Version, fmt.Sprint(p.Functions), p.where()})
	}
	u.Table([]string{"NAME", "VERSION", "FUNCTIONS", "WHERE"}, rows)
}

type pluginDescription struct {
	pluginInfo
	Config   []sdk.Param    `json:"config"`
	Manifest []sdk.Function `json:"manifest"`
	MayTouch []string       `json:"may_touch"`
	InForce  []inForce      `json:"in_force"` // for each of its connections
}

// inForce is what a connection's process may touch.
type inForce struct {
	Connection string `json:"connection"`
	What       string `json:"what"`
}

func runPluginDescribe(ctx context.Context, c *call) (result, error) {
	o, err := c.maybeProject(ctx, c.openProject)
	if err != nil {
		return nil, err
	}
	defer o.close()
	m, err := o.manifest(c.args[0])
	if err != nil {
		return nil, err
	}
	d := pluginDescription{pluginInfo: o.pluginInfo(m), Config: m.Config, Manifest: m.Functions, MayTouch: mayTouch(m), InForce: []inForce{}}
	for _, c := range o.allConnections() {
		if c.Plugin == m.Name {
			d.InForce = append(d.InForce, inForce{c.Name, (*pluginhost.Confine)(c.Confine).Describe(m)})
		}
	}
	return d, nil
}

// allConnections are those of a project for actions, metrics and alerts; none without a project.
func (o *opened) allConnections() []project.Connection {
	if o.settings == nil {
		return nil
	}
	return slices.Concat([]project.Connection{o.settings.Metrics}, o.settings.Alerts, o.settings.Connections)
}

// capabilities say what a function that declares one may touch.
var capabilities = map[string]string{"exec": "to start programs", "fs": "files", "net": "the network"}

// mayTouch is what the functions of a plugin say they need.
func mayTouch(m sdk.Manifest) []string {
	out := []string{}
	for _, f := range m.Functions {
		for _, name := range f.Capabilities {
			what := capabilities[name]
			if what == "" {
				what = name
			}
			if !slices.Contains(out, what) {
				out = append(out, what)
			}
		}
	}
	return out
}

func (r pluginDescription) text(u *ui) {
	u.Printf("%s %s: %s\n", bold(r.Name), r.Version, r.Doc)
	u.Printf("  from    %s\n", r.where())
	if r.SHA256 != "" {
		u.Printf("  sha256  %s\n", r.SHA256)
	}
	needs := "it does not say"
	if len(r.MayTouch) > 0 {
		needs = strings.Join(r.MayTouch, ", ")
	}
	u.Printf("  needs   %s\n", needs)
	for _, f := range r.InForce {
		u.Printf("  here    connection %s: %s\n", f.Connection, f.What)
	}
	u.Printf("  gets    the settings of its connection; nothing of the environment, no more privileges, no longer life than the run\n")
	if len(r.Config) > 0 {
		u.Printf("\nsettings of a connection\n")
		u.Printf("%s", params(r.Config))
	}
	for _, f := range r.Manifest {
		u.Printf("\n%s %s\n  %s\n", f.Kind, bold(r.Name+"."+f.Name), f.Doc)
		u.Printf("%s", params(f.Params))
		u.Printf("  %s\n", strings.Join(traits(f), "; "))
	}
}

// params lists parameters, one a line.
func params(list []sdk.Param) string {
	var rows [][2]string
	for _, p := range list {
		what := p.Type
		switch {
		case p.Required:
			what += ", required"
		case p.Default != nil:
			what += ", default " + strings.Trim(defaultText(p.Default), "`")
		}
		if p.Sensitive {
			what += ", secret"
		}
		rows = append(rows, [2]string{p.Name, what + ": " + p.Doc})
	}
	var b strings.Builder
	columns(&b, rows)
	return b.String()
}

// traits are what is known of a function besides its parameters.
func traits(f sdk.Function) []string {
	out := []string{"timeout " + orDefault(f.DefaultTimeout, "30s") + ", at most " + orDefault(f.MaxTimeout, "10m")}
	if f.Kind != sdk.Action {
		return out
	}
	if f.DefaultCooldown > 0 {
		out = append(out, "cooldown "+value.FormatDuration(f.DefaultCooldown))
	}
	if f.BlastRadius != "" {
		out = append(out, "may harm "+f.BlastRadius)
	}
	for _, t := range []struct {
		has bool
		yes string
		no  string
	}{
		{f.CanPlan, "has a dry run", "has no dry run"},
		{f.CanProbe, "can tell later whether it happened", "cannot tell later whether it happened"},
		{f.EndsTarget, "the target is gone afterwards", ""},
	} {
		if t.has {
			out = append(out, t.yes)
		} else if t.no != "" {
			out = append(out, t.no)
		}
	}
	return out
}

func orDefault(d time.Duration, otherwise string) string {
	if d == 0 {
		return otherwise
	}
	return value.FormatDuration(d)
}
