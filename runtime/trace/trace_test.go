package trace

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens anew")

var at = time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC)

func pos(line, col int) value.Pos { return value.Pos{File: "worker.star", Line: line, Col: col} }

// everything is a run in which everything happened that a trace can hold.
func everything() *Run {
	depth := 2000.0
	return &Run{
		V: Version, ID: "20260301-102000-ABCDEF", Engine: "1.2.3", Namespace: "ns", Owner: action.Owner{Host: "h1", Boot: "b1", PID: 12, Start: 345},
		Trigger: "schedule", Started: at, Ended: at.Add(1500 * time.Millisecond), Policy: "p1",
		Halt:      []control.HaltInfo{{Source: "file", Reason: "fire", By: "ann@h1", At: at.Add(-time.Hour)}, {Source: "environment"}},
		Recovered: []Recovered{{Attempt: "att1", Step: "step1", Action: "exec.run", Target: "instance=w1", Runbook: "worker", To: action.InDoubt, Why: "its run ended"}},
		Verified: []Verified{
			{Attempt: "att2", Runbook: "worker", Target: "instance=w2", State: action.Verified, Detail: "healthy for 5m"},
			{Attempt: "att3", Runbook: "worker", Target: "instance=w5", State: action.Complete, Detail: "not healthy yet"},
		},
		InDoubt:  []Doubt{{Step: "step1", Action: "exec.run", Target: "instance=w1", Runbook: "worker", Since: at.Add(-time.Minute), Nonce: "nonce1"}},
		Problems: []*problem.Problem{problem.New(problem.NoticeFailed, "1 of 2 notices could not be delivered").WithDetail("hook: 500").WithHint("they are kept")},
		Exit:     problem.ExitFailed,
		Runbooks: []*Runbook{
			{
				Name: "worker", Path: "worker.star", Owner: "team", Mode: guard.Auto, Digest: "d1", Due: true, Why: "every 1m: slot 10:20:00 UTC",
				Params:  value.Dict{{Key: value.String("limit"), Value: value.Int(1000)}},
				Symptom: "queue_depth > 1000", Held: "5m", Fleet: &Fleet{Members: 7, Sick: 2, Pending: 1, Unknown: 1, Missing: 1},
				Queries: []*Query{
					{Function: "symptom", Expr: "queue_depth", At: at, Answer: `{instance="w3"} 2000 (21 points from 1500 to 2000)`, Took: time.Millisecond},
					{Function: "fleet", Expr: "up", At: at, Error: "no answer"},
				},
				Targets: []*Target{
					{Key: "instance=w1", Name: "w1", Condition: Sick, Why: "held", Evaluation: &Evaluation{Episode: "e0", Number: 1, Outcome: Skipped, Reason: "in doubt"}},
					{Key: "instance=w2", Name: "w2", Condition: Healthy, Why: "5, not > 1000"},
					{
						Key: "instance=w3", Name: "w3", Condition: Sick, Value: &depth, MeasuredAt: at.Add(-10 * time.Second), Why: "2000 > 1000, held for 5m",
						Labels:     map[string]string{"instance": "w3"},
						Evaluation: evaluation(),
					},
					{Key: "instance=w4", Name: "w4", Condition: Pending, Why: "not for all of the last 5m"},
					{Key: "instance=w5", Name: "w5", Condition: Unknown, Why: "no data for queue_depth"},
					{Key: "instance=w6", Name: "w6", Condition: Missing, Why: "was there within 15m and is gone"},
					{Key: "instance=w7", Name: "w7", Condition: Healthy, Why: "1, not > 1000"},
				},
			},
			{Name: "later", Path: "later.star", Owner: "team", Mode: guard.Shadow, Why: "every 1h: the slot of 10:00:00 has been run"},
			{Name: "broken", Path: "broken.star", Why: "it could not be loaded", Problem: problem.New(problem.Syntax, "got newline, want primary expression").At(value.Pos{File: "broken.star", Line: 3, Col: 9}).WithHint("close it")},
		},
	}
}

