package testrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed1de3961f/runbook/builtins/kit/convert"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// Decision is what a recorded run decided by one runbook, from which a test is written.
type Decision struct {
	Run       string // its ID
	At        time.Time
	Runbook   *trace.Runbook
	Alert     *project.Alert // that starts the runbook, nil if none does
	File      string         // of the test, relative to the project
	Recording string         // of the metrics, relative to the test's directory
}

// Targets are those about which something was decided.
func (d Decision) Targets() []*trace.Target {
	return slices.DeleteFunc(slices.Clone(d.Runbook.Targets), func(t *trace.Target) bool {
		return t.Evaluation == nil || t.Evaluation.Outcome == trace.Skipped || t.Evaluation.Outcome == ""
	})
}

// Again is what a test of a recorded run makes of one target.
type Again struct {
	Target string `json:"target"`
	Was    string `json:"was"`
	Is     string `json:"is"`
	// Difference says where the test goes another way than the run did, "" if it goes the same. A guard may refuse in production what it lets pass in a
	// test, which begins without a history.
	Difference string `json:"difference,omitempty"`
}

// WriteFromRun writes the test: what the runbook was answered besides metrics, its run over the recording, and for each target what it saw, which way it went
// and what it did. The test is run once before, so that it expects of guards what they say without what was done before. Where it goes another way, it expects what
// the run did, and fails.
func WriteFromRun(ctx context.Context, p *Project, d Decision) ([]Again, error) {
	file := filepath.Join(p.Tree.Root(), filepath.FromSlash(d.File))
	if _, err := os.Lstat(file); err == nil {
		return nil, problem.New(problem.Usage, "%s is there already", d.File).WithHint("remove it to write it again")
	}
	write := func(expected string) error {
		if err := os.WriteFile(file, []byte(d.text(expected)), 0o644); err != nil {
			return problem.Wrap(problem.Usage, err, "write the test")
		}
		return nil
	}
	if err := write("    t.expect(out.due).equal(True)\n"); err != nil {
		return nil, err
	}
	rb, err := d.simulate(ctx, p)
	if err != nil {
		return nil, errors.Join(err, os.Remove(file))
	}
	var out []Again
	var b strings.Builder
	for _, was := range d.Targets() {
		a := Again{Target: was.Key, Was: string(was.Evaluation.Outcome)}
		i := slices.IndexFunc(rb.Targets, func(t *trace.Target) bool { return t.Key == was.Key })
		shown := was
		switch {
		case i < 0:
			a.Is, a.Difference = "not there", "the recording has no such target"
		default:
			is := rb.Targets[i]
			a.Is = string(is.Condition)
			if is.Evaluation != nil {
				a.Is = string(is.Evaluation.Outcome)
			}
			if a.Difference = otherWay(was, is); a.Difference == "" {
				shown = is
			}
		}
		out = append(out, a)
		b.WriteString(expectations(was, shown))
	}
	return out, write(b.String())
}

// simulate runs the draft and returns what its one run saw and decided.
func (d Decision) simulate(ctx context.Context, p *Project) (*trace.Runbook, error) {
	tests, err := find(ctx, p, d.File)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(p, path.Dir(d.File))
	if err != nil {
		return nil, err
	}
	defer w.close()
	s := &script{w: w, expected: map[value.Pos]bool{}}
	err = s.evaluate(ctx, tests[0])
	if failed := (*failure)(nil); err != nil && !errors.As(err, &failed) {
		return nil, err
	}
	if len(w.runs) == 0 || len(w.runs[0].Runbooks) == 0 {
		return nil, problem.New(problem.Internal, "the test of run %s has run nothing", d.Run)
	}
	return w.runs[0].Runbooks[0], nil
}

// otherWay says where a decision differs from the one that was made. What a guard refused ends an evaluation that goes on in the test.
func otherWay(was, is *trace.Target) string {
	if was.Condition != is.Condition {
		return fmt.Sprintf("it is %s, and was %s: %s", is.Condition, was.Condition, is.Why)
	}
	if is.Evaluation == nil {
		return "it is not evaluated"
	}
	a, b := steps(was.Evaluation), steps(is.Evaluation)
	for i, x := range a {
		if i >= len(b) {
			return fmt.Sprintf("it ends before %s", x)
		}
		if x != b[i] {
			return fmt.Sprintf("it goes %s, and went %s", b[i], x)
		}
	}
	if len(b) > len(a) && was.Evaluation.Outcome != trace.Refused && was.Evaluation.Problem == nil {
		return fmt.Sprintf("it goes on with %s", b[len(a)])
	}
	return ""
}

// steps are the branches that an evaluation took and the actions that it asked for.
func steps(ev *trace.Evaluation) []string {
	var out []string
	for _, e := range ev.Events {
		switch {
		case e.Branch != nil && e.Branch.Kind != "print":
			out = append(out, fmt.Sprintf("%s at %s = %s", e.Branch.Source, e.Branch.Pos, e.Branch.Result))
		case e.Action != nil:
			out = append(out, fmt.Sprintf("to %s at %s", show(record(typeAction, "name", text(e.Action.Action), "args", e.Action.Args)), e.Action.Pos))
		}
	}
	return out
}

