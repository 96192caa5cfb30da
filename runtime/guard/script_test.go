package guard

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/control"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(d time.Duration) action.Clock { return action.Clock{Wall: epoch.Add(d), Trusted: d} }

// base is a request that every guard lets pass: the first step of a first attempt on w3, one of ten, at 12:00.
func base() Input {
	in := Input{
		Now: at(2 * time.Hour), Policy: Defaults(),
		Request: Request{
			Runbook: "worker", Target: action.Target{Key: "instance=w3", Name: "w3"}, Episode: "e1", Action: "systemd.restart", Severity: Warning,
			Fleet: FleetView{ID: "f1", Sick: []string{"instance=w3"}},
		},
		State: State{Episode: EpisodeState{ID: "e1"}, Breaker: breaker.New()},
	}
	in.Policy.Mode = Auto
	for i := range 10 {
		in.Fleet.Members = append(in.Fleet.Members, "instance=w"+strconv.Itoa(i))
	}
	return in
}

// args are the key=value pairs of a line; an underscore stands for a space, and w3 for instance=w3.
type args map[string]string

func (a args) duration(t *testing.T, key string) time.Duration {
	t.Helper()
	if a[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(a[key])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (a args) number(t *testing.T, key string) int {
	t.Helper()
	n, err := strconv.Atoi(a[key])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (a args) keys(key string) []string {
	var keys []string
	for name := range strings.SplitSeq(a[key], ",") {
		if from, to, ok := strings.Cut(name, "-"); ok {
			low, _ := strconv.Atoi(strings.TrimPrefix(from, "w"))
			high, _ := strconv.Atoi(strings.TrimPrefix(to, "w"))
			for i := low; i <= high; i++ {
				keys = append(keys, fmt.Sprintf("instance=w%d", i))
			}
			continue
		}
		if name != "" {
			keys = append(keys, "instance="+name)
		}
	}
	return keys
}

// set changes the base request as one line of a script says. Times are offsets from 10:00.
func set(t *testing.T, in *Input, line string) {
	t.Helper()
	fields := strings.Fields(line)
	a := args{}
	for _, f := range fields[1:] {
		key, text, _ := strings.Cut(f, "=")
		a[key] = strings.ReplaceAll(text, "_", " ")
	}
	has := func(key string) bool { _, ok := a[key]; return ok }
	when := func(key string) action.Clock {
		if !has(key) {
			return action.Clock{}
		}
		return at(a.duration(t, key))
	}
	wall := func(key string) time.Time { return when(key).Wall }
	switch fields[0] {
	case "now":
		in.Now = when("at")
	case "policy":
		if has("mode") {
			in.Policy.Mode = Mode(a["mode"])
		}
		if has("ceiling") {
			in.Policy.SeverityCeiling = Severity(a["ceiling"])
		}
		if has("cooldown") {
			in.Policy.Cooldown = a.duration(t, "cooldown")
		}
		if has("settle") {
			in.Policy.Settle = a.duration(t, "settle")
		}
		for key, field := range map[string]*int{
			"attempts": &in.Policy.Attempts, "open": &in.Policy.OpenTotal, "open-fleet": &in.Policy.OpenPerFleet, "share": &in.Policy.FleetShare, "records": &in.Policy.Records,
		} {
			if has(key) {
				*field = a.number(t, key)
			}
		}
		if has("rates") {
			in.Policy.Rates = nil
			for text := range strings.SplitSeq(a["rates"], ",") {
				count, per, _ := strings.Cut(text, "/")
				r := args{"count": count, "per": per}
				in.Policy.Rates = append(in.Policy.Rates, Rate{r.number(t, "count"), r.duration(t, "per")})
			}
		}
	case "request":
		if has("severity") {
			in.Severity = Severity(a["severity"])
		}
		if has("episode") {
			in.Request.Episode = a["episode"]
		}
		if has("target") {
			in.Target.Key = "instance=" + a["target"]
		}
		in.Attempt, in.Request.Cooldown, in.OldestRead = a["attempt"], a.duration(t, "cooldown"), wall("read")
		in.Repeats = has("repeats")
	case "fleet":
		in.Fleet = FleetView{ID: a["id"], Single: has("single"), Members: a.keys("members"), Sick: a.keys("sick"), Unknown: a.keys("unknown"), Missing: a.keys("missing")}
		if has("max_bad") {
			in.Fleet.MaxBad = a.number(t, "max_bad")
		}
	case "labels":
		in.Target.Labels = maps.Clone(a)
	case "target":
		in.Target = action.Target{Key: a["key"], Name: a["name"]}
	case "disable":
		in.Disables = append(in.Disables, control.Disable{Name: a["name"], Selector: a.selector(), Reason: a["reason"], By: a["by"], Until: wall("until")})
	case "window":
		in.Windows = append(in.Windows, a.window(t, wall))
	case "freeze":
		in.Policy.Maintenance = append(in.Policy.Maintenance, a.window(t, wall))
	case "protect":
		in.Policy.Protected = append(in.Policy.Protected, Protection{Selector: a.selector(), Reason: a["reason"]})
	case "deploy":
		in.Deploy = &Deploy{Component: a["of"], Going: has("going"), EndedAt: wall("ended")}
	case "bad":
		for i, text := range strings.Split(a["at"], ",") {
			b := breaker.Bad{Attempt: fmt.Sprintf("%s%d", a["id"], i), Runbook: "worker", Target: "w1", What: "failed", At: args{"at": text}.clock(t)}
			in.Breaker.Bad = append(in.Breaker.Bad, b)
		}
	case "breaker":
		in.Breaker.State, in.Breaker.Reason, in.Breaker.Canary = breaker.State(a["state"]), a["reason"], a["canary"]
	case "no-breaker":
		in.Breaker = breaker.Doc{}
	case "wide":
		in.Breaker.Wide = append(in.Breaker.Wide, breaker.Wide{Fleet: a["fleet"], Runbook: a["runbook"], Bad: 5, Members: 10, At: when("at")})
	case "approval":
		in.Approval = &Approval{ID: a["id"], Episode: a["episode"], Answer: Answer(a["answer"]), By: a["by"], Why: a["why"], AskedAt: when("asked"), At: when("answered"), Attempt: a["attempt"]}
	case "coverage":
		in.Coverage = Coverage{Enforced: true, Covered: has("covered"), Missing: strings.ReplaceAll(a["missing"], "_", " ")}
	case "halt":
		in.Halt = append(in.Halt, control.HaltInfo{Source: a["source"], Reason: a["reason"], By: a["by"], Until: wall("until")})
	case "open":
		in.Open = append(in.Open, OpenAttempt{
			ID: a["id"], Runbook: a["runbook"], Target: "instance=" + a["target"], Fleet: a["fleet"], State: action.AttemptState(a["state"]),
			Since: when("since"), OwnerAlive: has("alive"),
		})
	case "doubt":
		in.InDoubt = append(in.InDoubt, DoubtfulStep{ID: a["id"], Action: a["action"], Runbook: a["runbook"], Target: "instance=" + a["target"], Since: when("since")})
	case "cooldown":
		in.State.Cooldown = Cooldown{StartedAt: when("started"), For: a.duration(t, "for"), Runbook: a["runbook"], Attempt: a["attempt"]}
	case "started":
		for i, text := range strings.Split(a["at"], ",") {
			in.Started = append(in.Started, Started{Attempt: fmt.Sprintf("%s%d", a["id"], i), At: args{"at": text}.clock(t)})
		}
	case "kept":
		in.Kept = a.number(t, "attempts")
	case "episode":
		in.State.Episode = EpisodeState{ID: a["id"], Attempts: a.number(t, "attempts")}
	case "last":
		in.Last = &LastAttempt{ID: a["id"], State: action.AttemptState(a["state"]), EndedAt: when("ended"), Verifies: has("verifies"), Due: wall("due")}
	case "cooling":
		in.Cooling = a.keys("targets")
	default:
		t.Fatalf("unknown line %q", line)
	}
}

func (a args) selector() control.Selector {
	s := control.Selector{Runbook: a["runbook"], Action: a["action"], Target: a["target"], All: a["all"] != ""}
	if k, v, ok := strings.Cut(a["label"], ":"); ok {
		s.Labels = map[string]string{k: v}
	}
	return s
}

func (a args) window(t *testing.T, wall func(string) time.Time) control.Window {
	t.Helper()
	w := control.Window{Name: a["name"], Selector: a.selector(), Reason: a["reason"], By: a["by"], Zone: a["zone"], Start: wall("start"), End: wall("end"), Length: a.duration(t, "length")}
	if a["days"] != "" {
		var err error
		if w.Days, err = control.ParseDays(strings.Split(a["days"], ",")); err != nil {
			t.Fatal(err)
		}
		if w.At, err = control.ParseTimeOfDay(a["opens"]); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (a args) clock(t *testing.T) action.Clock { t.Helper(); return at(a.duration(t, "at")) }

func show(v Verdict) string {
	word := "refused (" + string(v.Class) + ")"
	switch {
	case v.Skipped:
		word = "skipped"
	case v.Passed:
		word = "passed"
	}
	out := word + ": " + v.Measured + "\n"
	if v.Limit != "" {
		out += "limit: " + v.Limit + "\n"
	}
	if !v.LiftsAt.IsZero() {
		out += "lifts at " + v.LiftsAt.Format("15:04:05") + "\n"
	}
	if v.Lifts != "" {
		out += "lifts: " + v.Lifts + "\n"
	}
	return out
}

// Scripts: "check" asks the guard that the file is named after, "evaluate" all of them, of the base request changed by the lines.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Parallel()
		name := strings.ReplaceAll(path[strings.LastIndexByte(path, '/')+1:], "_", " ")
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			in := base()
			for line := range strings.SplitSeq(strings.TrimSpace(d.Input), "\n") {
				if line != "" {
					set(t, &in, line)
				}
			}
			verdicts := Evaluate(in)
			if d.Cmd == "evaluate" {
				var out string
				for _, v := range Refused(verdicts) {
					out += v.String() + "\n"
				}
				return fmt.Sprintf("%sneeds a person: %v\n", out, NeedsPerson(verdicts))
			}
			for _, v := range verdicts {
				if v.Guard == name {
					return show(v)
				}
			}
			d.Fatalf(t, "no guard %q", name)
			return ""
		})
	})
}
