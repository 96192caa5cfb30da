package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

// process is one plugin process, from before its start to after its end.
type process struct {
	host    *Plugins
	name    string
	config  *pluginpb.Dict // nil: describe only
	want    *sdk.Manifest  // what it must say about itself; nil: anything
	secret  redactor
	confine *Confine
	stderr  *tail

	ready    chan struct{} // closed once started or failed
	startErr error
	group    atomic.Pointer[group]
	client   atomic.Pointer[goplugin.Client]
	stopped  atomic.Bool
	rpc      pluginpb.PluginClient
	manifest sdk.Manifest

	// Guarded by the pool.
	users   int
	alone   bool
	retired bool
}

func newProcess(pl *pool) *process {
	return &process{
		host: pl.host, name: pl.conn.Plugin, config: pl.config, want: &pl.manifest, secret: newRedactor(pl.manifest, pl.conn.Config),
		confine: pl.conn.Confine, stderr: newTail(), ready: make(chan struct{}),
	}
}

// start starts, describes and configures the plugin, within the host's bound.
func (p *process) start() {
	defer close(p.ready)
	began := time.Now()
	s := p.spare()
	err := p.launch(s)
	if err != nil && s != nil && !p.stopped.Load() {
		if g := p.group.Load(); g != nil {
			g.kill()
		} else {
			s.End() // it was not even told
		}
		err = p.launch(nil) // whatever has become of the one that waited
	}
	if err == nil {
		ctx, cancel := context.WithDeadline(context.Background(), began.Add(p.host.config.StartTimeout))
		defer cancel()
		err = p.introduce(ctx)
	}
	if err == nil && p.stopped.Load() {
		err = errClosed()
	}
	if err != nil {
		p.startErr = err
		p.kill()
	}
}

func errClosed() error { return problem.New(problem.Internal, "the plugin host is closed") }

// spare is a process that may become the plugin. There is none for a plugin of another program or one that has to be confined from its start, and
// none for one that acts: what acts can be told by its command line.
func (p *process) spare() *spare.Spare {
	if _, bundled := p.host.bundled[p.name]; !bundled || p.confine != nil || p.want == nil {
		return nil
	}
	if slices.ContainsFunc(p.want.Functions, func(f sdk.Function) bool { return f.Kind == sdk.Action }) {
		return nil
	}
	return spare.Take()
}

// launch starts the process, or tells the spare one what it is, and waits for the handshake.
func (p *process) launch(s *spare.Spare) error {
	prog, err := p.host.program(p.name)
	if err != nil {
		return err
	}
	defer func() { _ = prog.file.Close() }() // of no file it is an error, and nothing else
	dir, err := p.host.runDirPath(p.confine)
	if err != nil {
		return problem.Wrap(problem.PluginFailed, err, "plugin %s: prepare a directory for its socket", p.name)
	}
	confine, err := p.confine.of(prog, p.want)
	if err != nil {
		return problem.Wrap(problem.PluginFailed, err, "plugin %s: confine", p.name)
	}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		Plugins:          goplugin.PluginSet{sdk.ServiceName: clientPlugin{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			g, err := newGroup(prog, s, p.name, append(cmd.Env, p.host.config.Env...))
			if err != nil {
				return nil, err
			}
			if g.confine, err = withSocket(confine, cmd.Env); err != nil {
				return nil, err
			}
			p.group.Store(g)
			if p.stopped.Load() {
				g.kill() // dooms it
			}
			return g, nil
		},
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		StartTimeout:     p.host.config.StartTimeout,
		Stderr:           p.stderr, SyncStdout: p.stderr, SyncStderr: p.stderr,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(pluginpb.MaxMessage), grpc.MaxCallSendMsgSize(pluginpb.MaxMessage))},
	})
	p.client.Store(client)
	// Start and Client have bounds of their own in most places; a process that is stopped between the handshake and the
	// first answer is not one of them.
	if err := p.bounded(func() error { _, err := client.Start(); return err }); err != nil {
		return p.explainStart(err)
	}
	var rpc any
	err = p.bounded(func() error {
		c, err := client.Client()
		if err == nil {
			rpc, err = c.Dispense(sdk.ServiceName)
		}
		return err
	})
	if err != nil {
		return p.explainStart(err)
	}
	p.rpc = rpc.(pluginpb.PluginClient)
	return nil
}

