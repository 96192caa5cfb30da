package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
)

// Execute implements Host. The deadline is kept by killing the process group, whatever becomes of ctx.
func (h *Plugins) Execute(ctx context.Context, c Connection, x Execute) (Execution, error) {
	what := c.Plugin + "." + x.Function
	left := time.Until(x.Deadline)
	if left <= 0 {
		return nil, problem.New(problem.Deadline, "%s: no time is left for it", what)
	}
	args, err := encodeArgs(c, x.Function, x.Args)
	if err != nil {
		return nil, err
	}
	pl, err := h.pool(ctx, c)
	if err != nil {
		return nil, err
	}
	if !hasAction(pl.manifest, x.Function) {
		return nil, problem.New(problem.PluginFailed, "plugin %s has no action %q", c.Plugin, x.Function)
	}
	startCtx, cancel := context.WithDeadline(ctx, x.Deadline)
	defer cancel()
	p, err := pl.take(startCtx, true)
	if err != nil {
		return nil, err
	}
	// The stream outlives ctx: what ends it is the end of the action.
	sctx, end := context.WithCancel(context.Background())
	e := &execution{
		what: what, pool: pl, proc: p, end: end,
		started: make(chan struct{}), acting: make(chan struct{}), declined: make(chan struct{}), over: make(chan struct{}),
	}
	e.stream, err = p.rpc.Execute(sctx)
	if err == nil {
		// Reckoned again: starting the plugin took its part.
		err = e.stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Request{Request: &pluginpb.ExecuteRequest{
			Function: x.Function, Args: args, Target: encodeTarget(x.Target), Key: x.Key, TimeoutNs: int64(time.Until(x.Deadline)),
		}}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the stream has ended, and Recv says why
		pr := p.callError(what, err)
		e.abandon()
		return nil, pr
	}
	e.timer = time.AfterFunc(time.Until(x.Deadline), func() {
		e.kill(problem.New(problem.PluginTimeout, "%s: it did not end by its deadline and was killed", what))
	})
	go e.read()
	select {
	case <-e.started:
	case <-e.over:
	case <-ctx.Done():
		e.kill(problem.Wrap(problem.Interrupted, ctx.Err(), "%s: stopped before it started", what))
		<-e.over
	}
	return e, nil
}

func hasAction(m sdk.Manifest, name string) bool {
	for _, f := range m.Functions {
		if f.Name == name {
			return f.Kind != sdk.Query && f.Kind != sdk.Analysis
		}
	}
	return false
}

// execution is one action on a process of its own.
type execution struct {
	what   string
	pool   *pool
	proc   *process
	stream pluginpb.Plugin_ExecuteClient
	end    context.CancelFunc
	timer  *time.Timer

	// Closed by read as the plugin says so, over when nothing more will come.
	started, acting, declined, over chan struct{}

	mu      sync.Mutex
	receipt []byte
	child   action.Child
	told    bool // to go
	killed  *problem.Problem
	result  *pluginpb.Finished
	broken  *problem.Problem // why there is no result
}

var _ Execution = (*execution)(nil)

// read follows the stream to its end and hands the process back, or kills it.
func (e *execution) read() {
	clean := e.follow()
	e.timer.Stop()
	if clean {
		close(e.over)
		e.end()
		e.pool.put(e.proc)
		return
	}
	e.mu.Lock()
	known := e.result != nil && e.definiteLocked()
	e.mu.Unlock()
	if !known {
		// A command of an action that ended well may have left a daemon in its group: that one is meant to live.
		e.killAll()
	}
	close(e.over)
	e.abandon()
}

// follow returns true if the plugin kept to the protocol and its function has returned.
func (e *execution) follow() bool {
	for {
		ev, err := e.stream.Recv()
		if err != nil {
			return e.ended(err)
		}
		if err := e.event(ev); err != nil {
			e.mu.Lock()
			e.result, e.broken = nil, problem.New(problem.PluginFailed, "%s: the plugin broke the protocol: %v", e.what, err)
			e.mu.Unlock()
			return false
		}
	}
}

// ended judges the end of the stream.
func (e *execution) ended(err error) bool {
	e.mu.Lock()
	settled, killed := e.result != nil || isClosed(e.declined), e.killed
	e.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF) && settled:
		return killed == nil && e.definite()
	case settled:
		return false // it said how it ended, and then something broke: the word counts, the process does not
	case errors.Is(err, io.EOF):
		err = problem.New(problem.PluginFailed, "%s: the plugin ended the call without a result", e.what)
	case killed != nil:
		err = killed.WithDetail(e.proc.lastWords()...)
	default:
		err = e.proc.callError(e.what, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	errors.As(err, &e.broken)
	return false
}

