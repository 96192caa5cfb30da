package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/process"
)

func statusCommand() spec {
	return spec{
		name: "status", group: "Look", summary: "show on one screen what a person on call must know",
		about: `Is it halted? Is the breaker open? What is disabled, in flight, in doubt, waiting
for its verification, cooling down? How did the last runs end? Says whether it
is halted also when the store cannot be read.`,
		takes: takesProject | takesState, example: "runbook status",
		run: runStatus,
	}
}

type statusResult struct {
	State   string             `json:"state"`
	Halted  bool               `json:"halted"`
	Halt    []control.HaltInfo `json:"halt"`
	Breaker *breakerResult     `json:"breaker"` // null if it is not known
	// Approvals wait for an answer, or were approved and are not done yet.
	Approvals []guard.Approval `json:"approvals"`
	// Disabled and Maintenance are what persons have set, the windows of project.star not included.
	Disabled    []control.Disable `json:"disabled"`
	Maintenance []control.Window  `json:"maintenance"`
	Open        []ledger.Open     `json:"open"`
	InDoubt     []ledger.Doubt    `json:"in_doubt"`
	Cooling     []ledger.Cooling  `json:"cooling"`
	Runs        []runLine         `json:"runs"`
	// Untested says that in the last run what acted needed no test that covers it.
	Untested bool `json:"untested"`
	now      time.Time
	trusted  time.Duration
	unread   bool
	clocks   action.Clock
}

func runStatus(ctx context.Context, c *call) (result, error) {
	state, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	res := statusResult{
		State: state.Dir, Halt: state.Check(c.stdio.Env), now: c.stdio.Now(), unread: true,
		Approvals: []guard.Approval{}, Disabled: []control.Disable{}, Maintenance: []control.Window{}, Open: []ledger.Open{}, InDoubt: []ledger.Doubt{}, Cooling: []ledger.Cooling{}, Runs: []runLine{},
	}
	res.Halted = len(res.Halt) > 0
	st, err := c.openStore(state, "status")
	if err != nil {
		return res, err
	}
	defer st.Close()
	s, err := ledger.ReadStatus(ctx, st, clock.Read)
	if err != nil {
		return res, err
	}
	runs, err := ledger.Runs(ctx, st, 5, time.Time{}, nil)
	if err != nil {
		return res, err
	}
	d, at, err := ledger.Breaker(ctx, st, clock.Read)
	if err != nil {
		return res, err
	}
	b := newBreakerResult(d, at, res.now)
	res.Breaker = &b
	waiting, clocks, err := ledger.Waiting(ctx, st, clock.Read)
	if err != nil {
		return res, err
	}
	res.Approvals, res.clocks = append(res.Approvals, waiting...), clocks
	controls, err := ledger.ListControls(ctx, st, res.now)
	if err != nil {
		return res, err
	}
	res.Disabled, res.Maintenance = append(res.Disabled, controls.Disables...), append(res.Maintenance, controls.Windows...)
	res.unread, res.trusted = false, s.Now.Trusted
	res.Open, res.InDoubt, res.Cooling = append(res.Open, s.Open...), append(res.InDoubt, s.InDoubt...), append(res.Cooling, s.Cooling...)
	res.Untested = len(runs) > 0 && runs[0].Untested
	for _, r := range runs {
		res.Runs = append(res.Runs, newRunLine(r))
	}
	if res.Halted || len(res.InDoubt) > 0 || b.open() {
		return res, exitWith(problem.ExitRefused)
	}
	return res, nil
}

func (r statusResult) text(u *ui) {
	if r.Halted {
		u.Printf("%s\n", red("HALTED: nothing acts"))
		for _, h := range control.Distinct(r.Halt) {
			u.Printf("  %s\n", h)
		}
		u.Printf("  lift it with: runbook resume --reason \"...\"\n")
	} else {
		u.Printf("%s\n", green("not halted"))
	}
	if r.Untested {
		u.Printf("%s\n", red("NOT TESTED: what acts needs no test that covers it: policy(tested = False) in project.star"))
	}
	if r.unread {
		u.Printf("%s\n", red("the store cannot be read, so nothing acts; what was done is not known here"))
		return
	}
	section := func(title, none string, rows []string) {
		if len(rows) == 0 {
			u.Printf("%s: %s\n", title, none)
			return
		}
		u.Printf("%s:\n", title)
		for _, row := range rows {
			u.Printf("  %s\n", row)
		}
	}
	u.Printf("breaker: %s\n", r.Breaker.line())
	if r.Breaker.open() {
		u.Printf("  find out what is wrong, then: runbook breaker reset --reason \"...\"\n")
	}
	section("waiting for approval", "nothing", approvals(r.Approvals, r.now, r.clocks))
	section("disabled", "nothing", r.disabled())
	section("maintenance", "no window of a person", r.windows())
	var doubt, open, cooling []string
	for _, d := range r.InDoubt {
		doubt = append(doubt, fmt.Sprintf("%s  %s on %s (%s), began %s; runbook actions %s", red(d.ID), d.Action, d.Target, d.Runbook, when(d.Since.Wall, r.now), d.ID))
	}
	for _, o := range r.Open {
		state := spoken(string(o.State))
		switch {
		case o.State == "open" && process.Alive(o.Owner):
			state = fmt.Sprintf("acting right now, process %d", o.Owner.PID)
		case o.State == "open":
			state = "its run died; the next run recovers it"
		case o.State == "complete":
			state = "done, being verified"
		case o.State == "interrupted" || o.State == "failed":
			state += ", waits for a person"
		}
		open = append(open, fmt.Sprintf("%s  %s (%s), began %s: %s", o.ID, o.Target, o.Runbook, when(o.Since.Wall, r.now), state))
	}
	for _, c := range r.Cooling {
		cooling = append(cooling, fmt.Sprintf("%s  lifts %s", c.Target, when(r.now.Add(c.At.Trusted+c.For-r.trusted), r.now)))
	}
	section("in doubt", "nothing", doubt)
	section("attempts that hold their target", "none", open)
	section("cooling down", "nothing", cooling)
	if len(r.Runs) == 0 {
		u.Printf("last runs: none yet\n")
		return
	}
	u.Printf("last runs:\n")
	runsResult{Runs: r.Runs, now: r.now}.text(u)
}

func (r statusResult) disabled() []string {
	var rows []string
	for _, d := range r.Disabled {
		until := "until a person lifts it"
		if !d.Until.IsZero() {
			until = "lifts " + when(d.Until, r.now)
		}
		rows = append(rows, fmt.Sprintf("%s, set %s by %s, %s: %s; runbook enable %s", yellow(d.String()), when(d.At, r.now), d.By, until, d.Reason, d.Name))
	}
	return rows
}

func (r statusResult) windows() []string {
	var rows []string
	for _, w := range r.Maintenance {
		state := "closed now"
		if until, open := w.Covering(r.now); open {
			state = yellow("OPEN") + ", closes " + when(until, r.now)
		}
		rows = append(rows, fmt.Sprintf("%s: %s (%s) by %s: %s; runbook maintenance remove %s", w.Selector, state, w.When(), w.By, w.Reason, w.Name))
	}
	return rows
}
