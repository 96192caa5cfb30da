package pluginhost_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

// TestMain makes this test binary also the plugins and the hosts that the tests start.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "plugin":
		if err := serve(os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case len(os.Args) == 2 && os.Args[1] == spare.Command:
		if name, err := spare.Await(os.Stdin); err == nil {
			_ = serve(name)
		}
	case len(os.Args) == 3 && os.Args[1] == "host":
		hostMain(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "stranger":
		strangerMain(os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// strangerMain connects to a plugin's socket and says how many bytes it was answered.
func strangerMain(socket string) {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	n, err := c.Read(make([]byte, 100))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		fmt.Println("neither an answer nor an end")
		return
	}
	fmt.Println(n)
}

func serve(name string) error {
	if p, ok := plugins.Lookup(name); ok {
		return p.Serve(context.Background())
	}
	if strings.HasPrefix(name, "prisoner") {
		return prisoner(name).Serve(context.Background())
	}
	switch name {
	case "good":
		return good().Serve(context.Background())
	case "chatty":
		fmt.Println("WARNING: config file not found")
		return good().Serve(context.Background())
	case "quits":
		fmt.Fprintln(os.Stderr, "cannot read /etc/quits.conf")
		os.Exit(3)
	case "panics":
		panic("no licence")
	case "hangs":
		select {}
	case "silent":
		return serveRaw(&raw{acting: false})
	case "eager":
		return serveRaw(&raw{eager: true})
	case "stranger":
		return serveRaw(&raw{group: 1})
	case "deep", "bottomless":
		return serveRaw(&raw{nested: map[string]int{"deep": 65, "bottomless": 10_000}[name]})
	case "version":
		h := sdk.Handshake()
		h.ProtocolVersion = 9
		return serveAs(h, &raw{})
	case "cookie":
		h := sdk.Handshake()
		h.MagicCookieValue = "another program's"
		return serveAs(h, &raw{})
	case "renamed":
		return sdk.New("other", "1", "").Serve(context.Background())
	}
	return fmt.Errorf("no plugin %s", name)
}

type settings struct {
	Dir   string `rb:"dir" doc:"where effects are left"`
	Token string `rb:"token,sensitive"`
	Fail  bool   `rb:"fail"`
}

type anything struct {
	Value value.Value `rb:"value,positional"`
}

type how struct {
	Mode string        `rb:"mode,required,positional"`
	Wait time.Duration `rb:"wait"`
}

// good is a plugin that does what it is told, also the wrong things.
func good() *sdk.Plugin {
	var s settings
	p := sdk.New("good", "1", "A plugin for tests.")
	sdk.ConfigFunc(p, func(_ context.Context, c settings) error {
		s = c
		if c.Fail {
			return fmt.Errorf("the token %s is not accepted", c.Token)
		}
		return nil
	})
	sdk.QueryFunc(p, "echo", "", func(_ context.Context, a anything) (value.Value, error) { return a.Value, nil })
	sdk.QueryFunc(p, "about", "", func(context.Context, struct{}) (map[string]value.Value, error) {
		stdin, err := os.Readlink("/proc/self/fd/0")
		status, _ := os.ReadFile("/proc/self/status")
		env := value.List{}
		for _, e := range os.Environ() {
			env = append(env, value.String(e))
		}
		fds, _ := os.ReadDir("/proc/self/fd")
		return map[string]value.Value{
			"pid": value.Int(os.Getpid()), "group": value.Int(syscall.Getpgrp()), "stdin": value.String(stdin), "env": env,
			"nnp": value.Bool(strings.Contains(string(status), "NoNewPrivs:\t1")), "fds": value.Int(len(fds)),
		}, err
	})
	sdk.QueryFunc(p, "misbehave", "", func(ctx context.Context, a how) (string, error) {
		switch a.Mode {
		case "panic":
			panic("query panicked near " + s.Token)
		case "fail":
			return "", fmt.Errorf("no such thing (token %s)", s.Token)
		case "huge":
			return strings.Repeat("x", 17<<20), nil
		case "stop":
			return "", stop()
		case "grandchild":
			// Holds standard error for longer than any test waits.
			c := exec.Command("/bin/sleep", "600")
			c.Stderr = os.NewFile(2, "stderr")
			return "", c.Start()
		}
		return "", ctx.Err()
	})
	sdk.QueryFunc(p, "stubborn", "", func(_ context.Context, a how) (string, error) {
		time.Sleep(a.Wait) //nolint:forbidigo // a plugin that ignores its context
		return "", nil
	}, sdk.Timeout(300*time.Millisecond, time.Minute))
	sdk.ActionFunc(p, "act", "", func(c *sdk.Call, a how) (string, error) { return act(c, s.Dir, a) })
	sdk.ProbeFunc(p, "act", func(_ context.Context, pr sdk.Probe, _ how) (sdk.ProbeAnswer, error) {
		if _, err := os.Stat(filepath.Join(s.Dir, string(pr.Receipt))); err == nil {
			return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: "the file is there"}, nil
		}
		return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: "no file"}, nil
	})
	sdk.PlanFunc(p, "act", func(context.Context, sdk.Target, how) (sdk.Plan, error) {
		return sdk.Plan{Changes: []sdk.PlannedChange{{What: "file", Before: "absent", After: "present"}}}, nil
	})
	return p
}

