// Package sdktest calls a plugin in tests: in this process, through the wire and its checks. What needs a process of its own
// (crashes, signals, Call.Prepare) is tested by the host's own tests.
package sdktest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// Harness is a plugin under test.
type Harness struct {
	t   testing.TB
	rpc pluginpb.PluginClient
}

// New serves p until the test ends.
func New(t testing.TB, p *sdk.Plugin) *Harness {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.MaxRecvMsgSize(pluginpb.MaxMessage), grpc.MaxSendMsgSize(pluginpb.MaxMessage))
	pluginpb.RegisterPluginServer(s, sdk.NewServer(t.Context(), p))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(pluginpb.MaxMessage), grpc.MaxCallSendMsgSize(pluginpb.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Harness{t: t, rpc: pluginpb.NewPluginClient(conn)}
}

// Configure configures the connection.
func (h *Harness) Configure(config value.Dict) error {
	h.t.Helper()
	r, err := h.rpc.Configure(h.t.Context(), &pluginpb.ConfigureRequest{Config: h.dict(config)})
	return first(err, r.GetDiagnostics())
}

// Query asks.
func (h *Harness) Query(ctx context.Context, function string, args value.Dict) (value.Value, error) {
	h.t.Helper()
	r, err := h.rpc.Query(ctx, &pluginpb.QueryRequest{Function: function, Args: h.dict(args)})
	if err := first(err, r.GetDiagnostics()); err != nil {
		return nil, err
	}
	return pluginpb.Decode(r.GetValue())
}

// Action is what to carry out.
type Action struct {
	Function string
	Args     value.Dict
	Target   sdk.Target
	Key      string
	Timeout  time.Duration // 0: 10s
	Decline  bool          // say no instead of go
}

// Outcome is how an action ended. Started and Acting say how far it came.
type Outcome struct {
	Started, Acting, Declined bool
	Receipt                   []byte
	Outcome                   pluginpb.Outcome
	Value                     value.Value
	Message                   string
}

// Act carries an action out, and tells it to go once it has started.
func (h *Harness) Act(a Action) Outcome {
	h.t.Helper()
	s, err := h.rpc.Execute(h.t.Context())
	h.check(err)
	h.check(s.Send(h.request(a)))
	var out Outcome
	for {
		ev, err := s.Recv()
		h.check(err)
		switch e := ev.GetEvent().(type) {
		case *pluginpb.ExecuteEvent_Started:
			out.Started, out.Receipt = true, e.Started.GetReceipt()
			err := s.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Proceed{
				Proceed: &pluginpb.Proceed{Go: !a.Decline, Reason: "the test says no"},
			}})
			if !errors.Is(err, io.EOF) { // it has ended already: what comes next says how
				h.check(err)
			}
		case *pluginpb.ExecuteEvent_Acting:
			out.Acting = true
		case *pluginpb.ExecuteEvent_Declined:
			out.Declined = true
			return out
		case *pluginpb.ExecuteEvent_Finished:
			out.Outcome, out.Message = e.Finished.GetOutcome(), e.Finished.GetMessage()
			if e.Finished.GetValue() != nil {
				out.Value, err = pluginpb.Decode(e.Finished.GetValue())
				h.check(err)
			}
			return out
		}
	}
}

// request is the first message of an action.
func (h *Harness) request(a Action) *pluginpb.ExecuteInput {
	h.t.Helper()
	if a.Timeout == 0 {
		a.Timeout = 10 * time.Second
	}
	return &pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Request{Request: &pluginpb.ExecuteRequest{
		Function: a.Function, Args: h.dict(a.Args), Key: a.Key, TimeoutNs: int64(a.Timeout), Target: target(a.Target),
	}}}
}

// Plan asks what an action would do.
func (h *Harness) Plan(a Action) (*pluginpb.PlanResponse, error) {
	h.t.Helper()
	r, err := h.rpc.Plan(h.t.Context(), &pluginpb.PlanRequest{Function: a.Function, Args: h.dict(a.Args), Target: target(a.Target)})
	return r, first(err, r.GetDiagnostics())
}

// Probe asks what became of an action.
func (h *Harness) Probe(a Action, receipt []byte) (*pluginpb.ProbeResponse, error) {
	h.t.Helper()
	r, err := h.rpc.Probe(h.t.Context(), &pluginpb.ProbeRequest{Function: a.Function, Args: h.dict(a.Args), Target: target(a.Target), Key: a.Key, Receipt: receipt})
	return r, first(err, r.GetDiagnostics())
}

func target(t sdk.Target) *pluginpb.Target {
	return &pluginpb.Target{Key: t.Key, Name: t.Name, Labels: t.Labels}
}

func (h *Harness) dict(d value.Dict) *pluginpb.Dict {
	h.t.Helper()
	p, err := pluginpb.EncodeDict(d)
	h.check(err)
	return p
}

func (h *Harness) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func first(err error, ds []*pluginpb.Diagnostic) error {
	if err != nil {
		return err
	}
	if p := pluginpb.ToProblem(ds, problem.PluginFailed); p != nil {
		return p
	}
	return nil
}
