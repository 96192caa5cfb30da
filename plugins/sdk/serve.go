package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed1de3961f/runbook/plugins/sdk/gate"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// drain is how long calls may take to end after the host has gone.
const drain = 1500 * time.Millisecond

// flush is how long the last answer may take to leave the process: a call is over for us before its bytes are sent, and an
// action whose outcome is lost is in doubt.
const flush = 100 * time.Millisecond

// Main is Serve for a program that is nothing but this plugin.
func (p *Plugin) Main() {
	if err := p.Serve(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.manifest.Name, err)
		os.Exit(1)
	}
}

// Serve serves the plugin to the process that started this one, until that ends or ctx does; then the program should
// return from main. SIGTERM lets what is in flight finish: a service manager sends it to every process of a run at once,
// and an action that it interrupted would be in doubt. Nothing may be printed to standard output before.
func (p *Plugin) Serve(ctx context.Context) error {
	if os.Getenv(gate.Env) != "" {
		return errors.New("gate: the plugin has ended") // otherwise this process would wait, or be the command, by now
	}
	if _, err := p.Manifest(); err != nil {
		return err
	}
	hs := Handshake()
	if os.Getenv(hs.MagicCookieKey) != hs.MagicCookieValue {
		return errors.New("this is a plugin of runbook: name it in project.star, and runbook starts it")
	}

	base, end := context.WithCancelCause(ctx)
	defer end(nil)
	calls := &inFlight{idle: make(chan struct{})}
	// Notify, not Ignore: an ignored signal would be ignored by every command that an action starts.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	defer signal.Stop(term)
	if os.Getenv(EnvLifeline) == "1" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			end(errors.New("the engine has ended"))
		}()
	}

	served := make(chan struct{})
	go func() {
		defer close(served)
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig: hs,
			Plugins:         goplugin.PluginSet{ServiceName: &grpcPlugin{server: &server{p: p, base: base}}},
			Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
			GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(opts,
					grpc.Creds(onlyPID(hostPID())),
					grpc.MaxRecvMsgSize(pluginpb.MaxMessage), grpc.MaxSendMsgSize(pluginpb.MaxMessage),
					grpc.UnaryInterceptor(calls.unary), grpc.StreamInterceptor(calls.stream))...)
			},
		})
	}()
	for {
		select {
		case <-served:
			end(errors.New("the engine ended the plugin"))
			served = nil // the next round waits for what is still running
		case <-term:
			calls.finish()
		case <-calls.idle:
			<-time.After(flush)
			return nil
		case <-base.Done():
			calls.finish()
			select {
			case <-calls.idle:
			case <-time.After(drain):
			}
			return nil
		}
	}
}

// hostPID is the process that may connect.
func hostPID() int {
	if pid, err := strconv.Atoi(os.Getenv(EnvHost)); err == nil {
		return pid
	}
	return os.Getppid()
}

// grpcPlugin is what go-plugin wants of a plugin.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	server pluginpb.PluginServer
}

func (g *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginpb.RegisterPluginServer(s, g.server)
	return nil
}

func (g *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return pluginpb.NewPluginClient(c), nil
}

// inFlight counts calls, so that a plugin that was told to end does so between them.
type inFlight struct {
	mu     sync.Mutex
	n      int
	ending bool
	idle   chan struct{} // closed when ending and there are none
}

func (f *inFlight) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return status.Error(codes.Unavailable, "the plugin was told to end")
	}
	f.n++
	return nil
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.ending {
		close(f.idle)
	}
}

// finish lets no call in any more.
func (f *inFlight) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ending && f.n == 0 {
		close(f.idle)
	}
	f.ending = true
}

// ours tells the calls of the plugin from go-plugin's own long streams.
func ours(method string) bool {
	return strings.HasPrefix(method, "/"+pluginpb.Plugin_ServiceDesc.ServiceName+"/")
}

func (f *inFlight) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if ours(info.FullMethod) {
		if err := f.enter(); err != nil {
			return nil, err
		}
		defer f.leave()
	}
	return next(ctx, req)
}

func (f *inFlight) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if ours(info.FullMethod) {
		if err := f.enter(); err != nil {
			return err
		}
		defer f.leave()
	}
	return next(srv, ss)
}
