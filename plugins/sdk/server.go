package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// server answers the wire for a Plugin.
type server struct {
	pluginpb.UnimplementedPluginServer
	p    *Plugin
	base context.Context // ends when the host is gone
}

// NewServer answers the wire for p, for a host in this process: a test. ctx is the host's life.
func NewServer(ctx context.Context, p *Plugin) pluginpb.PluginServer { return &server{p: p, base: ctx} }

func (s *server) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	m, err := s.p.Manifest()
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	pm, err := EncodeManifest(m)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &pluginpb.DescribeResponse{Manifest: pm}, nil
}

func (s *server) Configure(ctx context.Context, r *pluginpb.ConfigureRequest) (*pluginpb.ConfigureResponse, error) {
	m, err := s.p.Manifest()
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if err := s.configure(ctx, r.GetConfig()); err != nil {
		return &pluginpb.ConfigureResponse{ManifestDigest: m.Digest(), Diagnostics: diagnostics(err)}, nil
	}
	s.p.ready.Store(true)
	return &pluginpb.ConfigureResponse{ManifestDigest: m.Digest()}, nil
}

func (s *server) configure(ctx context.Context, c *pluginpb.Dict) error {
	config, err := pluginpb.DecodeDict(c)
	if err != nil {
		return err
	}
	if s.p.configure == nil {
		if len(config) > 0 {
			return problem.New(problem.Argument, "plugin %s takes no settings", s.p.manifest.Name)
		}
		return nil
	}
	ctx, cancel := s.bounded(ctx, until(ctx))
	defer cancel()
	return s.p.configure(ctx, config)
}

func (s *server) Query(ctx context.Context, r *pluginpb.QueryRequest) (*pluginpb.QueryResponse, error) {
	v, err := s.query(ctx, r)
	if err != nil {
		return &pluginpb.QueryResponse{Diagnostics: diagnostics(err)}, nil
	}
	return &pluginpb.QueryResponse{Value: v}, nil
}

func (s *server) query(ctx context.Context, r *pluginpb.QueryRequest) (*pluginpb.Value, error) {
	f, args, err := s.find(r.GetFunction(), r.GetArgs(), Query, Analysis)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.bounded(ctx, until(ctx))
	defer cancel()
	v, err := f.query(ctx, args)
	if err != nil {
		return nil, err
	}
	return pluginpb.Encode(v)
}

func (s *server) Plan(ctx context.Context, r *pluginpb.PlanRequest) (*pluginpb.PlanResponse, error) {
	f, args, err := s.find(r.GetFunction(), r.GetArgs(), Action)
	if err == nil && f.plan == nil {
		err = problem.New(problem.PluginFailed, "%s cannot tell what it would do", r.GetFunction())
	}
	if err != nil {
		return &pluginpb.PlanResponse{Diagnostics: diagnostics(err)}, nil
	}
	ctx, cancel := s.bounded(ctx, until(ctx))
	defer cancel()
	plan, err := f.plan(ctx, target(r.GetTarget()), args)
	if err != nil {
		return &pluginpb.PlanResponse{Diagnostics: diagnostics(err)}, nil
	}
	out := &pluginpb.PlanResponse{NoChange: plan.NoChange}
	for _, c := range plan.Changes {
		out.Changes = append(out.Changes, &pluginpb.Change{
			What: pluginpb.Text(c.What), Before: pluginpb.Text(c.Before), After: pluginpb.Text(c.After),
		})
	}
	return out, nil
}

func (s *server) Probe(ctx context.Context, r *pluginpb.ProbeRequest) (*pluginpb.ProbeResponse, error) {
	f, args, err := s.find(r.GetFunction(), r.GetArgs(), Action)
	if err != nil {
		return &pluginpb.ProbeResponse{Diagnostics: diagnostics(err)}, nil
	}
	if f.probe == nil {
		return &pluginpb.ProbeResponse{State: pluginpb.ProbeState_PROBE_STATE_UNKNOWN, Message: "this action cannot be probed"}, nil
	}
	ctx, cancel := s.bounded(ctx, until(ctx))
	defer cancel()
	a, err := f.probe(ctx, Probe{Target: target(r.GetTarget()), Key: r.GetKey(), Receipt: r.GetReceipt()}, args)
	if err != nil {
		return &pluginpb.ProbeResponse{Diagnostics: diagnostics(err)}, nil
	}
	out := &pluginpb.ProbeResponse{State: pluginpb.ProbeState_PROBE_STATE_UNKNOWN, Message: pluginpb.Text(a.Message)}
	switch a.State {
	case ProbeDone:
		out.State = pluginpb.ProbeState_PROBE_STATE_DONE
	case ProbeNotDone:
		out.State = pluginpb.ProbeState_PROBE_STATE_NOT_DONE
	}
	return out, nil
}

