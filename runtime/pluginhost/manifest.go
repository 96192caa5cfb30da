package pluginhost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// Manifest implements Host. A bundled plugin's is known; an external one is started only if its file changed.
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
	id, idErr := identity(ext)
	if idErr == nil {
		m, ok = h.cached(name, id)
	}
	if !ok {
		var err error
		if m, err = h.describe(ctx, name); err != nil {
			return sdk.Manifest{}, err
		}
		if idErr == nil {
			h.cache(name, id, m)
		}
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

// The cache holds one file a plugin: the identity of its program, then the manifest. It is read as what it is, a file that
// anything may have happened to: whatever does not fit is not used.

func (h *Plugins) cacheFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(h.config.CacheDir, "manifest-"+hex.EncodeToString(sum[:8]))
}

func (h *Plugins) cached(name, id string) (sdk.Manifest, bool) {
	if h.config.CacheDir == "" {
		return sdk.Manifest{}, false
	}
	data, err := os.ReadFile(h.cacheFile(name))
	if err != nil {
		return sdk.Manifest{}, false
	}
	size := len(header(id, nil))
	if len(data) < size || !bytes.Equal(data[:size], header(id, data[size:])) {
		return sdk.Manifest{}, false
	}
	body := data[size:]
	var pm pluginpb.Manifest
	if err := proto.Unmarshal(body, &pm); err != nil {
		return sdk.Manifest{}, false
	}
	m, err := sdk.DecodeManifest(&pm)
	return m, err == nil
}

// cache keeps a manifest. That it could not be kept costs a start the next time and nothing else.
func (h *Plugins) cache(name, id string, m sdk.Manifest) {
	if h.config.CacheDir == "" {
		return
	}
	pm, err := sdk.EncodeManifest(m)
	if err != nil {
		return
	}
	body, err := proto.Marshal(pm)
	if err != nil {
		return
	}
	_ = os.MkdirAll(h.config.CacheDir, 0o700)
	tmp, err := os.CreateTemp(h.config.CacheDir, "new-")
	if err != nil {
		return
	}
	_, err = tmp.Write(append(header(id, body), body...))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), h.cacheFile(name))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
}

func header(id string, body []byte) []byte {
	sum := sha256.Sum256(body)
	return []byte(id + "\n" + hex.EncodeToString(sum[:]) + "\n")
}

// identity names the very file that would be executed, as it is now, and what it is given.
func identity(e External) (string, error) {
	path, err := filepath.EvalSymlinks(e.Path)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("v1 %q %q %d %d %s", path, e.Args, st.Size(), st.ModTime().UnixNano(), statIdentity(st)), nil
}

var (
	manifestName  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	manifestTypes = []string{"string", "int", "float", "number", "bool", "duration", "list", "dict", "labels", "strings", "any"}
)

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
	if !manifestName.MatchString(m.Name) || slices.Contains(ctxNames, m.Name) {
		return bad("%q cannot be its name", m.Name)
	}
	if err := checkParams(m.Config); err != nil {
		return bad("settings: %v", err)
	}
	seen := map[string]bool{}
	for _, f := range m.Functions {
		switch {
		case !manifestName.MatchString(f.Name) || seen[f.Name]:
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
		if !manifestName.MatchString(pa.Name) || seen[pa.Name] {
			return fmt.Errorf("parameter %q: not a name, or twice", pa.Name)
		}
		if !slices.Contains(manifestTypes, pa.Type) {
			return fmt.Errorf("parameter %s: unknown type %q", pa.Name, pa.Type)
		}
		seen[pa.Name] = true
	}
	return nil
}