func evaluation() *Evaluation {
	return &Evaluation{
		Episode: "e1", Number: 2, Outcome: DoubtRemains, Reason: "exec.run on w3 began and its outcome is unknown", Dropped: 3, Steps: 1234, Attempt: "att4", State: action.Interrupted,
		Problem: problem.New(problem.InDoubt, "exec.run on w3 began and its outcome is unknown").At(pos(26, 5)).WithHint("look at w3"),
		Events: []Event{
			{Branch: &sandbox.Event{Kind: "branch", Pos: pos(20, 8), Source: "disk > ctx.params.slow", Result: "false", Values: []sandbox.Seen{{Source: "disk", Value: "0.1"}, {Source: "ctx.params.slow", Value: "0.2"}}}},
			{Branch: &sandbox.Event{Kind: "print", Pos: pos(21, 5), Result: "hello"}},
			{Query: &Query{Function: "metrics.value", Expr: "disk", Where: map[string]string{"instance": "s1"}, At: at, Pos: pos(19, 12), Answer: "0.1", Took: 2 * time.Millisecond}},
			{Query: &Query{Function: "http.get", Args: value.Dict{{Key: value.String("url"), Value: value.String(strings.Repeat("ü", 100))}}, At: at, Pos: pos(22, 5), Error: "refused"}},
			{Action: &Action{
				Action: "exec.run", Args: value.Dict{{Key: value.String("token"), Value: value.String("(hidden)")}}, Reason: "queue stuck", Pos: pos(24, 5), Refused: true, Connection: "web",
				Verdicts: []guard.Verdict{
					{Guard: "halt", Passed: true, Measured: "no halt is set", Limit: "nothing acts while a halt is set"},
					{Guard: "mode", Passed: true, Skipped: true, Measured: "judged at the first step of attempt att4"},
					{Guard: "cooldown", Measured: "started 12m ago", Limit: "at most once per 1h", LiftsAt: at.Add(48 * time.Minute), Class: guard.Passes},
					{Guard: "fleet", Measured: "3 of 7 bad", Limit: "at most 1 of 7", Lifts: "when fewer are bad", Class: guard.Person},
				},
				Problem: problem.New(problem.Refused, "refused by cooldown and fleet").At(pos(24, 5)),
			}},
			{Action: &Action{
				ID: "step4", Action: "exec.run", Args: value.Dict{{Key: value.String("command"), Value: value.List{value.String("true")}}}, Reason: "queue stuck", Pos: pos(26, 5), State: action.InDoubt,
				Messages: []Message{{At: at.Add(time.Second), What: "reserved"}, {At: at.Add(1200 * time.Millisecond), What: "outcome unknown: killed"}},
				Problem:  problem.New(problem.InDoubt, "its outcome is unknown").At(pos(26, 5)).WithDetail("stderr: oops").WithHint("look at w3"),
			}},
			{Action: &Action{Action: "exec.run", Reason: "dry", Pos: pos(27, 5), Planned: true}},
			{Action: &Action{Action: "exec.run", Reason: "dry", Pos: pos(28, 5), Planned: true, Refused: true}},
			{Action: &Action{Action: "exec.run", Reason: "lost", Pos: pos(29, 5)}},
			{Action: &Action{ID: "step5", Action: "exec.run", Reason: "well", Pos: pos(30, 5), State: action.Succeeded, Message: "done\nmore"}},
		},
	}
}

func render(n *Node, depth int, b *strings.Builder) {
	b.WriteString(strings.Repeat("  ", depth))
	if n.Mark != "" {
		b.WriteString("[" + string(n.Mark) + "] ")
	}
	b.WriteString(n.Text)
	if n.Where != "" {
		b.WriteString("  @" + n.Where)
	}
	b.WriteString("\n")
	for _, c := range n.Children {
		render(c, depth+1, b)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -rewrite)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not as it was (-rewrite if it should be):\n%s", path, diff)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	killed := &Run{V: Version, ID: "r2", Started: at, Runbooks: []*Runbook{}}
	dry := everything()
	dry.DryRun = true
	for name, tree := range map[string]*Node{
		"explain": Explain(everything()), "summary": Summary(everything()), "summary_dry": Summary(dry), "explain_killed": Explain(killed),
	} {
		var b strings.Builder
		render(tree, 0, &b)
		golden(t, name, b.String())
	}
	golden(t, "oneline", OneLine(everything())+"\n"+OneLine(killed)+"\n"+OneLine(dry)+"\n")
	if !Eventful(everything()) || Eventful(killed) {
		t.Error("eventful is the wrong way round")
	}
}

// The bytes of a trace are read for as long as they are kept: fields are only ever added.
func TestRecord(t *testing.T) {
	t.Parallel()
	data, err := Encode(everything())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "run.v1.json", string(data)+"\n")
	old, err := os.ReadFile("testdata/run.v1.json.golden")
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(old)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Encode(back)
	if err != nil || string(again) != string(data) {
		t.Errorf("%v: what was read is not what was written:\n%s", err, cmp.Diff(string(data), string(again)))
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"nothing":          ``,
		"no version":       `{"id":"r1"}`,
		"a newer version":  `{"v":2,"id":"r1"}`,
		"no id":            `{"v":1}`,
		"something else":   `[]`,
		"more":             `{"v":1,"id":"r1"}{}`,
		"a hole":           `{"v":1,"id":"r1","runbooks":[null]}`,
		"a hole in it":     `{"v":1,"id":"r1","runbooks":[{"targets":[null]}]}`,
		"an empty event":   `{"v":1,"id":"r1","runbooks":[{"targets":[{"evaluation":{"events":[{}]}}]}]}`,
		"a hole of a word": `{"v":1,"id":"r1","problems":[null]}`,
	} {
		if r, err := Decode([]byte(data)); err == nil {
			t.Errorf("%s was read: %+v", name, r)
		}
	}
}

// Whatever the store gives, reading it is an error or a trace that can be explained.
func FuzzDecode(f *testing.F) {
	data, err := Encode(everything())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"v":1,"id":"r1","runbooks":[{"due":true,"targets":[{"evaluation":{"events":[{"query":{}}]}}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		for _, tree := range []*Node{Explain(r), Summary(r)} {
			if _, err := json.Marshal(tree); err != nil {
				t.Error(err)
			}
		}
		OneLine(r)
		Eventful(r)
		again, err := Encode(r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Errorf("what was written cannot be read: %v", err)
		}
	})
}