// definite says whether the outcome leaves no doubt about what the process still does.
func (e *execution) definite() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.definiteLocked()
}

func (e *execution) definiteLocked() bool {
	switch e.result.GetOutcome() {
	case pluginpb.Outcome_OUTCOME_UNSPECIFIED, pluginpb.Outcome_OUTCOME_UNKNOWN:
		return e.result == nil // declined
	}
	return true
}

// event takes in what the plugin said.
func (e *execution) event(ev *pluginpb.ExecuteEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.result != nil {
		return errors.New("it went on after the result")
	}
	switch m := ev.GetEvent().(type) {
	case *pluginpb.ExecuteEvent_Started:
		if isClosed(e.started) {
			return errors.New("it started twice")
		}
		e.child = e.proc.child()
		if c := m.Started.GetChild(); c != nil {
			own, ok := leads(action.Child{PID: int(c.GetPid()), Start: c.GetStart(), Group: int(c.GetGroup())}, e.child.PID)
			if !ok {
				return fmt.Errorf("the process group %d that it named is not its own", own.Group)
			}
			e.child = own
		}
		e.receipt = m.Started.GetReceipt()
		close(e.started)
	case *pluginpb.ExecuteEvent_Acting:
		if !e.told || isClosed(e.acting) {
			return errors.New("it acted without leave")
		}
		close(e.acting)
	case *pluginpb.ExecuteEvent_Declined:
		if e.told || !isClosed(e.started) || isClosed(e.declined) {
			return errors.New("it declined what it was not asked")
		}
		close(e.declined)
	case *pluginpb.ExecuteEvent_Finished:
		if isClosed(e.declined) {
			return errors.New("it finished after it had declined")
		}
		e.result = m.Finished
		// Without leave nothing can have succeeded or failed: a plugin that says so has acted on its own.
		if !e.told && m.Finished.GetOutcome() != pluginpb.Outcome_OUTCOME_NOT_STARTED {
			e.result = &pluginpb.Finished{Outcome: pluginpb.Outcome_OUTCOME_UNKNOWN, Message: "it acted without leave: " + m.Finished.GetMessage()}
			if !isClosed(e.started) {
				e.child = e.proc.child()
				close(e.started)
			}
		}
	case *pluginpb.ExecuteEvent_Progress:
	default:
		return errors.New("it said something unknown (the plugin may be newer)")
	}
	return nil
}

// Started implements Execution.
func (e *execution) Started() ([]byte, action.Child, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if isClosed(e.started) {
		return e.receipt, e.child, nil
	}
	if e.result != nil {
		pr := pluginpb.ToProblem(e.result.GetDiagnostics(), problem.PluginFailed)
		if pr == nil {
			pr = problem.New(problem.PluginFailed, "%s", pluginpb.Text(e.result.GetMessage()))
		}
		return nil, action.Child{}, e.proc.secret.problem(pr, "%s", e.what)
	}
	if e.broken != nil {
		return nil, action.Child{}, e.broken
	}
	return nil, action.Child{}, problem.New(problem.PluginFailed, "%s: it did not start", e.what)
}

// Proceed implements Execution.
func (e *execution) Proceed(ctx context.Context) error {
	e.mu.Lock()
	over := isClosed(e.over) || e.result != nil
	e.told = e.told || !over
	e.mu.Unlock()
	if over {
		return e.doubt()
	}
	err := e.stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Proceed{Proceed: &pluginpb.Proceed{Go: true}}})
	if err != nil {
		e.kill(problem.Wrap(problem.PluginFailed, err, "%s: proceed", e.what))
		<-e.over
		return e.doubt()
	}
	timer := time.NewTimer(actingWithin)
	defer timer.Stop()
	select {
	case <-e.acting:
		return nil
	case <-e.over:
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.result != nil && e.broken == nil {
			return nil // it ended at once: Wait says how
		}
		return e.broken
	case <-timer.C:
		e.kill(problem.New(problem.PluginTimeout, "%s: told to act, it did not say within %s that it does, and was killed", e.what, actingWithin))
	case <-ctx.Done():
		e.kill(problem.Wrap(problem.Interrupted, ctx.Err(), "%s: stopped while it began to act", e.what))
	}
	<-e.over
	return e.doubt()
}

