package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// The target, and figures of worker.star and project.star.
const (
	sickWorker = "w2"
	limit      = 100 // jobs
	// A symptom that holds on three samples a second apart is seen for sure once it has held a little longer than two seconds.
	heldSurely = "2500ms"
	// The engine wants measurements over two seconds, the first of them after the action.
	healthySurely = "3500ms"
)

// steps is the tour: each line is checked before it is shown.
func (t *tour) steps(ctx context.Context) error {
	t.introduce()
	if err := t.command(ctx, "runbook", "init", "--state", t.stateDir()); err != nil {
		return err
	}
	if err := t.expectExit(0); err != nil {
		return err
	}
	if err := t.healthy(ctx); err != nil {
		return err
	}
	if err := t.stuck(ctx, "sick"); err != nil {
		return err
	}
	acted, err := t.acts(ctx)
	if err != nil {
		return err
	}
	if err := t.verifies(ctx, acted); err != nil {
		return err
	}
	if err := t.stuck(ctx, "sick again"); err != nil {
		return err
	}
	if err := t.refused(ctx, "refused by the cooldown", "cooldown"); err != nil {
		return err
	}
	if err := t.halt(ctx); err != nil {
		return err
	}
	if err := t.refused(ctx, "refused by the halt", "halt"); err != nil {
		return err
	}
	return t.explain(ctx, acted)
}

func (t *tour) introduce() {
	t.say("Three workers with a queue each, and a runbook that restarts one that is stuck. All of it is real.\n\n")
	var changed []string
	for _, c := range t.report.Changed {
		changed = append(changed, c.Setting+" "+c.Demo)
	}
	t.say("  project  %s (removed at the end)\n", t.dir)
	t.say("  metrics  %s\n", t.ports.API)
	t.say("  changed  %s\n", strings.Join(changed, ", "))
	t.say("           (as shipped it waits for minutes, and recommends instead of acting)\n\n")
}

// seen records a step that was checked, and shows it.
func (t *tour) seen(name, run, format string, args ...any) {
	s := Step{Name: name, AtMS: time.Since(t.began).Milliseconds(), Command: t.last.line, Exit: t.last.exit, Run: run, Seen: fmt.Sprintf(format, args...)}
	t.report.Steps = append(t.report.Steps, s)
	t.say("%5.1fs  ok  %-24s %s\n", float64(s.AtMS)/1000, name, s.Seen)
}

// doing says what comes next, where that takes a while.
func (t *tour) doing(format string, args ...any) {
	t.say("            %s\n", fmt.Sprintf(format, args...))
}

// healthy: a run finds three healthy workers and does nothing.
func (t *tour) healthy(ctx context.Context) error {
	err := t.wait(ctx, "three workers to be up and at work", func(ctx context.Context) (bool, string, error) {
		up, err := t.ask(ctx, fmt.Sprintf(`up{job="worker"} == 1 and on(instance) rate(jobs_done_total[2s]) > 0 and on(instance) queue_depth <= %d`, limit))
		return len(up) == len(t.ports.Workers), fmt.Sprintf("at work: %v", up), err
	})
	if err != nil {
		return err
	}
	before, err := t.facts(ctx)
	if err != nil {
		return err
	}
	r, err := t.run(ctx, 0)
	if err != nil {
		return err
	}
	if len(r.Halt) > 0 {
		return t.wrong("something on this machine is halted: %s %s", r.Halt[0].Source, r.Halt[0].Reason).
			WithHint("the demo obeys the emergency stop; unset RUNBOOK_HALT")
	}
	targets := r.Runbooks[0].Targets
	for _, x := range targets {
		if x.Condition != trace.Healthy || x.Evaluation != nil {
			return t.wrong("worker %s is %s (%s), want healthy and not evaluated", x.Name, x.Condition, x.Why)
		}
	}
	if len(targets) != len(before.pids) {
		return t.wrong("%d targets, want %d", len(targets), len(before.pids))
	}
	if err := t.unchanged(ctx, before); err != nil {
		return err
	}
	t.seen("nothing to do", r.ID, "%d workers, all healthy; the runbook was not even evaluated", len(targets))
	return nil
}

