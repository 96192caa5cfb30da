package cli

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/recorded/capture"
	"github.com/seed1de3961f/runbook/runtime/testrun"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// fromRunResult is what runbook test --from-run wrote.
type fromRunResult struct {
	Run   string        `json:"run"`
	Tests []fromRunTest `json:"tests"`
}

type fromRunTest struct {
	Runbook   string          `json:"runbook"`
	File      string          `json:"file"`
	Recording string          `json:"recording"`
	Targets   []testrun.Again `json:"targets"`
}

// runFromRun writes a test and a recording for each runbook by which a run decided something.
func runFromRun(ctx context.Context, c *call) (result, error) {
	o, err := c.openProject(ctx)
	if err != nil {
		return nil, err
	}
	defer o.close()
	r, err := c.recordedRun(ctx, c.String("from-run"))
	if err != nil {
		return nil, err
	}
	wanted, err := o.settings.Runbooks(o.tree, c.args)
	if err != nil {
		return nil, err
	}
	res := fromRunResult{Run: r.ID}
	different := false
	for _, rb := range r.Runbooks {
		d := testrun.Decision{Run: r.ID, At: r.Started.UTC(), Runbook: rb}
		if len(d.Targets()) == 0 || !slices.Contains(wanted, rb.Path) {
			continue
		}
		t, err := c.writeFromRun(ctx, o, d)
		if err != nil {
			return res, err
		}
		different = different || slices.ContainsFunc(t.Targets, func(a testrun.Again) bool { return a.Difference != "" })
		res.Tests = append(res.Tests, t)
	}
	switch {
	case len(res.Tests) == 0:
		return nil, problem.New(problem.NotFound, "run %s decided nothing: no target was evaluated", r.ID).WithHint("runbook explain %s says why", r.ID)
	case different:
		return res, exitWith(problem.ExitFindings)
	}
	return res, nil
}

// recordedRun reads a run from the records.
func (c *call) recordedRun(ctx context.Context, id string) (*trace.Run, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.openStore(state, "test")
	if err != nil {
		return nil, err
	}
	r, err := findRun(ctx, st, id)
	return r, errors.Join(err, st.Close())
}

// writeFromRun records what a runbook asked about the time of the run, and writes the test.
func (c *call) writeFromRun(ctx context.Context, o *opened, d testrun.Decision) (fromRunTest, error) {
	w, err := o.spawn(ctx)
	if err != nil {
		return fromRunTest{}, err
	}
	rb, err := project.LoadRunbook(ctx, w, o.tree, o.settings, d.Runbook.Path, project.RunbookVocabulary(o.families))
	w.Close()
	if err != nil {
		return fromRunTest{}, err
	}
	d.Alert = rb.Alert
	if d.Runbook.Digest != rb.Digest {
		c.ui.Warn("%s is not what the run was decided by: the test is of what it is now", d.Runbook.Path)
	}
	id := strings.ToLower(strings.ReplaceAll(d.Run, ".", "-"))
	base := strings.TrimSuffix(d.Runbook.Path, ".star")
	d.File, d.Recording = base+"_"+id+"_test.star", "testdata/"+path.Base(base)+"_"+id+".jsonl.gz"
	t := fromRunTest{Runbook: d.Runbook.Name, File: d.File, Recording: path.Join(path.Dir(d.File), d.Recording)}
	file := filepath.Join(o.tree.Root(), filepath.FromSlash(t.Recording))
	if _, err := os.Stat(file); err != nil {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return t, problem.Wrap(problem.Usage, err, "write the recording")
		}
		if err := c.recordDecision(ctx, o, d, file); err != nil {
			return t, err
		}
	}
	t.Targets, err = testrun.WriteFromRun(ctx, o.testProject(), d)
	return t, err
}

// recordDecision records what a runbook asked, up to the time of the run.
func (c *call) recordDecision(ctx context.Context, o *opened, d testrun.Decision, file string) error {
	reads, err := decisionReads(d)
	if err != nil {
		return err
	}
	live, done, err := o.live()
	if err != nil {
		return err
	}
	defer done()
	server, version, err := about(ctx, live)
	if err != nil {
		return err
	}
	step := max(o.settings.Sampling, time.Second)
	plan, err := capture.Make(ctx, live, capture.Options{Reads: reads, From: d.At.Add(-step), To: d.At, Step: step, Server: server, Version: version})
	if err != nil {
		return err
	}
	if plan.Samples == 0 {
		return problem.New(problem.NotFound, "%s has no sample any more of what run %s asked at %s", server, d.Run, clockTime(d.At)).
			WithHint("how long it keeps them is its --storage.tsdb.retention.time")
	}
	_, err = plan.Run(ctx, live, file, func(done, all int64) { c.ui.Percent("recording", int(done), int(all)) })
	return err
}

// decisionReads are the selectors of what a runbook asked, as far back as it looked.
func decisionReads(d testrun.Decision) ([]promexpr.Read, error) {
	var out []promexpr.Read
	held, err := value.ParseDuration(d.Runbook.Held)
	if err != nil {
		held = 0 // it had to hold for no time
	}
	queries := slices.Clone(d.Runbook.Queries)
	for _, t := range d.Targets() {
		for _, e := range t.Evaluation.Events {
			if e.Query != nil {
				queries = append(queries, e.Query)
			}
		}
	}
	for _, q := range queries {
		back := held
		for name, times := range map[string]value.Value{"window": value.Int(1), "season": argument(q.Args, "seasons")} {
			if span, ok := argument(q.Args, name).(value.Duration); ok {
				n, _ := times.(value.Int)
				back = max(back, time.Duration(span)*time.Duration(max(n, 1)))
			}
		}
		for _, text := range expressions(q.Expr) {
			if err := add(&out, text, back); err != nil {
				return nil, problem.Wrap(problem.Internal, err, "what the run asked")
			}
		}
	}
	return out, nil
}

func argument(args value.Dict, name string) value.Value {
	v, _ := args.Get(name)
	return v
}

// expressions are those that one call asked, one after the other.
func expressions(text string) []string {
	if text == "" {
		return nil
	}
	if _, err := promexpr.Parse(text, nil); err == nil {
		return []string{text}
	}
	return strings.Split(text, "; ")
}

func (r fromRunResult) text(u *ui) {
	for _, t := range r.Tests {
		u.Printf("%s, over %s\n", bold(t.File), t.Recording)
		for _, a := range t.Targets {
			switch {
			case a.Difference != "":
				u.Verdict(refused, a.Target, "the test fails: "+a.Difference)
			case a.Was != a.Is:
				u.Verdict(passed, a.Target, spoken(a.Is)+", where the run ended "+spoken(a.Was)+": a test begins without what was done before")
			default:
				u.Verdict(passed, a.Target, spoken(a.Is)+", as in the run")
			}
		}
	}
	u.Printf("it expects what the run did: look whether that is what you want, and then run it: runbook test\n")
}
