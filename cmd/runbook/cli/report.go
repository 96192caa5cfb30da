package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func reportCommand() spec {
	return spec{
		name: "report", group: "Look", summary: "show how each runbook did, to decide how far it may go",
		about: `For each runbook: on how many problems it would have acted, what refused it, what
persons answered, and how its attempts turned out. With that decide about the
next step of its mode: shadow, recommend, approve, auto. A problem counts once,
however many runs met it.`,
		args: "[RUNBOOK...]", max: many, takes: takesProject | takesState,
		flags:   []cli.Flag{durationFlag("since", "how far to look back, a `DURATION`; default 7d")},
		example: "runbook report --since 30d",
		run:     runReport,
	}
}

type reportResult struct {
	Since    time.Time        `json:"since"`
	Runbooks []*ledger.Ladder `json:"runbooks"`
	length   time.Duration
}

func runReport(ctx context.Context, c *call) (result, error) {
	r := reportResult{length: c.Duration("since"), Runbooks: []*ledger.Ladder{}}
	if r.length == 0 {
		r.length = 7 * 24 * time.Hour
	}
	r.Since = c.stdio.Now().Add(-r.length).UTC()
	err := c.withStore(ctx, "report", func(st auditedStore) error {
		all, err := ledger.Ladders(ctx, st, clock.Read, r.Since)
		if err != nil {
			return err
		}
		known := make([]string, len(all))
		for i, x := range all {
			known[i] = x.Runbook
		}
		for _, name := range c.args {
			name = strings.TrimSuffix(name, ".star")
			if !slices.Contains(known, name) {
				return problem.New(problem.NotFound, "runbook %q did nothing in the last %s%s", name, howLong(r.length), problem.DidYouMean(name, known)).
					WithHint("runbook report --since 30d")
			}
		}
		for _, x := range all {
			if len(c.args) == 0 || slices.Contains(c.args, x.Runbook) || slices.Contains(c.args, x.Runbook+".star") {
				r.Runbooks = append(r.Runbooks, x)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r reportResult) text(u *ui) {
	if len(r.Runbooks) == 0 {
		u.Printf("no runbook was run in the last %s\n", howLong(r.length))
		return
	}
	u.Printf("the last %s\n", howLong(r.length))
	for _, x := range r.Runbooks {
		mode := ""
		if x.Mode != "" {
			mode = fmt.Sprintf(" (%s, mode %s)", x.Owner, x.Mode)
		}
		u.Printf("%s%s\n", bold(x.Runbook), mode)
		u.Printf("  met          %d problems of %d targets, in %d runs\n", x.Problems, x.Targets, x.Runs)
		u.Printf("  would act    %d problems: every guard but the mode let it\n", x.WouldAct)
		u.Printf("  refused      %s\n", counted(x.Refused, "by ", "none"))
		if x.Asked > 0 {
			u.Printf("  asked        %d times: %d approved, %d declined, %d without an answer\n", x.Asked, x.Approved, x.Declined, x.Expired)
		}
		u.Printf("  acted        %d times%s\n", x.Acted, strings.TrimSuffix(": "+counted(x.Outcomes, "", ""), ": "))
		u.Printf("  called       a person for %d problems; failed on %d\n", x.Escalated, x.Failed)
	}
}

// counted are numbers by name, the largest first.
func counted(n map[string]int, before, none string) string {
	if len(n) == 0 {
		return none
	}
	names := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		if n[a] != n[b] {
			return n[b] - n[a]
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s%s", n[name], before, spoken(name))
	}
	return strings.Join(names, ", ")
}
