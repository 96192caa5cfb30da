package pluginhost

import (
	"context"
	"fmt"
	"slices"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// Manifest implements Host. That of a bundled or a locked plugin is known; another one is started to ask it.
func (h *Plugins) Manifest(ctx context.Context, name string) (sdk.Manifest, error) {
	if m, ok := h.bundled[name]; ok {
		return m, nil
	}
	h.mu.Lock()
	m, ok := h.manifests[name]
	h.mu.Unlock()
	if ok {
		return m, nil
	}
	ext, known := h.config.External[name]
	if !known {
		return sdk.Manifest{}, h.unknown(name)
	}
	var err error
	if ext.Manifest != nil {
		m = *ext.Manifest
	} else if m, err = h.describe(ctx, name); err != nil {
		return sdk.Manifest{}, err
	}
	if err := CheckManifest(name, m); err != nil {
		return sdk.Manifest{}, err
	}
	h.mu.Lock()
	h.manifests[name] = m
	h.mu.Unlock()
	return m, nil
}

// describe starts a plugin to hear its manifest, and ends it.
func (h *Plugins) describe(ctx context.Context, name string) (sdk.Manifest, error) {
	p := &process{host: h, name: name, stderr: newTail(), ready: make(chan struct{})}
	go p.start()
	defer func() { go p.stop() }()
	select {
	case <-p.ready:
	case <-ctx.Done():
		return sdk.Manifest{}, problem.Wrap(problem.PluginTimeout, ctx.Err(), "plugin %s: describe", name)
	}
	return p.manifest, p.startErr
}

var manifestTypes = []string{"string", "int", "float", "number", "bool", "duration", "list", "dict", "labels", "strings", "any"}

// ctxNames are what ctx has besides families: a plugin of that name could not be reached.
var ctxNames = []string{"now", "target", "params", "attempt", "steps"}

// CheckManifest refuses a manifest that runbooks could not use, or that takes what belongs to the engine.
func CheckManifest(name string, m sdk.Manifest) error {
	bad := func(format string, args ...any) error {
		return problem.New(problem.PluginFailed, "plugin %s: its manifest: %s", name, fmt.Sprintf(format, args...)).
			WithHint("this is a mistake in the plugin: tell its author")
	}
	if m.Name != name {
		return problem.New(problem.PluginFailed, "plugin %s calls itself %q", name, m.Name).
			WithHint("name it %s in project.star, or correct the path", m.Name)
	}
	if !sdk.IsName(m.Name) || slices.Contains(ctxNames, m.Name) {
		return bad("%q cannot be its name", m.Name)
	}
	if err := checkParams(m.Config); err != nil {
		return bad("settings: %v", err)
	}
	seen := map[string]bool{}
	for _, f := range m.Functions {
		switch {
		case !sdk.IsName(f.Name) || seen[f.Name]:
			return bad("function %q: not a name, or twice", f.Name)
		case f.Positional < 0 || f.Positional > 1 || f.Positional > len(f.Params):
			return bad("function %s: %d positional parameters", f.Name, f.Positional)
		case f.Kind != sdk.Query && f.Kind != sdk.Analysis && f.Kind != sdk.Action:
			return bad("function %s: unknown kind %q", f.Name, f.Kind)
		}
		seen[f.Name] = true
		if err := checkParams(f.Params); err != nil {
			return bad("function %s: %v", f.Name, err)
		}
		var reserved []kit.Param
		switch f.Kind {
		case sdk.Analysis:
			reserved = kit.ReservedAnalysisParams()
		case sdk.Action:
			reserved = kit.ReservedActionParams()
		}
		for _, pa := range f.Params {
			if slices.ContainsFunc(reserved, func(r kit.Param) bool { return r.Name == pa.Name }) {
				return bad("%s %s: parameter %q belongs to the engine", f.Kind, f.Name, pa.Name)
			}
		}
	}
	return nil
}

func checkParams(params []sdk.Param) error {
	seen := map[string]bool{}
	for _, pa := range params {
		if !sdk.IsName(pa.Name) || seen[pa.Name] {
			return fmt.Errorf("parameter %q: not a name, or twice", pa.Name)
		}
		if !slices.Contains(manifestTypes, pa.Type) {
			return fmt.Errorf("parameter %s: unknown type %q", pa.Name, pa.Type)
		}
		seen[pa.Name] = true
	}
	return nil
}
