package pluginhost

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

// Config is what a Host needs.
type Config struct {
	// Exe is this program, which serves the bundled plugins: `Exe plugin serve NAME`. Default: the running executable.
	Exe string
	// Bundled are the manifests of the bundled plugins.
	Bundled []sdk.Manifest
	// External are other plugins, by name.
	External map[string]External
	// RunDir is where sockets live, one directory a host process; what dead ones left is removed. It may be long or on a
	// file system without sockets' limits in mind: a short private directory is used instead then.
	RunDir string
	// Env is added to what a plugin process sees. Nothing of this process's own environment is.
	Env []string
	// StartTimeout bounds starting, describing and configuring a plugin. Default 10s.
	StartTimeout time.Duration
}

// External is a plugin that is a file of its own.
type External struct {
	Path string
	Args []string
	// SHA256 is what its file must have, in hex. "": whatever is there is started, which is for making a lock.
	SHA256 string
	// Manifest is what it must say about itself. nil: it is asked.
	Manifest *sdk.Manifest
}

// The bounds on what a plugin may take.
const (
	defaultStart = 10 * time.Second
	defaultCall  = 30 * time.Second
	maxCall      = 10 * time.Minute
	// actingWithin is how long after Proceed a plugin may take to say that it acts. The gate is held meanwhile.
	actingWithin = time.Second
	// cancelGrace is how long a cancelled action may take to say how far it came.
	cancelGrace = 500 * time.Millisecond
	// stopGrace is how long an idle plugin may take to end by itself.
	stopGrace = 800 * time.Millisecond
	// closeWithin bounds Close.
	closeWithin = 2 * time.Second
)

// New makes a Host. Nothing is started.
func New(c Config) (*Plugins, error) {
	if c.Exe == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, problem.Wrap(problem.Internal, err, "find this program")
		}
		c.Exe = exe
	}
	if c.StartTimeout <= 0 {
		c.StartTimeout = defaultStart
	}
	h := &Plugins{config: c, bundled: map[string]sdk.Manifest{}, manifests: map[string]sdk.Manifest{}, pools: map[string]*pool{}, dirs: map[string]*runDir{}, ended: make(chan struct{})}
	for _, m := range c.Bundled {
		if err := CheckManifest(m.Name, m); err != nil {
			return nil, err
		}
		h.bundled[m.Name] = m
	}
	return h, nil
}

// Plugins is the Host over real plugin processes.
type Plugins struct {
	config  Config
	bundled map[string]sdk.Manifest

	mu        sync.Mutex
	manifests map[string]sdk.Manifest // of external plugins, as long as this host lives
	pools     map[string]*pool
	dirs      map[string]*runDir // by whose they are: "" is the engine's user
	closed    bool

	release sync.Once
	ended   chan struct{} // closed when all have
}

var (
	_ Host    = (*Plugins)(nil)
	_ Planner = (*Plugins)(nil)

	_ Prestarter = (*Plugins)(nil)
	_ Releaser   = (*Plugins)(nil)
)

// Names lists the plugins that there are, sorted.
func (h *Plugins) Names() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for n := range maps.Keys(h.bundled) {
			if !yield(n) {
				return
			}
		}
		for n := range maps.Keys(h.config.External) {
			if !yield(n) {
				return
			}
		}
	})
}

// Prestart starts the plugin of a connection in the background, so that its first use need not wait. Errors come with that
// use.
func (h *Plugins) Prestart(c Connection) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), h.config.StartTimeout)
		defer cancel()
		if pl, err := h.pool(ctx, c); err == nil {
			pl.prestart()
		}
	}()
}

// pool is the processes of one connection. Two connections that differ in anything share none.
func (h *Plugins) pool(ctx context.Context, c Connection) (*pool, error) {
	m, err := h.Manifest(ctx, c.Plugin)
	if err != nil {
		return nil, err
	}
	config, err := pluginpb.EncodeDict(c.Config)
	if err != nil {
		return nil, problem.New(problem.Project, "connection %s: %v", c.Name, err)
	}
	data, err := value.Marshal(c.Config)
	if err != nil {
		return nil, problem.New(problem.Internal, "connection %s: %v", c.Name, err)
	}
	key := fmt.Sprintf("%s\x00%s\x00%x\x00%+v", c.Plugin, c.Name, sha256.Sum256(data), c.Confine)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, problem.New(problem.Internal, "the plugin host is closed")
	}
	if h.pools[key] == nil {
		h.pools[key] = &pool{host: h, conn: c, config: config, manifest: m}
	}
	return h.pools[key], nil
}

// Release implements Releaser.
func (h *Plugins) Release() { h.release.Do(func() { go h.end() }) }

// Close implements Host.
func (h *Plugins) Close() {
	h.Release()
	<-h.ended
}

func (h *Plugins) end() {
	defer close(h.ended)
	h.mu.Lock()
	h.closed = true
	pools, dirs := h.pools, h.dirs
	h.pools, h.dirs = map[string]*pool{}, nil
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, pl := range pools {
		wg.Go(pl.close)
	}
	wg.Go(spare.Drop)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(closeWithin): // a process that even SIGKILL has not ended yet: it hangs in the kernel
	}
	for _, dir := range dirs {
		dir.remove()
	}
}
