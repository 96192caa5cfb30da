package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func resumeCommand() spec {
	return spec{
		name: "resume", group: "Decide",
		summary: "lift the halt, and show what it kept from being done",
		about: `Lifts every halt that is set in the state directory. It cannot unset RUNBOOK_HALT in
the environment of the scheduler; that is named, and the exit code is 4. What the
halt kept from being done is listed; the next run decides afresh from fresh data.`,
		takes: takesProject | takesState,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY` it is safe again"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would be lifted; lift nothing"},
		},
		required: []string{"reason"},
		example:  `runbook resume --reason "incident is over"`,
		run:      runResume,
	}
}

// resumeResult says what was lifted.
type resumeResult struct {
	State  string             `json:"state"`
	Lifted []control.HaltInfo `json:"lifted"`
	Reason string             `json:"reason"`
	By     string             `json:"by"`
	// Missed is what the halt kept from being done; null if the store could not be read.
	Missed []trace.Missed `json:"missed"`
	// Still is what keeps actions from beginning all the same.
	Still  []string `json:"still"`
	DryRun bool     `json:"dry_run,omitempty"`
	now    time.Time
}

func runResume(ctx context.Context, c *call) (result, error) {
	s, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	r := resumeResult{State: s.Dir, Lifted: []control.HaltInfo{}, Still: []string{}, Reason: c.String("reason"), By: control.Who(), now: c.stdio.Now()}
	set := s.Check(c.stdio.Env)
	if r.DryRun = c.Bool("dry-run"); !r.DryRun {
		// Cut short it would leave a halt, but nobody could tell which.
		if err := s.Resume(context.WithoutCancel(ctx), r.Reason, r.By); err != nil {
			return nil, err
		}
	}
	seen := map[[2]string]bool{}
	for _, h := range set { // the copy on the memory file system is the same halt
		if same := [2]string{h.Reason, h.By}; !seen[same] {
			seen[same] = true
			r.Lifted = append(r.Lifted, h)
		}
	}
	if len(r.Lifted) > 0 {
		if err := r.look(ctx, s); err != nil {
			c.ui.Warn("what was kept from being done, and what keeps it still, is not known: %v", err)
		}
	}
	return r, nil
}

// maxMissed bounds how many runs are looked through for what a halt kept from being done: a week of a run each minute.
const maxMissed = 10_000

// look finds out what the halts kept from being done since the first of them was set, and what keeps it from being done still.
func (r *resumeResult) look(ctx context.Context, s control.State) error {
	since := r.now
	for _, h := range r.Lifted {
		if h.At.IsZero() { // nobody knows when; a day is what a person looks through
			h.At = r.now.Add(-24 * time.Hour)
		}
		if h.At.Before(since) {
			since = h.At
		}
	}
	st, err := pebble.New(storeConfig(s, "resume"))
	if err != nil {
		return err
	}
	defer st.Close()
	runs, err := ledger.Runs(ctx, st, maxMissed, since, nil)
	if err != nil {
		return err
	}
	r.Missed = append([]trace.Missed{}, trace.MissedBy("halt", runs)...)
	d, at, err := ledger.Breaker(ctx, st, clock.Read)
	if err != nil {
		return err
	}
	if b := newBreakerResult(d, at, r.now); b.State != breaker.Closed || len(b.Wide) > 0 {
		r.Still = append(r.Still, "the breaker is "+b.line())
	}
	controls, err := ledger.ListControls(ctx, st, r.now)
	if err != nil {
		return err
	}
	set := statusResult{Disabled: controls.Disables, Maintenance: controls.Windows, now: r.now}
	for _, row := range set.disabled() {
		r.Still = append(r.Still, "disabled: "+row)
	}
	for i, w := range set.Maintenance {
		if _, open := w.Covering(r.now); open {
			r.Still = append(r.Still, "maintenance: "+set.windows()[i])
		}
	}
	for i, line := range r.Still {
		r.Still[i] = ownColor().ReplaceAllString(line, "")
	}
	return nil
}

func (r resumeResult) text(u *ui) {
	if len(r.Lifted) == 0 {
		u.Printf("was not halted\n")
		return
	}
	lifted := "lifted"
	if r.DryRun {
		lifted = "would lift"
	} else {
		next := "actions may begin again"
		if len(r.Still) > 0 {
			next = "the halt is lifted"
		}
		u.Printf("%s: %s\n", bold("resumed"), next)
	}
	for _, h := range r.Lifted {
		set := ""
		if !h.At.IsZero() {
			set = "set " + when(h.At, r.now)
		}
		if h.By != "" {
			set = strings.TrimSpace(set + " by " + h.By)
		}
		if set != "" {
			set = " (" + set + ")"
		}
		u.Printf("  %s  %s%s\n", lifted, h.Reason, set)
	}
	for _, line := range r.Still {
		u.Printf("  %s %s\n", yellow("still"), line)
	}
	switch {
	case r.Missed == nil:
		return
	case len(r.Missed) == 0:
		u.Printf("meanwhile nothing was kept from being done\n")
		return
	}
	u.Printf("meanwhile this was kept from being done; the next run looks at each afresh:\n")
	for _, m := range r.Missed {
		also := ""
		if len(m.Others) > 0 {
			also = "; refused by " + strings.Join(m.Others, ", ") + " too"
		}
		times := "once, " + when(m.Last, r.now)
		if m.Times > 1 {
			times = fmt.Sprintf("%d times, first %s, last %s", m.Times, when(m.First, r.now), when(m.Last, r.now))
		}
		u.Printf("  %s on %s (%s, because %s): %s%s; runbook explain %s\n", m.Action, m.Target, m.Runbook, m.Reason, times, also, m.Run)
	}
}
