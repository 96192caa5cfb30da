package breaker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(d time.Duration) action.Clock { return action.Clock{Wall: epoch.Add(d), Trusted: d} }

// Scripts: each line "TIME EVENT key=value..." is applied to a new document; what it became is printed.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.RunTest(t, "testdata/breaker", func(t *testing.T, td *datadriven.TestData) string {
		t.Helper()
		d := New()
		var out strings.Builder
		for line := range strings.SplitSeq(td.Input, "\n") {
			fields := strings.Fields(line)
			when, err := time.ParseDuration(fields[0])
			if err != nil {
				td.Fatalf(t, "%v", err)
			}
			a := map[string]string{}
			for _, f := range fields[2:] {
				k, v, _ := strings.Cut(f, "=")
				a[k] = strings.ReplaceAll(v, "_", " ")
			}
			e := map[string]Event{
				"judged":  Judged{Policy: Policy{Count: len(a["count"])}},
				"badly":   WentBadly{Attempt: a["id"], Runbook: "worker", Target: "w" + a["id"], What: a["what"]},
				"late":    Contradicted{Attempt: a["id"], Runbook: "worker", Target: "w" + a["id"], What: "it says something else"},
				"began":   Began{Attempt: a["id"]},
				"held":    Ended{Attempt: a["id"], Held: true},
				"ended":   Ended{Attempt: a["id"]},
				"over":    Looked{Fleet: a["fleet"], Runbook: a["runbook"], Over: true, Bad: 5, Members: 10},
				"healthy": Looked{Fleet: a["fleet"], Runbook: a["runbook"], Members: 10},
				"open":    OpenedBy{Person: "ann", Reason: a["why"]},
				"reset":   ResetBy{Person: "ann", Reason: a["why"]},
			}[fields[1]]
			if e == nil {
				td.Fatalf(t, "no event %q", fields[1])
			}
			before := d
			d, err = d.Apply(e, at(when))
			if err != nil {
				fmt.Fprintf(&out, "%s: error: %v\n", line, err)
				continue
			}
			fmt.Fprintf(&out, "%s: %s", line, d)
			if n := len(d.Badly(d.Policy, at(when))); n > 0 && d.State == Closed {
				fmt.Fprintf(&out, ", %d went badly", n)
			}
			if d.Canary != "" {
				fmt.Fprintf(&out, ", %s is trying", d.Canary)
			}
			if w := d.HeldBy(at(when)); w != nil {
				fmt.Fprintf(&out, ", held by %s", fleets(w))
			}
			for _, c := range d.Changes {
				if c.Seq > before.Seq {
					fmt.Fprintf(&out, "; told: %s", c.To)
				}
			}
			out.WriteString("\n")
		}
		return out.String()
	})
}

