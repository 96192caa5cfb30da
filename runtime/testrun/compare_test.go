package testrun

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/trace"
)

// What differs is told once for as long as it does, also where one side has nothing to say; what is the same for other reasons is not told.
func TestCompare(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at := func(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }
	span := func(from, to int, s Span) Span {
		s.Runbook, s.From, s.To = "worker", at(from), at(to)
		if s.Target == "" {
			s.Target = "w1"
		}
		return s
	}
	backtest := func(spans ...Span) *Backtest { return &Backtest{Step: time.Minute, Spans: spans} }
	acted := Span{Outcome: trace.Acted, Actions: []string{"exec.run()"}}
	refused := Span{Outcome: trace.Refused, Refused: []string{"cooldown"}, Reason: "until then"}
	was := backtest(
		span(0, 4, Span{Condition: trace.Pending}), span(5, 5, acted), span(6, 20, refused),
		span(0, 9, Span{Target: "w2", Outcome: trace.Escalated, Reason: "a"}),
		span(3, 3, Span{Target: "w3", Outcome: trace.Acted, Actions: []string{"exec.run()"}}),
	)
	is := backtest(
		span(0, 7, Span{Condition: trace.Pending}), span(8, 8, acted), span(9, 20, Span{Outcome: trace.Refused, Refused: []string{"cooldown"}, Reason: "until later"}),
		span(0, 9, Span{Target: "w2", Outcome: trace.Escalated, Reason: "b"}),
		span(5, 6, Span{Target: "w4", Condition: trace.Unknown}),
	)
	change := func(target string, from, to int, was, is string) Change {
		return Change{Runbook: "worker", Target: target, From: at(from), To: at(to), Was: was, Is: is}
	}
	want := []Change{
		change("w2", 0, 9, "escalated: a", "escalated: b"),
		change("w3", 3, 3, "acted: exec.run()", "healthy"),
		change("w1", 5, 5, "acted: exec.run()", "pending"),
		change("w4", 5, 6, "healthy", "unknown"),
		change("w1", 6, 7, "refused by cooldown", "pending"),
		change("w1", 8, 8, "refused by cooldown", "acted: exec.run()"),
	}
	if diff := cmp.Diff(want, Compare(was, is)); diff != "" {
		t.Error(diff)
	}
	if got := Compare(was, was); len(got) > 0 {
		t.Errorf("a backtest differs from itself: %v", got)
	}
}
