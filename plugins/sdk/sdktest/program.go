package sdktest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// startWithin is how long a program may take to say where it listens: as long as the host waits.
const startWithin = 10 * time.Second

// Program is a plugin's program that runs, in any language. It is started as the engine starts it: with the environment of the protocol and no
// other, and with a pipe for its standard input.
type Program struct {
	Harness
	conn  *grpc.ClientConn
	cmd   *exec.Cmd
	stdin io.Closer
	gone  chan struct{} // closed when it has ended
}

// Start starts a program and waits for its handshake. It is killed when the test ends.
func Start(t testing.TB, argv ...string) *Program {
	t.Helper()
	dir, err := os.MkdirTemp("", "rb") //nolint:usetesting // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	hs := sdk.Handshake()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the test kills it, and some tests while it still has something to say
	cmd.Dir = "/"
	cmd.Env = []string{
		hs.MagicCookieKey + "=" + hs.MagicCookieValue, fmt.Sprintf("PLUGIN_PROTOCOL_VERSIONS=%d", hs.ProtocolVersion), "PLUGIN_UNIX_SOCKET_DIR=" + dir,
		sdk.EnvLifeline + "=1", sdk.EnvHost + "=" + strconv.Itoa(os.Getpid()),
	}
	log := &Output{}
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Program{Harness: Harness{t: t}, cmd: cmd, stdin: stdin, gone: make(chan struct{})}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() && log.String() != "" {
			t.Logf("%s says:\n%s", argv[0], log)
		}
	})
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		s, _ := r.ReadString('\n')
		line <- s
		_, _ = io.Copy(io.Discard, r)
		_ = cmd.Wait()
		close(p.gone)
	}()
	var hello string
	select {
	case hello = <-line:
	case <-time.After(startWithin):
		t.Fatalf("it did not print its handshake within %s", startWithin)
	}
	// CORE-PROTOCOL | APP-PROTOCOL | NETWORK | ADDRESS | PROTOCOL, and what other versions of go-plugin add
	f := strings.Split(strings.TrimSpace(hello), "|")
	if len(f) < 5 || f[0] != "1" || f[1] != strconv.Itoa(int(hs.ProtocolVersion)) || f[2] != "unix" || f[4] != "grpc" {
		t.Fatalf("the first line on its standard output is %q, not 1|%d|unix|SOCKET|grpc", hello, hs.ProtocolVersion)
	}
	p.conn, err = grpc.NewClient("unix:"+f[3], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(pluginpb.MaxMessage), grpc.MaxCallSendMsgSize(pluginpb.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	p.rpc = pluginpb.NewPluginClient(p.conn)
	return p
}

// Ready brings an action to where it waits to be told to go, leaves it there, and returns its receipt.
func (p *Program) Ready(a Action) (receipt []byte) {
	p.t.Helper()
	_, receipt = p.ready(a)
	return receipt
}

// Begin brings an action to where it acts, leaves it there, and returns its receipt.
func (p *Program) Begin(a Action) (receipt []byte) {
	p.t.Helper()
	stream, receipt := p.ready(a)
	p.check(stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Proceed{Proceed: &pluginpb.Proceed{Go: true}}}))
	ev, err := stream.Recv()
	p.check(err)
	if ev.GetActing() == nil {
		p.t.Fatalf("after it was told to go it says %v, not Acting", ev)
	}
	return receipt
}

func (p *Program) ready(a Action) (pluginpb.Plugin_ExecuteClient, []byte) {
	p.t.Helper()
	stream, err := p.rpc.Execute(p.t.Context())
	p.check(err)
	p.check(stream.Send(p.request(a)))
	ev, err := stream.Recv()
	p.check(err)
	if ev.GetStarted() == nil {
		p.t.Fatalf("the first event is %v, not Started", ev)
	}
	return stream, ev.GetStarted().GetReceipt()
}

// Kill ends it as kill -9 does.
func (p *Program) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// Terminate asks it to end, as a service manager does.
func (p *Program) Terminate() {
	p.t.Helper()
	p.check(p.cmd.Process.Signal(syscall.SIGTERM))
}

// LoseHost closes its standard input, as the end of the engine does.
func (p *Program) LoseHost() { _ = p.stdin.Close() }

// Ended says whether it ends within d.
func (p *Program) Ended(d time.Duration) bool {
	select {
	case <-p.gone:
		return true
	case <-time.After(d):
		return false
	}
}
