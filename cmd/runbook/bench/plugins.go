package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/examples/grpc/shared"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
)

// manyPlugins is how many are started at once, and how many a lock has.
const manyPlugins = 20

// plugins measures our host and SDK against go-plugin's own example over gRPC, a plugin that reads a file: ours looks whether there is one. Both are built
// alike, from the same modules.
func plugins(ctx context.Context, root string, rounds int) error {
	theirs, ours := filepath.Join(root, "theirs"), filepath.Join(root, "ours")
	for exe, pkg := range map[string]string{theirs: "github.com/hashicorp/go-plugin/examples/grpc/plugin-go-grpc", ours: "github.com/seed1de3961f/runbook/plugins/example"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", exe, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "kv_ready"), []byte("yes"), 0o600); err != nil {
		return err
	}
	b := pluginBench{root: root, theirs: theirs, ours: ours}
	lock, err := b.describe(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n| what | ours | go-plugin's example | times as long | goal |\n|---|---|---|---|---|\n", machine(root))
	for _, c := range []struct {
		what, goal   string
		calls        int // that a round times
		ours, theirs func() (time.Duration, error)
	}{
		{"a plugin from nothing to its first answer", "1.3", 1, func() (time.Duration, error) { return b.first(ctx, "", 1) }, func() (time.Duration, error) { return b.firstOfTheirs(1) }},
		{"the same, its file hashed, as of each that is locked", "-", 1, func() (time.Duration, error) { return b.first(ctx, b.sha, 1) }, func() (time.Duration, error) { return b.firstOfTheirs(1) }},
		{fmt.Sprintf("%d plugins at once, to the first answer of the last", manyPlugins), "1.3", 1, func() (time.Duration, error) { return b.first(ctx, "", manyPlugins) }, func() (time.Duration, error) { return b.firstOfTheirs(manyPlugins) }},
		{"a call of a plugin that runs", "1.5", steadyCalls, func() (time.Duration, error) { return b.steady(ctx) }, b.steadyOfTheirs},
		{fmt.Sprintf("what %d plugins offer, from the lock; against starting so many", manyPlugins), "0.05", 1, func() (time.Duration, error) { return readLock(lock) }, func() (time.Duration, error) { return b.firstOfTheirs(manyPlugins) }},
	} {
		var took [2][]time.Duration
		for round := range rounds + 2 {
			for i, f := range []func() (time.Duration, error){c.ours, c.theirs} {
				d, err := f()
				if err != nil {
					return fmt.Errorf("%s: %w", c.what, err)
				}
				if round >= 2 { // the first only warm up
					took[i] = append(took[i], d/time.Duration(c.calls))
				}
			}
		}
		a, z := at(took[0], 50), at(took[1], 50)
		fmt.Printf("| %s | %s | %s | **%.2f** | %s |\n", c.what, short(a), short(z), float64(a)/float64(z), c.goal)
	}
	fmt.Printf("\n%d interleaved rounds of each.\n", rounds)
	return nil
}

func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// steadyCalls is how many calls of a plugin that runs make a round.
const steadyCalls = 200

type pluginBench struct {
	root, theirs, ours string
	sha                string // of our plugin's file
	manifest           sdk.Manifest
}

// describe asks our plugin what it offers, and writes a lock of many that offer the same.
func (b *pluginBench) describe(ctx context.Context) (lock string, err error) {
	text, err := os.ReadFile(b.ours)
	if err != nil {
		return "", err
	}
	b.sha = fmt.Sprintf("%x", sha256.Sum256(text))
	h, err := pluginhost.New(pluginhost.Config{RunDir: b.root, External: map[string]pluginhost.External{"example": {Path: b.ours}}})
	if err != nil {
		return "", err
	}
	defer h.Close()
	if b.manifest, err = h.Manifest(ctx, "example"); err != nil {
		return "", err
	}
	l := pluginhost.Lock{}
	for i := range manyPlugins {
		m := b.manifest
		m.Name = fmt.Sprintf("example%d", i)
		m.Functions = slices.Repeat(b.manifest.Functions, 10) // as many as a large plugin has
		for k := range m.Functions {
			m.Functions[k].Name = fmt.Sprintf("function%d", k)
		}
		l[m.Name] = pluginhost.Locked{SHA256: b.sha, Manifest: m}
	}
	if text, err = l.Encode(); err != nil {
		return "", err
	}
	lock = filepath.Join(b.root, pluginhost.LockFile)
	return lock, os.WriteFile(lock, text, 0o600)
}

// readLock times what check and test do instead of starting plugins.
func readLock(lock string) (time.Duration, error) {
	began := time.Now()
	text, err := os.ReadFile(lock)
	if err != nil {
		return 0, err
	}
	l, err := pluginhost.DecodeLock(text)
	if err == nil && len(l) != manyPlugins {
		err = fmt.Errorf("the lock has %d plugins", len(l))
	}
	return time.Since(began), err
}

func (b *pluginBench) host(sha string) (*pluginhost.Plugins, error) {
	return pluginhost.New(pluginhost.Config{RunDir: b.root, External: map[string]pluginhost.External{"example": {Path: b.ours, SHA256: sha, Manifest: &b.manifest}}})
}

// ask asks one plugin.
func ask(ctx context.Context, h *pluginhost.Plugins, conn pluginhost.Connection) error {
	v, err := h.Query(ctx, conn, "is_set", value.Dict{{Key: value.String("name"), Value: value.String("kv_ready")}})
	if err == nil && v != value.Bool(true) {
		err = fmt.Errorf("it answers %v", v)
	}
	return err
}

// connection is the i-th use of the plugin: each has a process of its own.
func (b *pluginBench) connection(i int) pluginhost.Connection {
	return pluginhost.Connection{Name: fmt.Sprintf("connection%d", i), Plugin: "example", Config: value.Dict{{Key: value.String("dir"), Value: value.String(b.root)}}}
}

// first times n plugins that are started and asked at once.
func (b *pluginBench) first(ctx context.Context, sha string, n int) (time.Duration, error) {
	h, err := b.host(sha)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	return atOnce(n, func(i int) error { return ask(ctx, h, b.connection(i)) })
}

// atOnce times n things that are done at once.
func atOnce(n int, f func(i int) error) (time.Duration, error) {
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

func (b *pluginBench) startTheirs() (*goplugin.Client, shared.KV, error) {
	cmd := exec.Command(b.theirs) //nolint:noctx // Kill ends it
	cmd.Dir = b.root
	c := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: shared.Handshake, Plugins: goplugin.PluginSet{"kv": &shared.KVGRPCPlugin{}}, Cmd: cmd,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off}), Stderr: io.Discard,
	})
	rpc, err := c.Client()
	if err != nil {
		return c, nil, err
	}
	kv, err := rpc.Dispense("kv")
	if err != nil {
		return c, nil, err
	}
	return c, kv.(shared.KV), nil
}