var errNotInTime = errors.New("timeout")

// bounded runs fn for no longer than a start may take. After a timeout the process is killed, which ends fn.
func (p *process) bounded(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	timer := time.NewTimer(p.host.config.StartTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		p.kill()
		return errNotInTime
	}
}

// introduce configures it and hears who it is.
func (p *process) introduce(ctx context.Context) error {
	if p.config == nil {
		return p.describe(ctx)
	}
	c, err := p.rpc.Configure(ctx, &pluginpb.ConfigureRequest{Config: p.config})
	if err != nil {
		return p.callError("configure", err)
	}
	if d := c.GetManifestDigest(); d != "" && d == p.want.Digest() {
		p.manifest = *p.want
	} else if err := p.describe(ctx); err != nil {
		return err
	}
	if pr := pluginpb.ToProblem(c.GetDiagnostics(), problem.Project); pr != nil {
		return p.secret.problem(pr, "plugin %s: configure", p.name)
	}
	return nil
}

func (p *process) describe(ctx context.Context) error {
	d, err := p.rpc.Describe(ctx, &pluginpb.DescribeRequest{})
	if err != nil {
		return p.callError("describe", err)
	}
	return p.check(d.GetManifest())
}

// check refuses a plugin that says of itself what it should not.
func (p *process) check(m *pluginpb.Manifest) (err error) {
	if p.manifest, err = sdk.DecodeManifest(m); err != nil {
		return problem.Wrap(problem.PluginFailed, err, "plugin %s: its manifest", p.name)
	}
	if p.want == nil {
		return nil
	}
	want, err := sdk.EncodeManifest(*p.want)
	if err != nil {
		return problem.Wrap(problem.Internal, err, "plugin %s: its manifest", p.name)
	}
	if !proto.Equal(want, m) {
		return problem.New(problem.PluginFailed, "plugin %s does not describe itself as it did when it was locked, or when this program began", p.name).
			WithHint("a plugin's description must be the same each time: tell its author; if it is new: runbook plugin lock")
	}
	return nil
}

// ended says whether the process has ended or never came to be.
func (p *process) ended() bool {
	select {
	case <-p.ready:
	default:
		return false
	}
	g := p.group.Load()
	if p.startErr != nil || g == nil {
		return true
	}
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// child names the process group of a process that is ready.
func (p *process) child() action.Child {
	pr, _, _ := p.group.Load().process()
	return action.Child{PID: pr.PID(), Start: pr.StartTime(), Group: pr.PID()}
}

// kill ends the process group at once and leaves the tidying to the background.
func (p *process) kill() {
	p.stopped.Store(true)
	if g := p.group.Load(); g != nil {
		g.kill()
	}
	go p.tidy()
}

// stop lets an idle plugin end by itself for a moment, then kills it. It waits for the end.
func (p *process) stop() {
	select {
	case <-p.ready:
	default:
		p.end() // there is nothing to be gentle with
		return
	}
	p.stopped.Store(true)
	go p.tidy() // asks it to end
	if g := p.group.Load(); g != nil {
		select {
		case <-g.done:
		case <-time.After(stopGrace):
			p.end()
		}
	}
}

// end kills the process group and waits for its end.
func (p *process) end() {
	p.kill()
	if g := p.group.Load(); g != nil {
		select {
		case <-g.done:
		case <-time.After(closeWithin):
		}
	}
}

// tidy ends go-plugin's side. It may take as long as it likes.
func (p *process) tidy() {
	if c := p.client.Load(); c != nil {
		c.Kill()
	}
}

// clientPlugin is what go-plugin wants of a host.
type clientPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements goplugin.GRPCPlugin.
func (clientPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return fmt.Errorf("a host serves nothing")
}

// GRPCClient implements goplugin.GRPCPlugin.
func (clientPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return pluginpb.NewPluginClient(c), nil
}

func (h *Plugins) unknown(name string) error {
	return problem.New(problem.PluginMissing, "there is no plugin %q%s", name, problem.DidYouMean(name, h.Names())).
		WithHint("name one of the bundled plugins, or say in project.star where its file is")
}
