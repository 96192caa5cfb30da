package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// probesWithin is how long all probes of a run may take together: they come before everything else.
const probesWithin = 30 * time.Second

// probe asks the plugins of actions in doubt what became of them, in processes of this run. One that cannot tell, or does not answer, leaves its
// action in doubt, and keeps nothing else from going on. Where nobody knows what the store holds, nothing may.
func (e *engine) probe(ctx context.Context) error {
	if err := e.doubts(ctx); err != nil || len(e.doubtful) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probesWithin)
	defer cancel()
	g := errgroup.Group{}
	g.SetLimit(8)
	for _, d := range e.doubtful {
		g.Go(func() error {
			news, err := e.probeOne(ctx, d)
			switch {
			case errors.Is(err, store.ErrUnknown):
				return fmt.Errorf("record what became of %s: %w", d.ID, err)
			case err != nil:
				e.mu.Lock()
				defer e.mu.Unlock()
				e.problem(e.asProblem(problem.PluginFailed, err, "ask what became of %s (%s on %s)", d.ID, d.Action, d.Target))
			case news != nil:
				return e.tell(ctx, *news)
			}
			return nil
		})
	}
	return g.Wait()
}

// probeOne asks about one action. What it returns is to be told: the action is no longer in doubt.
func (e *engine) probeOne(ctx context.Context, d ledger.Doubt) (*notify.Notice, error) {
	s, err := ledger.Step(ctx, e.Store, d.ID)
	if err != nil || s.State != action.InDoubt || !e.gone(s.Owner, s.BegunAt) {
		return nil, err // whoever owns it still knows more than we do
	}
	plugin, function, _ := strings.Cut(s.Action, ".")
	m, err := e.Host.Manifest(ctx, plugin)
	if err != nil {
		return nil, err
	}
	can := false
	for _, f := range m.Functions {
		can = can || f.Name == function && f.CanProbe
	}
	conn, known := e.Settings.Connection(s.Connection)
	if !can || !known {
		return nil, nil
	}
	c, err := e.connection(conn)
	if err != nil {
		return nil, err
	}
	a, _, err := ledger.Attempt(ctx, e.Store, s.Identity.AttemptID())
	if err != nil {
		return nil, err
	}
	found, err := e.Host.Probe(ctx, c, pluginhost.Probe{Function: function, Args: s.Args, Target: a.Target, Key: s.Key, Receipt: s.Receipt})
	if err != nil {
		return nil, err
	}
	if found.State != action.ResolvedDone && found.State != action.ResolvedNotDone {
		return nil, nil
	}
	why := fmt.Sprintf("plugin %s was asked and says so", plugin)
	if found.Message != "" {
		why = fmt.Sprintf("plugin %s was asked and says: %s", plugin, clip(found.Message, 200))
	}
	s, a, err = ledger.Resolve(ctx, e.Store, e.Sample, s, action.Event{To: found.State, By: action.ByProbe, Outcome: &action.Outcome{Message: found.Message}, Why: why})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.run.Recovered = append(e.run.Recovered, trace.Recovered{Attempt: a.ID, Step: s.ID, Action: s.Action, Target: s.Identity.Target, Runbook: s.Identity.Runbook, To: s.State, Why: why})
	e.mu.Unlock()
	return &notify.Notice{
		Runbook: a.Runbook, Target: a.Target.Key, Episode: a.Episode, Owner: a.Notify, Run: e.run.ID, At: e.wall(), Kind: notify.Info,
		Reason: "no longer in doubt: " + s.ID, Text: fmt.Sprintf("%s (%s on %s) is no longer in doubt: %s; %s", s.ID, s.Action, a.Target.Name, strings.ReplaceAll(string(s.State), "_", " "), why),
	}, nil
}