// Whatever happens in whatever order: it is never closed while enough went badly, leaves open only by a person, never has two canaries, numbers its
// changes without a gap, survives being stored at any moment without deciding differently, and Apply changes nothing but what it returns.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := New()
		var now action.Clock
		id := func() string { return fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "id")) }
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now.Trusted += time.Duration(rapid.IntRange(0, 1800).Draw(t, "step")) * time.Second
			now.Wall = epoch.Add(now.Trusted + time.Duration(rapid.IntRange(-3600, 3600).Draw(t, "wall"))*time.Second)
			e := []Event{
				Judged{Policy{Count: rapid.IntRange(0, 4).Draw(t, "count")}},
				WentBadly{Attempt: id(), What: "failed"},
				WentBadly{Attempt: id(), What: "in doubt"},
				Contradicted{Attempt: id()},
				Began{id()},
				Ended{id(), true},
				Ended{id(), false},
				Looked{Fleet: id(), Runbook: "a", Over: rapid.Bool().Draw(t, "over")},
				OpenedBy{"ann", "r"},
				ResetBy{"ann", "r"},
				ToldOf{d.Seq},
			}[rapid.IntRange(0, 10).Draw(t, "event")]
			before := mustEncode(t, d)
			next, err := d.Apply(e, now)
			if got := mustEncode(t, d); got != before {
				t.Fatalf("%T changed what it was given: %s", e, cmp.Diff(before, got))
			}
			again, err2 := Decode([]byte(before)).Apply(e, now)
			if diff := cmp.Diff(mustEncode(t, next), mustEncode(t, again)); diff != "" || (err == nil) != (err2 == nil) {
				t.Fatalf("%T after it was stored: %v, %v, %s", e, err, err2, diff)
			}
			if err != nil {
				if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code == problem.Internal && d.State == Closed {
					t.Fatalf("%T: %v", e, err)
				}
				continue
			}
			_, reset := e.(ResetBy)
			_, judged := e.(Judged)
			_, badly := e.(WentBadly)
			switch {
			case d.State == Open && next.State != Open && !reset:
				t.Fatalf("%T led from open to %s", e, next.State)
			case d.State == HalfOpen && badly && next.State != Open && len(next.Bad) > len(d.Bad):
				t.Fatalf("half-open, %+v, and it is %s", e, next.State)
			case (judged || badly) && next.State == Closed && len(next.Badly(next.Policy, now)) >= next.Policy.WithDefaults().Count:
				t.Fatalf("closed with %d that went badly", len(next.Badly(next.Policy, now)))
			case next.State != HalfOpen && next.Canary != "":
				t.Fatalf("%s with a canary", next.State)
			case d.Canary != "" && next.Canary != "" && d.Canary != next.Canary:
				t.Fatalf("canary %s became %s", d.Canary, next.Canary)
			case next.State != d.State && next.Seq != d.Seq+1:
				t.Fatalf("from %s to %s without a word", d.State, next.State)
			case len(next.Changes) > maxChanges || len(next.Changes) > 0 && next.Changes[len(next.Changes)-1].Seq != next.Seq:
				t.Fatalf("changes %+v, seq %d", next.Changes, next.Seq)
			}
			d = next
		}
	})
}

func mustEncode(t *rapid.T, d Doc) string {
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The stored form, which later versions must read.
func TestGolden(t *testing.T) {
	t.Parallel()
	const golden = `{"v":1,"state":"half-open","since":{"wall":"2026-03-01T11:00:00Z","trusted":3600000000000},"reason":"looked","by":"ann","policy":{"count":3,"window":3600000000000,"canaries":3},"bad":[{"attempt":"a","runbook":"r","target":"t","what":"failed","at":{"wall":"2026-03-01T10:30:00Z","trusted":1800000000000}}],"canary":"c","held":1,"wide":[{"fleet":"f","runbook":"r","bad":5,"members":10,"at":{"wall":"2026-03-01T10:30:00Z","trusted":1800000000000}}],"changes":[{"seq":2,"to":"half-open","at":"2026-03-01T11:00:00Z","why":"looked","by":"ann"}],"seq":2,"told":1}`
	d := Doc{
		V: 1, State: HalfOpen, Since: at(time.Hour), Reason: "looked", By: "ann", Policy: Defaults(), Canary: "c", Held: 1, Seq: 2, Told: 1,
		Bad:     []Bad{{Attempt: "a", Runbook: "r", Target: "t", What: "failed", At: at(30 * time.Minute)}},
		Wide:    []Wide{{Fleet: "f", Runbook: "r", Bad: 5, Members: 10, At: at(30 * time.Minute)}},
		Changes: []Change{{Seq: 2, To: "half-open", At: epoch.Add(time.Hour), Why: "looked", By: "ann"}},
	}
	b, err := d.Encode()
	if err != nil || string(b) != golden {
		t.Errorf("%v\n%s", err, b)
	}
	if diff := cmp.Diff(d, Decode([]byte(golden))); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "{", "null", golden + "x", strings.Replace(golden, "half-open", "ajar", 1), strings.Replace(golden, `"v":1`, `"v":2`, 1)} {
		if d := Decode([]byte(bad)); d.State != Open || !slices.Contains([]bool{d.Reason != ""}, true) {
			t.Errorf("%q: %+v", bad, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := New().Encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := Decode(b)
		if d.State != Open && d.State != Closed && d.State != HalfOpen {
			t.Errorf("%q: %+v", b, d)
		}
	})
}