func act(c *sdk.Call, dir string, a how) (string, error) {
	switch a.Mode {
	case "crash before":
		os.Exit(7)
	case "fail before":
		return "", errors.New("not today")
	case "same":
		return "was so", sdk.NoChange("nothing to do")
	case "forgets":
		return "done", nil
	case "stop before":
		return "", stop()
	case "stuck before":
		time.Sleep(a.Wait) //nolint:forbidigo // a plugin that ignores its context
	case "command":
		return command(c, a)
	}
	if err := c.Begin([]byte(c.Key)); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, c.Key), nil, 0o600); err != nil {
		return "", err
	}
	c.Progress("half way")
	switch a.Mode {
	case "stop":
		awaitFile(filepath.Join(dir, "stop"))
		return "", stop()
	case "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "fail":
		return "", errors.New("disk full")
	case "unsure":
		return "", sdk.Unknown(errors.New("connection lost"))
	case "slow":
		<-c.Done()
		return "", errors.New("gave up")
	case "stubborn":
		time.Sleep(a.Wait) //nolint:forbidigo // a plugin that ignores its context
	case "unprintable":
		return "\xff", nil
	}
	return "done " + c.Target.Labels["zone"], nil
}

// awaitFile returns when there is a file path. What a plugin sends is on its way only some time after it was sent, and the test knows
// when it has come.
func awaitFile(path string) {
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // another process makes the file
	}
}

// stop stops the process, as a person or a debugger may, and does not go on in the moment that this takes.
func stop() error {
	err := syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	if err == nil {
		select {}
	}
	return err
}

// command runs a shell that leaves a child in its group and ignores SIGTERM.
func command(c *sdk.Call, a how) (string, error) {
	cmd, err := c.Prepare(sdk.Command{Argv: []string{"/bin/sh", "-c", `trap "" TERM; /bin/sleep 600 & wait; wait`}})
	if err != nil {
		return "", err
	}
	if err := c.Begin(nil); err != nil {
		return "", err
	}
	r, err := cmd.Run()
	return string(r.Stdout), err
}

// raw is a plugin that was not made with the SDK and gets Execute wrong.
type raw struct {
	pluginpb.UnimplementedPluginServer
	acting bool
	eager  bool
	group  int64
	nested int // how deep the answer to a query is
}

func rawManifest(name string) sdk.Manifest {
	return sdk.Manifest{Name: name, Version: "1", Functions: []sdk.Function{{Name: "act", Kind: sdk.Action}, {Name: "ask", Kind: sdk.Query}}}
}

func (r *raw) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	m, err := sdk.EncodeManifest(rawManifest(os.Args[3]))
	return &pluginpb.DescribeResponse{Manifest: m}, err
}

func (r *raw) Configure(context.Context, *pluginpb.ConfigureRequest) (*pluginpb.ConfigureResponse, error) {
	return &pluginpb.ConfigureResponse{}, nil
}

func (r *raw) Query(context.Context, *pluginpb.QueryRequest) (*pluginpb.QueryResponse, error) {
	if r.nested == 0 {
		return nil, status.Error(codes.Unimplemented, "there is no such function after all")
	}
	v := &pluginpb.Value{Kind: &pluginpb.Value_Int{Int: 1}}
	for range r.nested {
		v = &pluginpb.Value{Kind: &pluginpb.Value_List{List: &pluginpb.List{Items: []*pluginpb.Value{v}}}}
	}
	return &pluginpb.QueryResponse{Value: v}, nil
}

func (r *raw) Execute(s pluginpb.Plugin_ExecuteServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	if r.eager {
		return s.Send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Finished{
			Finished: &pluginpb.Finished{Outcome: pluginpb.Outcome_OUTCOME_SUCCEEDED},
		}})
	}
	st := &pluginpb.Started{}
	if r.group != 0 {
		st.Child = &pluginpb.Child{Pid: r.group, Group: r.group, Start: 1}
	}
	if err := s.Send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Started{Started: st}}); err != nil {
		return err
	}
	select {} // never says that it acts, never ends
}

type rawPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	r *raw
}

func (p rawPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginpb.RegisterPluginServer(s, p.r)
	return nil
}

func (rawPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}

func serveRaw(r *raw) error { return serveAs(sdk.Handshake(), r) }

func serveAs(h goplugin.HandshakeConfig, r *raw) error {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: h, Plugins: goplugin.PluginSet{sdk.ServiceName: rawPlugin{r: r}}, GRPCServer: goplugin.DefaultGRPCServer,
	})
	return nil
}

// hostMain is a host process that is to be killed: it uses a plugin, says the pids, and waits.
func hostMain(runDir string) {
	h, err := newHost(runDir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := pluginhost.Connection{Name: "c", Plugin: "good"}
	v, err := h.Query(context.Background(), c, "about", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pid, _ := v.(value.Dict).Get("pid")
	x, err := h.Execute(context.Background(), c, request("command", time.Minute))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, child, err := x.Started()
	if err == nil {
		err = x.Proceed(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(int(pid.(value.Int)), child.PID)
	select {}
}

func newHost(runDir string) (*pluginhost.Plugins, error) {
	m, err := good().Manifest()
	if err != nil {
		return nil, err
	}
	bundled := []sdk.Manifest{m}
	for _, n := range []string{"chatty", "quits", "panics", "hangs", "silent", "eager", "stranger", "renamed", "deep", "bottomless", "version", "cookie"} {
		bundled = append(bundled, rawManifest(n))
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return pluginhost.New(pluginhost.Config{Exe: exe, Bundled: bundled, RunDir: runDir})
}
