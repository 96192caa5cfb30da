package action

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(d time.Duration) Clock { return Clock{Wall: epoch.Add(d), Trusted: d} }

func newStep(n int) Step {
	id := Identity{Namespace: "ns", Runbook: "worker", Target: "instance=w3", Episode: "e1", Attempt: 1, Step: n}
	return Step{
		Identity: id, Key: id.Key(), ID: ShortID(id.Key()), Nonce: "nonce", Run: "r1", Action: "systemd.restart",
		Args: value.Dict{{Key: value.String("unit"), Value: value.String("worker.service")}}, Reason: "queue stuck",
	}
}

func show(s *Step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", words(s.State))
	if s.Outcome != nil {
		fmt.Fprintf(&b, " outcome=%s/%s", s.Outcome.By, s.Outcome.Message)
	}
	for _, l := range s.Late {
		fmt.Fprintf(&b, " late=%s/%s/%s", l.State, l.By, l.Message)
	}
	if s.Resolved != nil {
		fmt.Fprintf(&b, " resolved=%s by %s: %s", s.Resolved.As, s.Resolved.By, s.Resolved.Reason)
	}
	fmt.Fprintf(&b, "\nhistory:")
	for _, c := range s.History {
		fmt.Fprintf(&b, " %s@%s", c.To, c.At.Sub(epoch))
	}
	return b.String() + "\n"
}

func wording(err error) string {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return "not a problem: " + err.Error() + "\n"
	}
	out := fmt.Sprintf("error[%s]: %s\n", p.Code, p.Message)
	if p.Hint != "" {
		out += "hint: " + p.Hint + "\n"
	}
	return out
}

// arg returns an optional argument of a script line.
func arg(d *datadriven.TestData, key string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return strings.ReplaceAll(strings.Join(a.Vals, ","), "_", " ")
		}
	}
	return ""
}

func argTime(t *testing.T, d *datadriven.TestData, key string) time.Duration {
	t.Helper()
	text := arg(d, key)
	if text == "" {
		return 0
	}
	got, err := time.ParseDuration(text)
	if err != nil {
		d.Fatalf(t, "%s: %v", key, err)
	}
	return got
}

// Scripts: "step" makes a fresh step, "apply to=STATE by=WHO [why=] [outcome=MESSAGE] [nonce=] [person=] at=" applies an event;
// an underscore in an argument stands for a space, "to=not-done" for a state with an underscore.
func TestStepScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/step", func(t *testing.T, path string) {
		t.Parallel()
		s := newStep(1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "step":
				s = newStep(1)
				return show(&s)
			case "apply":
				e := Event{
					To: StepState(strings.ReplaceAll(arg(d, "to"), "-", "_")), By: arg(d, "by"), Why: arg(d, "why"),
					Nonce: arg(d, "nonce"), Person: arg(d, "person"),
				}
				if d.HasArg("outcome") {
					e.Outcome = &Outcome{Message: arg(d, "outcome")}
				}
				if err := s.Apply(e, at(argTime(t, d, "at"))); err != nil {
					return wording(err)
				}
				return show(&s)
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

// Scripts: "attempt steps=STATE,STATE" makes a fresh attempt with steps in these states that ended at 1m, 2m, ...; "apply to= by= [why=]
// [person=] [forget] at=" applies an event, with one step left out if forget is given; "steps" sets the states anew.
func TestAttemptScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/attempt", func(t *testing.T, path string) {
		t.Parallel()
		var a Attempt
		var steps []Step
		set := func(d *datadriven.TestData, key string) {
			steps, a.Steps = nil, nil
			for i, state := range strings.Split(arg(d, key), ",") {
				s := newStep(i + 1)
				s.State = StepState(strings.ReplaceAll(state, "-", "_"))
				if s.State.Settled() || s.State == InDoubt {
					s.EndedAt = at(time.Duration(i+1) * time.Minute)
				}
				steps, a.Steps = append(steps, s), append(a.Steps, s.Key)
			}
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "attempt":
				a = Attempt{ID: "a1", Number: 1}
				set(d, "steps")
				return words(a.State) + "\n"
			case "steps":
				set(d, "are")
				return words(a.State) + "\n"
			case "apply":
				e := AttemptEvent{To: AttemptState(arg(d, "to")), By: arg(d, "by"), Why: arg(d, "why"), Person: arg(d, "person"), Steps: steps}
				if d.HasArg("forget") {
					e.Steps = steps[1:]
				}
				if err := a.Apply(e, at(argTime(t, d, "at"))); err != nil {
					return wording(err)
				}
				out := words(a.State)
				if !a.EndedAt.IsZero() {
					out += fmt.Sprintf(" ended=%s", a.EndedAt.Trusted)
				}
				if a.Verify.Detail != "" {
					out += " detail=" + a.Verify.Detail
				}
				out += "\nhistory:"
				for _, c := range a.History {
					out += fmt.Sprintf(" %s@%s(%s)", c.To, c.At.Sub(epoch), c.Why)
				}
				return out + fmt.Sprintf("\nholds=%v began=%v\n", a.State.Holds(), Began(steps))
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

// Scripts: "judge [op=] [threshold=] [expect=] [max-age=] held= settle= within= sampling= now=" with lines "TIME VALUE"; the attempt ended at 0s.
func TestJudgeScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/judge", func(t *testing.T, path string) {
		t.Parallel()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			v := Verification{
				Expr: "depth", Op: ">", Threshold: 1000, Expect: arg(d, "expect"),
				Held: argTime(t, d, "held"), Settle: argTime(t, d, "settle"), Within: argTime(t, d, "within"), Sampling: argTime(t, d, "sampling"),
			}
			if d.HasArg("max-age") {
				v.MaxAge = argTime(t, d, "max-age")
			}
			if d.HasArg("op") {
				v.Op = arg(d, "op")
			}
			if d.HasArg("nothing") {
				v.Expr = ""
			}
			var samples []Sample
			for line := range strings.SplitSeq(strings.TrimSpace(d.Input), "\n") {
				var when string
				var x float64
				if line == "" {
					continue
				}
				if _, err := fmt.Sscan(line, &when, &x); err != nil {
					d.Fatalf(t, "%q: %v", line, err)
				}
				since, err := time.ParseDuration(when)
				if err != nil {
					d.Fatalf(t, "%q: %v", line, err)
				}
				samples = append(samples, Sample{At: epoch.Add(since), Value: x})
			}
			now := epoch.Add(argTime(t, d, "now"))
			state, detail, done := Judge(v, epoch, now, samples)
			// The order in which samples arrive must not matter.
			sort.SliceStable(samples, func(i, j int) bool { return samples[i].At.After(samples[j].At) })
			if again, _, _ := Judge(v, epoch, now, samples); again != state {
				d.Fatalf(t, "in reverse order it is %s", again)
			}
			return fmt.Sprintf("%s done=%v\n%s\n", state, done, detail)
		})
	})
}