// expectations are the lines about one target; was is what the run decided, and shown what is expected of the test.
func expectations(was, shown *trace.Target) string {
	var b strings.Builder
	r := targetRecord(shown)
	field := func(name string) value.Value { f, _ := r.Get(name); return f.Value }
	fmt.Fprintf(&b, "\n    target = out.target(%s)\n", literal(text(was.Key)))
	line := func(name, want string) { fmt.Fprintf(&b, "    t.expect(target.%s).equal(%s)\n", name, want) }
	line("condition", literal(field("condition")))
	if branches, _ := field("branches").(value.Dict); len(branches) > 0 {
		line("branches", literal(branches))
	}
	if o := was.Evaluation.Outcome; shown != was && o != shown.Evaluation.Outcome {
		fmt.Fprintf(&b, "    # The run ended %s: %s. This test begins without what was done before.\n", spoken(string(o)), oneLine(was.Evaluation.Reason))
	}
	line("outcome", literal(field("outcome")))
	if reason, _ := field("reason").(value.String); shown.Evaluation.Outcome == trace.Escalated || shown.Evaluation.Outcome == trace.Nothing {
		line("reason", literal(reason))
	}
	var actions []string
	list, _ := field("actions").(value.List)
	for _, x := range list {
		a, _ := x.(*value.Record)
		name, _ := a.Get("name")
		args, _ := a.Get("args")
		d, _ := args.Value.(value.Dict)
		call := "t.action(" + literal(name.Value)
		if len(d) > 0 {
			call += ", args = " + literal(d)
		}
		actions = append(actions, call+")")
	}
	line("actions", "["+strings.Join(actions, ", ")+"]")
	return b.String()
}

var notInName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^a-z0-9]+`) })

// text is the test with these expectations.
func (d Decision) text(expected string) string {
	var b strings.Builder
	var outcomes []string
	for _, t := range d.Targets() {
		outcomes = append(outcomes, t.Name+" "+spoken(string(t.Evaluation.Outcome)))
	}
	fmt.Fprintf(&b, "\"\"\"What run %s decided: %s.\"\"\"\n\n", d.Run, oneLine(strings.Join(outcomes, ", ")))
	fmt.Fprintf(&b, "def test_run_%s(t):\n", notInName().ReplaceAllString(strings.ToLower(d.Run), "_"))
	fmt.Fprintf(&b, "    t.now(%s)\n    t.metrics(%s)\n", literal(text(d.At.Format(time.RFC3339Nano))), literal(text(d.Recording)))
	for _, line := range d.answers() {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	fmt.Fprintf(&b, "    out = t.run(%s)\n%s", literal(text(path.Base(d.Runbook.Path))), expected)
	return b.String()
}

// answers are the lines by which a test gives the runbook what it was answered besides metrics.
func (d Decision) answers() []string {
	var out []string
	add := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	for _, t := range d.Runbook.Targets {
		if d.Alert != nil && t.Condition != trace.Healthy {
			labels := map[string]string{}
			maps.Copy(labels, d.Alert.Labels)
			maps.Copy(labels, t.Labels)
			if t.Severity != "" {
				labels["severity"] = string(t.Severity)
			}
			add("t.alert(%s, labels = %s%s)", literal(text(d.Alert.Name)), literal(value.Strings(labels)), firesSince(t.Why))
		}
		if t.Evaluation == nil {
			continue
		}
		for _, e := range t.Evaluation.Events {
			if e.Query == nil || e.Query.Value == nil {
				continue
			}
			v, err := value.Unmarshal(e.Query.Value)
			if err != nil {
				continue
			}
			family, _, _ := strings.Cut(e.Query.Function, ".")
			switch family {
			case "metrics", "analysis", "topology": // the recording answers
			case "alerts":
				list, _ := v.(value.List)
				for _, x := range list {
					if a, ok := x.(value.Dict); ok {
						add("%s", alertLine(a))
					}
				}
			case "changes":
				if c, ok := v.(value.Dict); ok {
					add("%s", changeLine(c))
				}
			case "history", "state":
				add("# %s answered %s to the run at %s, and answers without what was done before here.", e.Query.Function, oneLine(literal(v)), e.Query.Pos)
			default:
				add("t.fake(%s, value = %s)", literal(text(e.Query.Function)), literal(v))
			}
		}
	}
	return out
}

var fires = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`fires since (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\dZ)`) })

func firesSince(why string) string {
	if m := fires().FindStringSubmatch(why); m != nil {
		return fmt.Sprintf(", since = %q", m[1]+"T"+m[2])
	}
	return ""
}

func alertLine(a value.Dict) string {
	name, _ := a.Get("name")
	labels, _ := a.Get("labels")
	own, _ := labels.(value.Dict)
	own = slices.DeleteFunc(slices.Clone(own), func(e value.Entry) bool { return e.Key == text("alertname") })
	line := fmt.Sprintf("t.alert(%s, labels = %s", literal(name), literal(own))
	if since, ok := a.Get("since"); ok {
		if at, ok := since.(value.Time); ok {
			line += ", since = " + literal(text(time.Time(at).UTC().Format(time.RFC3339)))
		}
	}
	if silenced, _ := a.Get("silenced"); silenced == value.Bool(true) {
		line += ", silenced = True"
	}
	return line + ")"
}

func changeLine(c value.Dict) string {
	component, _ := c.Get("component")
	args := []string{literal(component)}
	if v, ok := c.Get("version"); ok && v != text("") {
		args = append(args, "version = "+literal(v))
	}
	for _, name := range []string{"started", "ended"} {
		if v, ok := c.Get(name); ok {
			if at, ok := v.(value.Time); ok && !time.Time(at).IsZero() {
				args = append(args, name+" = "+literal(at))
			}
		}
	}
	return "t.change(" + strings.Join(args, ", ") + ")"
}

// literal is a value as Starlark text.
func literal(v value.Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case value.Duration:
		return strconv.Quote(value.FormatDuration(time.Duration(v)))
	case value.Time:
		return strconv.Quote(time.Time(v).UTC().Format(time.RFC3339Nano))
	}
	x, err := convert.To(v)
	if err != nil {
		return "None"
	}
	return convert.Render(x, 1<<20)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func spoken(s string) string { return strings.ReplaceAll(s, "_", " ") }