// Decline implements Execution.
func (e *execution) Decline(ctx context.Context, reason string) error {
	err := e.stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Proceed{Proceed: &pluginpb.Proceed{Reason: reason}}})
	if err != nil {
		e.kill(problem.Wrap(problem.PluginFailed, err, "%s: decline", e.what))
	}
	timer := time.NewTimer(actingWithin)
	defer timer.Stop()
	select {
	case <-e.declined:
		return nil
	case <-e.over:
	case <-timer.C:
		e.kill(problem.New(problem.PluginTimeout, "%s: told not to act, it did not acknowledge within %s, and was killed", e.what, actingWithin))
	case <-ctx.Done():
		e.kill(problem.Wrap(problem.Interrupted, ctx.Err(), "%s: stopped while it was told not to act", e.what))
	}
	<-e.over
	e.mu.Lock()
	clean := isClosed(e.declined) || e.result.GetOutcome() == pluginpb.Outcome_OUTCOME_NOT_STARTED
	e.mu.Unlock()
	if clean {
		return nil
	}
	return e.doubt()
}

// Wait implements Execution.
func (e *execution) Wait(ctx context.Context) (Finished, error) {
	select {
	case <-e.over:
	case <-ctx.Done():
		why := problem.Wrap(problem.Interrupted, ctx.Err(), "%s: stopped", e.what)
		_ = e.stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Cancel{Cancel: &pluginpb.Cancel{Reason: ctx.Err().Error()}}})
		select {
		case <-e.over:
		case <-time.After(cancelGrace):
			e.kill(why)
			<-e.over
		}
	}
	e.mu.Lock()
	r, broken := e.result, e.broken
	e.mu.Unlock()
	if r == nil {
		return Finished{}, orElse(broken, e.what)
	}
	f := Finished{Value: value.Null{}, Message: e.proc.secret.text(pluginpb.Text(r.GetMessage()))}
	switch r.GetOutcome() {
	case pluginpb.Outcome_OUTCOME_SUCCEEDED:
		f.State = action.Succeeded
	case pluginpb.Outcome_OUTCOME_NO_CHANGE:
		f.State = action.NoChange
	case pluginpb.Outcome_OUTCOME_FAILED:
		f.State = action.Failed
	case pluginpb.Outcome_OUTCOME_NOT_STARTED:
		f.State, f.Message = action.Failed, "it was told to act and did not: "+f.Message
	default:
		return Finished{}, e.doubt()
	}
	if r.GetValue() != nil {
		v, err := pluginpb.Decode(r.GetValue())
		if err != nil {
			// How it ended is known all the same.
			f.Message = joinText(f.Message, fmt.Sprintf("its result is not readable: %v", err))
			return f, nil
		}
		f.Value = v
	}
	return f, nil
}

// doubt is the error of an action that may have happened.
func (e *execution) doubt() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.result != nil && e.broken == nil {
		pr := pluginpb.ToProblem(e.result.GetDiagnostics(), problem.InDoubt)
		if pr == nil {
			pr = problem.New(problem.InDoubt, "%s", pluginpb.Text(e.result.GetMessage()))
		}
		return e.proc.secret.problem(pr, "%s", e.what)
	}
	return orElse(e.broken, e.what)
}

func orElse(pr *problem.Problem, what string) error {
	if pr != nil {
		return pr
	}
	return problem.New(problem.InDoubt, "%s: its outcome is not known", what)
}

// Kill implements Execution.
func (e *execution) Kill() {
	e.kill(problem.New(problem.InDoubt, "%s: it was killed", e.what))
}

// kill ends the group, and makes why the reason, unless the action is over.
func (e *execution) kill(why *problem.Problem) {
	e.mu.Lock()
	over := isClosed(e.over)
	if e.killed == nil && !over {
		e.killed = why
	}
	e.mu.Unlock()
	if over {
		return
	}
	e.killAll()
	e.end() // the stream ends even if the process hangs in the kernel
}

// killAll kills the plugin first, so that it cannot report the death of its own child as a failure of the action.
func (e *execution) killAll() {
	e.proc.kill()
	e.mu.Lock()
	c := e.child
	e.mu.Unlock()
	if own := e.proc.child(); c.Group != 0 && c.Group != own.Group {
		killGroup(c)
	}
}

// abandon gives up the process: nothing else is asked of it.
func (e *execution) abandon() {
	e.proc.kill()
	e.end()
	e.pool.retire(e.proc)
	e.pool.put(e.proc)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