func askTheirs(kv shared.KV) error {
	v, err := kv.Get("ready")
	if err == nil && string(v) != "yes" {
		err = fmt.Errorf("it answers %q", v)
	}
	return err
}

func (b *pluginBench) firstOfTheirs(n int) (time.Duration, error) {
	clients := make([]*goplugin.Client, n)
	took, err := atOnce(n, func(i int) error {
		c, kv, err := b.startTheirs()
		clients[i] = c
		if err != nil {
			return err
		}
		return askTheirs(kv)
	})
	for _, c := range clients {
		c.Kill()
	}
	return took, err
}

func (b *pluginBench) steady(ctx context.Context) (time.Duration, error) {
	h, err := b.host("")
	if err != nil {
		return 0, err
	}
	defer h.Close()
	return repeated(func() error { return ask(ctx, h, b.connection(0)) })
}

func (b *pluginBench) steadyOfTheirs() (time.Duration, error) {
	c, kv, err := b.startTheirs()
	defer c.Kill()
	if err != nil {
		return 0, err
	}
	return repeated(func() error { return askTheirs(kv) })
}

// repeated times so many calls after a first one.
func repeated(f func() error) (time.Duration, error) {
	if err := f(); err != nil {
		return 0, err
	}
	began := time.Now()
	for range steadyCalls {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