// stuck makes a worker get stuck and waits until that has held for long enough.
func (t *tour) stuck(ctx context.Context, name string) error {
	if err := t.command(ctx, ServiceCommand, "stick", "--dir", t.serviceDir(), sickWorker); err != nil {
		return err
	}
	if err := t.expectExit(0); err != nil {
		return err
	}
	t.doing("two goroutines of %s now wait for each other's lock, for ever ...", sickWorker)
	var depth float64
	err := t.wait(ctx, "the symptom to hold", func(ctx context.Context) (bool, string, error) {
		now, err := t.ask(ctx, fmt.Sprintf(`queue_depth{job="worker"} and on(instance) min_over_time(queue_depth{job="worker"}[%s]) > %d`, heldSurely, limit))
		depth = now[sickWorker]
		return len(now) == 1 && depth > limit, fmt.Sprintf("stuck: %v", now), err
	})
	if err != nil {
		return err
	}
	p, err := worker(t.serviceDir(), sickWorker)
	if err != nil {
		return err
	}
	if !healthy(ctx, p) {
		return t.wrong("the health check of %s (pid %d) fails: it should not notice", sickWorker, p.PID)
	}
	t.seen(name, "", "%s: %.0f jobs wait, limit %d; its health check still says ok", sickWorker, depth, limit)
	return nil
}

// acts: a run restarts the stuck worker and no other.
func (t *tour) acts(ctx context.Context) (*trace.Run, error) {
	before, err := t.facts(ctx)
	if err != nil {
		return nil, err
	}
	r, err := t.run(ctx, 0)
	if err != nil {
		return nil, err
	}
	ev, act, err := t.asked(r)
	if err != nil {
		return nil, err
	}
	if ev.Outcome != trace.Acted || ev.State != action.Complete || act.State != action.Succeeded || act.Refused {
		return nil, t.wrong("the evaluation ended as %q (attempt %s, action %s), want acted: %s", ev.Outcome, ev.State, act.State, ev.Reason)
	}
	for _, v := range act.Verdicts {
		if !v.Passed {
			return nil, t.wrong("an action was taken although guard %s refused it", v.Guard)
		}
	}
	after, err := t.facts(ctx)
	if err != nil {
		return nil, err
	}
	for name, pid := range before.pids {
		if restarted := after.pids[name] != pid; restarted != (name == sickWorker) {
			return nil, t.wrong("%s had pid %d and has %d; %s and no other was to be restarted", name, pid, after.pids[name], sickWorker)
		}
	}
	err = t.wait(ctx, "the metrics to count one restart", func(ctx context.Context) (bool, string, error) {
		now, err := t.ask(ctx, `demo_worker_starts_total`)
		want := maps.Clone(before.starts)
		want[sickWorker]++
		return maps.Equal(now, want), fmt.Sprintf("starts: %v", now), err
	})
	if err != nil {
		return nil, err
	}
	t.seen("acted", r.ID, "%d guards passed, recorded, %s: pid %d -> %d", len(act.Verdicts), act.Action, before.pids[sickWorker], after.pids[sickWorker])
	return r, nil
}

// verifies: once the metrics say that the worker has recovered, a run says that the attempt helped.
func (t *tour) verifies(ctx context.Context, acted *trace.Run) error {
	ev, _, err := t.asked(acted)
	if err != nil {
		return err
	}
	t.doing("%s is watched: it counts as helped when it stays healthy ...", sickWorker)
	err = t.wait(ctx, "the worker to recover", func(ctx context.Context) (bool, string, error) {
		now, err := t.ask(ctx, fmt.Sprintf(`max_over_time(queue_depth{instance=%q}[%s]) <= %d`, sickWorker, healthySurely, limit))
		return len(now) == 1, "", err
	})
	if err != nil {
		return err
	}
	before, err := t.facts(ctx)
	if err != nil {
		return err
	}
	// As a scheduler would: one run after the other, until one has seen enough healthy measurements for a verdict.
	var r *trace.Run
	var i int
	if err := t.wait(ctx, "a verdict on the attempt", func(ctx context.Context) (bool, string, error) {
		if r, err = t.run(ctx, 0); err != nil {
			return false, "", err
		}
		i = slices.IndexFunc(r.Verified, func(v trace.Verified) bool { return v.Attempt == ev.Attempt })
		return i < 0 || r.Verified[i].State != action.Complete, fmt.Sprintf("%+v", r.Verified), nil
	}); err != nil {
		return err
	}
	if i < 0 || r.Verified[i].State != action.Verified {
		return t.wrong("attempt %s was not verified: %+v", ev.Attempt, r.Verified)
	}
	if err := t.unchanged(ctx, before); err != nil {
		return err
	}
	t.seen("verified", r.ID, "%s", r.Verified[i].Detail)
	return nil
}

