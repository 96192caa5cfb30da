package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/builtins"
	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/audit"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/engine"
	"github.com/seed1de3961f/runbook/runtime/heartbeat"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
	"github.com/seed1de3961f/runbook/runtime/sandbox/declared"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// opened is a project that was read: its files and settings, and a way to start workers.
type opened struct {
	tree      *project.Tree
	settings  *project.Settings
	manifests []sdk.Manifest                 // of all plugins
	bundled   []sdk.Manifest                 // of those that are part of this program
	external  map[string]pluginhost.External // the others, as they are locked
	families  []kit.Family
	exe       string
	memory    *declared.Memory // of what files declare
	mu        sync.Mutex       // over worker
	worker    sandbox.Worker   // the one that read project.star, nil once it has been handed on
	ahead     *auditedStore    // that is being opened, nil if none is or once it has been handed on
}

// openProject reads project.star, and knows the plugins that it names.
func (c *call) openProject(ctx context.Context) (*opened, error) {
	tree, err := c.findTree()
	if err != nil {
		return nil, err
	}
	return c.openTree(ctx, tree)
}

// openTree is openProject of a tree of files.
func (c *call) openTree(ctx context.Context, tree *project.Tree) (*opened, error) {
	var bundled []sdk.Manifest
	g := errgroup.Group{}
	g.Go(func() (err error) {
		bundled, err = plugins.Manifests()
		return err
	})
	o, err := c.readTree(ctx, tree)
	if failed := g.Wait(); err == nil && failed != nil {
		o.close()
		err = failed
	}
	if err != nil {
		return nil, err
	}
	if err := o.addPlugins(bundled); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// readProject reads project.star, for what needs no plugin.
func (c *call) readProject(ctx context.Context) (*opened, error) {
	tree, err := c.findTree()
	if err != nil {
		return nil, err
	}
	return c.readTree(ctx, tree)
}

// findTree finds the files of the project.
func (c *call) findTree() (*project.Tree, error) {
	root, err := project.Find(c.projectDir())
	if err != nil {
		return nil, err
	}
	return project.Open(root)
}

func (c *call) readTree(ctx context.Context, tree *project.Tree) (*opened, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, problem.Wrap(problem.Internal, err, "find this program's own file")
	}
	o := &opened{tree: tree, exe: exe}
	state, err := c.givenState()
	if err != nil {
		return nil, err
	}
	likely, err := c.likelyState(tree)
	if err != nil {
		return nil, err
	}
	o.memory = declared.Open(remembered(likely), exe)
	o.worker = o.memory.Worker(sandbox.Limits{}, sandbox.Spawner{Exe: exe}.Start)
	if o.settings, err = project.LoadSettings(ctx, o.worker, tree); err != nil {
		o.close()
		return nil, err
	}
	o.settings.Env = c.stdio.Env
	if state != "" {
		o.settings.StateDir = state
	}
	if o.settings.StateDir != likely {
		o.memory = declared.Open(remembered(o.settings.StateDir), exe)
	}
	return o, nil
}

// addPlugins adds what is known of the plugins, without starting one.
func (o *opened) addPlugins(bundled []sdk.Manifest) error {
	o.bundled, o.manifests = bundled, slices.Clone(bundled)
	if len(o.settings.Plugins) > 0 {
		lock, err := readLock(o.tree)
		if err != nil {
			return err
		}
		o.external = map[string]pluginhost.External{}
		for _, p := range o.settings.Plugins {
			if err := checkPluginName(p, o.bundled); err != nil {
				return err
			}
			locked, ok := lock[p.Name]
			if !ok {
				return pluginhost.Unlocked(p.Name).At(p.Pos)
			}
			o.external[p.Name] = pluginhost.External{Path: p.Path, SHA256: locked.SHA256, Manifest: &locked.Manifest}
			o.manifests = append(o.manifests, locked.Manifest)
		}
	}
	if err := o.settings.CheckConnections(o.manifest, names(o.manifests)); err != nil {
		return err
	}
	generated, err := pluginhost.Families(o.manifests)
	if err != nil {
		return err
	}
	o.families = append(builtins.All(), generated...)
	return nil
}

// checkPluginName refuses a plugin that would stand in the way of what runbooks know by that name.
func checkPluginName(p project.Plugin, bundled []sdk.Manifest) error {
	taken := names(bundled)
	for _, f := range builtins.All() {
		taken = append(taken, f.Name)
	}
	if slices.Contains(taken, p.Name) {
		return problem.New(problem.Project, "plugin %q: runbooks know something else by that name", p.Name).At(p.Pos).
			WithHint("a plugin cannot be called: %s", strings.Join(taken, ", "))
	}
	return nil
}

// host makes the host of the plugins, with its sockets in a directory.
func (o *opened) host(runDir string) (*pluginhost.Plugins, error) {
	return pluginhost.New(pluginhost.Config{Exe: o.exe, RunDir: runDir, Bundled: o.bundled, External: o.external})
}

