package cli

import (
	"context"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/runtime/control"
)

func resumeCommand() spec {
	return spec{
		name: "resume", group: "Decide",
		summary: "lift the halt",
		about: `Lifts every halt that is set in the state directory. It cannot unset RUNBOOK_HALT in
the environment of the scheduler; that is named, and the exit code is 4.`,
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
	DryRun bool               `json:"dry_run,omitempty"`
	now    time.Time
}

func runResume(ctx context.Context, c *call) (result, error) {
	s, err := c.openState(ctx)
	if err != nil {
		return nil, err
	}
	r := resumeResult{State: s.Dir, Lifted: []control.HaltInfo{}, Reason: c.String("reason"), By: control.Who(), now: c.stdio.Now()}
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
	return r, nil
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
		u.Printf("%s: actions may begin again\n", bold("resumed"))
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
}
