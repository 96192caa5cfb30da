package sdktest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// lands is how long after a kill a request that was on its way may still take effect.
const lands = 300 * time.Millisecond

// Kills carries each effect of a suite out so many times, kills the plugin's program at a random moment of each, and holds what the engine would
// record against the world itself: what was not told to go has not happened, what has ended well has, and a probe by a new process is
// right wherever it claims to know. seed makes it the same moments again.
func Kills(t *testing.T, s Suite, times int, seed uint64) {
	for _, e := range s.Effects {
		t.Run(e.Function, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // moments, not secrets
			e.undo()
			p := s.start(t)
			began := time.Now()
			if o := p.Act(e.Action); o.Outcome != pluginpb.Outcome_OUTCOME_SUCCEEDED {
				t.Fatalf("left alone: %+v", o)
			}
			most := time.Since(began) * 5 / 4
			p.Kill()
			seen := map[string]int{}
			for range times {
				moment := time.Duration(random.Int64N(int64(most)))
				record, known := s.killed(t, e, moment)
				if seen[record+", "+known]++; t.Failed() {
					t.Fatalf("killed %s after the request, seed %d", moment, seed)
				}
			}
			t.Logf("killed within %s: %v", most, seen)
		})
	}
}

// killed is one kill, and returns what the record would be, and what a probe says where that is in doubt.
func (s Suite) killed(t *testing.T, e Effect, moment time.Duration) (record, known string) {
	t.Helper()
	e.undo()
	if e.Happened() {
		t.Fatal("undone, the effect is still there")
	}
	p := s.start(t)
	stream, err := p.rpc.Execute(t.Context())
	p.check(err)
	kill := time.AfterFunc(moment, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	var told bool
	var receipt []byte
	var outcome *pluginpb.Finished
	for err = stream.Send(p.request(e.Action)); err == nil; {
		var ev *pluginpb.ExecuteEvent
		if ev, err = stream.Recv(); err != nil {
			break
		}
		if started := ev.GetStarted(); started != nil {
			receipt, told = started.GetReceipt(), true
			err = stream.Send(&pluginpb.ExecuteInput{Input: &pluginpb.ExecuteInput_Proceed{Proceed: &pluginpb.Proceed{Go: true}}})
		}
		if outcome = ev.GetFinished(); outcome != nil {
			break
		}
	}
	kill.Stop()
	p.Kill()
	switch {
	case outcome != nil && outcome.GetOutcome() != pluginpb.Outcome_OUTCOME_SUCCEEDED:
		t.Errorf("it ended by itself with %s: %s", outcome.GetOutcome(), outcome.GetMessage())
		return "failed", ""
	case outcome != nil:
		if !e.Happened() {
			t.Error("it said that it had succeeded, and the effect is not there")
		}
		return "succeeded", ""
	case !told:
		time.Sleep(lands) //nolint:forbidigo // nothing tells that something does not come
		if e.Happened() {
			t.Error("it was not told to go, and the effect is there")
		}
		return "not started", ""
	}
	return "in doubt", s.probed(t, e, receipt)
}

// probed is what a new process says of an action in doubt, which must be so, and must stay so.
func (s Suite) probed(t *testing.T, e Effect, receipt []byte) string {
	t.Helper()
	q := s.start(t)
	defer q.Kill()
	can := slices.ContainsFunc(manifest(t, q).Functions, func(f sdk.Function) bool { return f.Name == e.Function && f.CanProbe })
	if !can {
		time.Sleep(lands) //nolint:forbidigo // what comes late is of this kill, not of the next
		return "a person decides"
	}
	r, err := q.Probe(e.Action, receipt)
	if err != nil {
		t.Errorf("a probe gives %v", err)
	}
	switch r.GetState() {
	case pluginpb.ProbeState_PROBE_STATE_DONE:
		if !e.Happened() {
			t.Errorf("a probe says that it is done, and it is not: %s", r.GetMessage())
		}
		return "done"
	case pluginpb.ProbeState_PROBE_STATE_NOT_DONE:
		time.Sleep(lands) //nolint:forbidigo // nothing tells that something does not come
		if e.Happened() {
			t.Errorf("a probe says that it is not done, and it is: %s", r.GetMessage())
		}
		return "not done"
	}
	time.Sleep(lands) //nolint:forbidigo // as above
	return "unknown"
}