// remembered is where it is kept what files declare.
func remembered(state string) string { return filepath.Join(state, "cache", "declared") }

// spawn makes a worker under the project's limits. The one that read project.star is used first, if its limits are the same.
func (o *opened) spawn(context.Context) (sandbox.Worker, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.worker; w != nil && !w.Dead() && o.settings.Limits == (sandbox.Limits{}) {
		o.worker = nil
		return w, nil
	}
	return o.memory.Worker(o.settings.Limits, sandbox.Spawner{Exe: o.exe, Limits: o.settings.Limits}.Start), nil
}

// store is the store of its state directory: the one that is being opened, if it is that.
func (o *opened) store(c *call, config pebble.Config) (auditedStore, error) {
	if st := o.ahead; st != nil && config.Writer && st.Dir() == config.Dir {
		o.ahead = nil
		return *st, nil
	}
	return c.openStoreAs(config)
}

func (o *opened) close() {
	if o.ahead != nil {
		_ = o.ahead.Close()
	}
	if o.worker != nil {
		o.worker.Close()
	}
}

// openState finds the state directory: --state, $RUNBOOK_STATE, or what project.star says.
func (c *call) openState(ctx context.Context) (control.State, error) {
	dir, err := c.givenState()
	if err != nil {
		return control.State{}, err
	}
	if dir == "" {
		o, err := c.readProject(ctx) // a plugin that is not there must not stand in the way of a person who looks, or stops
		if err != nil {
			return control.State{}, err
		}
		defer o.close()
		dir = o.settings.StateDir
	}
	return control.Open(dir)
}

// auditedStore is the store of a state directory, with an entry in the audit log for what is recorded.
type auditedStore struct {
	*pebble.Store
	log audit.Log
}

var _ engine.Store = auditedStore{}

// Update implements store.Store.
func (s auditedStore) Update(ctx context.Context, keys []string, fn func(store.Tx) error) error {
	return s.log.Update(ctx, s.Store, keys, fn)
}

// openStore is the store of a state directory. It is opened at the first transaction.
func (c *call) openStore(s control.State, command string) (auditedStore, error) {
	return c.openStoreAs(storeConfig(s, command))
}

func (c *call) openStoreAs(config pebble.Config) (auditedStore, error) {
	st, err := pebble.New(config)
	return auditedStore{st, ledger.AuditLog(c.stdio.Now)}, err
}

func storeConfig(s control.State, command string) pebble.Config {
	return pebble.Config{Dir: filepath.Join(s.Dir, "store"), Holder: "runbook " + command}
}

// manifest describes a plugin without starting it.
func (o *opened) manifest(plugin string) (sdk.Manifest, error) {
	for _, m := range o.manifests {
		if m.Name == plugin {
			return m, nil
		}
	}
	known := names(o.manifests)
	return sdk.Manifest{}, problem.New(problem.PluginMissing, "there is no plugin %q%s", plugin, problem.DidYouMean(plugin, known)).
		WithHint("the plugins are: %s", strings.Join(known, ", "))
}

func names(manifests []sdk.Manifest) []string {
	out := make([]string, len(manifests))
	for i, m := range manifests {
		out[i] = m.Name
	}
	return out
}

// sinks are the routes of notices: stderr, and the webhooks of project.star.
func (o *opened) sinks(c *call) ([]notify.Sink, error) {
	sinks := []notify.Sink{notify.Stderr(c.stdio.Err)}
	for _, w := range o.settings.Notify {
		if w.Service == "email" {
			if w.Key != nil {
				password, err := o.settings.Text(w.Key)
				if err != nil {
					return nil, err
				}
				w.Mail.Password = password
			}
			sinks = append(sinks, notify.Email(w.Mail, w.Wants))
			continue
		}
		to, err := o.settings.URL(w.URL)
		if err != nil {
			return nil, err
		}
		switch w.Service {
		case "slack":
			sinks = append(sinks, notify.Slack(to, w.Wants))
			continue
		case "pagerduty", "opsgenie":
			key, err := o.settings.Text(w.Key)
			if err != nil {
				return nil, err
			}
			service := notify.PagerDuty
			if w.Service == "opsgenie" {
				service = notify.Opsgenie
			}
			sinks = append(sinks, service(to, key, w.Wants))
			continue
		}
		headers := map[string]string{}
		for k, v := range w.Headers {
			if headers[k], err = o.settings.Text(v); err != nil {
				return nil, err
			}
		}
		sinks = append(sinks, notify.Webhook(to, headers, w.Wants))
	}
	return sinks, nil
}

// heartbeat leaves the signs of life that project.star asks for.
func (o *opened) heartbeat(ctx context.Context, r *trace.Run, totals ledger.Totals) error {
	var errs []error
	if o.settings.Heartbeat != "" {
		errs = append(errs, heartbeat.Write(o.settings.Heartbeat, r, totals))
	}
	if o.settings.HeartbeatURL != nil {
		to, err := o.settings.URL(o.settings.HeartbeatURL)
		if err == nil {
			err = heartbeat.Ping(ctx, to)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