// refused: the worker is sick, the runbook wants to act, and that guard does not let it.
func (t *tour) refused(ctx context.Context, name, by string) error {
	before, err := t.facts(ctx)
	if err != nil {
		return err
	}
	r, err := t.run(ctx, int(problem.ExitRefused))
	if err != nil {
		return err
	}
	ev, act, err := t.asked(r)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(act.Verdicts, func(v guard.Verdict) bool { return v.Guard == by })
	if ev.Outcome != trace.Refused || !act.Refused || act.State != "" || i < 0 || act.Verdicts[i].Passed {
		return t.wrong("the evaluation ended as %q (action %q), want refused by %s: %s", ev.Outcome, act.State, by, ev.Reason)
	}
	v := act.Verdicts[i]
	if by == "cooldown" && !v.LiftsAt.After(time.Now()) {
		return t.wrong("the cooldown does not say when it lifts: %+v", v)
	}
	if err := t.unchanged(ctx, before); err != nil {
		return err
	}
	why := v.Measured + "; lifts at " + v.LiftsAt.UTC().Format("15:04:05Z")
	if by == "halt" {
		if len(r.Halt) == 0 {
			return t.wrong("the run does not say that it is halted")
		}
		why = "until " + v.Lifts
	}
	t.seen(name, r.ID, "%s; %s is untouched (pid %d)", why, sickWorker, before.pids[sickWorker])
	return nil
}

// halt sets the emergency stop of the demo's own state directory.
func (t *tour) halt(ctx context.Context) error {
	// --state is said, because $RUNBOOK_STATE may name a real one.
	if err := t.command(ctx, "runbook", "halt", "--state", t.stateDir(), "--reason", "the demo shows the stop", "--json"); err != nil {
		return err
	}
	if err := t.expectExit(0); err != nil {
		return err
	}
	var says struct{ Confirmed bool }
	if err := json.Unmarshal(t.last.stdout, &says); err != nil || !says.Confirmed {
		return t.wrong("the halt was not confirmed: %v", err)
	}
	t.seen("halted", "", "from now on no action begins, whatever runs")
	return nil
}

// explain shows why the run that acted did what it did.
func (t *tour) explain(ctx context.Context, acted *trace.Run) error {
	if err := t.command(ctx, "runbook", "explain", acted.ID, "--state", t.stateDir()); err != nil {
		return err
	}
	if err := t.expectExit(0); err != nil {
		return err
	}
	text := string(t.last.stdout)
	for _, want := range []string{acted.ID, sickWorker, "queue_depth", "exec.run", "cooldown"} {
		if !strings.Contains(text, want) {
			return t.wrong("the explanation does not mention %s", want)
		}
	}
	t.report.Explain = text
	t.seen("explained", acted.ID, "why it acted, from the record")
	t.say("\n$ runbook explain %s\n", acted.ID)
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		t.say("  %s", line)
	}
	t.say("\n\nEach line was checked against process ids, metrics, exit codes and records.\n")
	return nil
}

// asked finds the evaluation of the sick worker in a run, and the one action that it asked for.
func (t *tour) asked(r *trace.Run) (*trace.Evaluation, *trace.Action, error) {
	for _, x := range r.Runbooks[0].Targets {
		if x.Name != sickWorker {
			continue
		}
		if x.Condition != trace.Sick || x.Evaluation == nil {
			return nil, nil, t.wrong("%s is %s (%s), want sick and evaluated", x.Name, x.Condition, x.Why)
		}
		var acts []*trace.Action
		for _, e := range x.Evaluation.Events {
			if e.Action != nil {
				acts = append(acts, e.Action)
			}
		}
		if len(acts) != 1 {
			return nil, nil, t.wrong("the runbook asked for %d actions, want 1: %s", len(acts), x.Evaluation.Reason)
		}
		return x.Evaluation, acts[0], nil
	}
	return nil, nil, t.wrong("%s is not among the targets", sickWorker)
}

// facts are what can be known of the workers without runbook.
type facts struct {
	pids   map[string]int
	starts map[string]float64
}

func (t *tour) facts(ctx context.Context) (facts, error) {
	p, err := ReadPorts(t.serviceDir())
	if err != nil {
		return facts{}, err
	}
	f := facts{pids: map[string]int{}}
	for name, w := range p.Workers {
		f.pids[name] = w.PID
	}
	f.starts, err = t.ask(ctx, `demo_worker_starts_total`)
	return f, err
}

// unchanged says that no worker was restarted since.
func (t *tour) unchanged(ctx context.Context, before facts) error {
	now, err := t.facts(ctx)
	if err != nil {
		return err
	}
	if !maps.Equal(before.pids, now.pids) || !maps.Equal(before.starts, now.starts) {
		return t.wrong("workers were restarted: %v, now %v", before, now)
	}
	return nil
}