// Execute runs one action; see the protocol's diagram.
func (s *server) Execute(stream pluginpb.Plugin_ExecuteServer) error {
	in, err := stream.Recv()
	if err != nil {
		return err
	}
	req := in.GetRequest()
	if req == nil {
		return status.Error(codes.InvalidArgument, "the first message must be the request")
	}
	ctx, cancel := s.bounded(stream.Context(), max(1, time.Duration(req.GetTimeoutNs()))) // unset reads as the strictest: over
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var mu sync.Mutex
	c := &Call{
		Context: ctx, Target: target(req.GetTarget()), Key: req.GetKey(), proceed: make(chan *pluginpb.Proceed, 1),
		send: func(e *pluginpb.ExecuteEvent) error {
			mu.Lock()
			defer mu.Unlock()
			return stream.Send(e)
		},
	}
	go listen(stream, c.proceed, stop)

	f, args, err := s.find(req.GetFunction(), req.GetArgs(), Action)
	var v value.Value
	if err == nil {
		v, err = f.act(c, args)
	}
	for _, fn := range slices.Backward(c.cleanup) {
		fn()
	}
	fin := c.finish(v, err)
	if fin == nil {
		return nil
	}
	return c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Finished{Finished: fin}})
}

// listen reads what the host says after the request.
func listen(stream pluginpb.Plugin_ExecuteServer, proceed chan<- *pluginpb.Proceed, stop context.CancelCauseFunc) {
	for {
		in, err := stream.Recv()
		if err != nil {
			stop(errors.New("the engine ended the call"))
			return
		}
		switch m := in.GetInput().(type) {
		case *pluginpb.ExecuteInput_Proceed:
			select {
			case proceed <- m.Proceed:
			default:
				stop(errors.New("the engine said proceed twice"))
				return
			}
		case *pluginpb.ExecuteInput_Cancel:
			stop(fmt.Errorf("stopped by the engine: %s", m.Cancel.GetReason()))
		default:
			stop(errors.New("the engine sent something unknown"))
			return
		}
	}
}

// finish is what the function's return means. nil: it was declined, and has said so.
func (c *Call) finish(v value.Value, err error) *pluginpb.Finished {
	var same *noChangeError
	if errors.As(err, &same) && c.at() == preparing {
		if bErr := c.Begin(nil); bErr != nil {
			err = bErr
		}
	}
	fin, phase := &pluginpb.Finished{}, c.at()
	var unsent *resultError
	var unsure *unknownError
	switch {
	case phase == declined:
		return nil
	case err == nil && phase != acting:
		// It may have acted without leave: the engine must hear that it started, and that nobody knows.
		if phase == preparing {
			_ = c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Started{Started: &pluginpb.Started{}}})
		}
		err = errors.New("a mistake in the plugin: the action returned success without leave to act (Begin), so it may have acted")
		fin.Outcome = pluginpb.Outcome_OUTCOME_UNKNOWN
	case err == nil:
		fin.Outcome = pluginpb.Outcome_OUTCOME_SUCCEEDED
	case errors.As(err, &same):
		fin.Outcome, fin.Message, err = pluginpb.Outcome_OUTCOME_NO_CHANGE, pluginpb.Text(same.message), nil
	case errors.As(err, &unsent) && phase == acting:
		fin.Outcome, fin.Message, err = pluginpb.Outcome_OUTCOME_SUCCEEDED, pluginpb.Text("its result could not be sent: "+unsent.Error()), nil
	case phase != acting:
		fin.Outcome = pluginpb.Outcome_OUTCOME_NOT_STARTED
	case errors.As(err, &unsure), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), c.Err() != nil:
		fin.Outcome = pluginpb.Outcome_OUTCOME_UNKNOWN
	default:
		fin.Outcome = pluginpb.Outcome_OUTCOME_FAILED
	}
	if err != nil {
		fin.Message, fin.Diagnostics = pluginpb.Text(err.Error()), diagnostics(err)
		return fin
	}
	if v != nil {
		pv, eErr := pluginpb.Encode(v)
		if eErr != nil {
			fin.Message = pluginpb.Text("its result could not be sent: " + eErr.Error())
		}
		fin.Value = pv
	}
	return fin
}

// find looks a function up and decodes its arguments.
func (s *server) find(name string, args *pluginpb.Dict, kinds ...Kind) (*function, value.Dict, error) {
	if !s.p.ready.Load() {
		return nil, nil, problem.New(problem.PluginFailed, "plugin %s was not configured", s.p.manifest.Name)
	}
	for _, m := range s.p.manifest.Functions {
		if m.Name == name && slices.Contains(kinds, m.Kind) {
			d, err := pluginpb.DecodeDict(args)
			return s.p.functions[name], d, err
		}
	}
	return nil, nil, problem.New(problem.PluginFailed, "plugin %s has no %s %q", s.p.manifest.Name, kinds[0], name)
}

// bounded is ctx that ends with the host too, and a margin before left is over if that is not 0: what remains is for ending
// commands and saying how far it came, before the host kills the process.
func (s *server) bounded(ctx context.Context, left time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	detach := context.AfterFunc(s.base, func() { stop(context.Cause(s.base)) })
	cancel := func() { detach(); stop(nil) }
	if left <= 0 {
		return ctx, cancel
	}
	margin := min(left/10, time.Second)
	ctx, cancelTime := context.WithTimeout(context.WithValue(ctx, marginKey{}, margin), left-margin)
	return ctx, func() { cancelTime(); cancel() }
}

// marginKey is the context key of how much time there is after the context's end.
type marginKey struct{}

// until is what is left of ctx, 0 if it has no end.
func until(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return max(1, time.Until(d))
	}
	return 0
}

func target(t *pluginpb.Target) Target {
	return Target{Key: t.GetKey(), Name: t.GetName(), Labels: t.GetLabels()}
}

func diagnostics(err error) []*pluginpb.Diagnostic {
	return []*pluginpb.Diagnostic{pluginpb.FromError(err)}
}
