package cli

import (
	"context"
	"fmt"
	"time"

	cli "github.com/urfave/cli/v2"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
)

func breakerCommand() spec {
	reason := func(why string) []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "`WHY` " + why},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would become of it; change nothing"},
		}
	}
	return spec{
		name: "breaker", group: "Decide", summary: "the global breaker over all runbooks",
		about: `It opens when too many attempts went badly, and then nothing acts until a person
resets it. After that one attempt at a time may try; when enough have helped it
closes. docs/guards.md has the numbers.`,
		example: "runbook breaker status",
		sub: []spec{
			{
				name: "status", summary: "show where it stands, and why", takes: takesProject | takesState,
				example: "runbook breaker status", run: runBreakerStatus,
			},
			{
				name: "open", summary: "open it by hand: nothing acts until it is reset", takes: takesProject | takesState,
				about: `Unlike a halt it lets nobody in but through canaries afterwards, and it is set in
the store. In an emergency: runbook halt.`,
				flags: reason("nothing is to act"), required: []string{"reason"}, example: `runbook breaker open --reason "restarts make it worse"`,
				run: func(ctx context.Context, c *call) (result, error) {
					return c.changeBreaker(ctx, breaker.OpenedBy{Person: control.Who(), Reason: c.String("reason")})
				},
			},
			{
				name: "reset", summary: "let it try again, one attempt at a time", takes: takesProject | takesState,
				about: `From open to half-open: one canary at a time may act. Enough of them that helped
close it; anything that goes badly opens it again.`,
				flags: reason("it is safe to try again"), required: []string{"reason"}, example: `runbook breaker reset --reason "the storage is back"`,
				run: func(ctx context.Context, c *call) (result, error) {
					return c.changeBreaker(ctx, breaker.ResetBy{Person: control.Who(), Reason: c.String("reason")})
				},
			},
		},
	}
}

// breakerResult is where the breaker stands.
type breakerResult struct {
	State   breaker.State    `json:"state"`
	Since   time.Time        `json:"since,omitzero"`
	Reason  string           `json:"reason,omitempty"`
	By      string           `json:"by,omitempty"`
	Bad     []breaker.Bad    `json:"bad"` // within the window
	Policy  breaker.Policy   `json:"policy"`
	Canary  string           `json:"canary,omitempty"`
	Held    int              `json:"held,omitempty"`
	Wide    []breaker.Wide   `json:"widespread"` // that hold it
	Changes []breaker.Change `json:"changes"`
	DryRun  bool             `json:"dry_run,omitempty"`
	now     time.Time
	full    bool
}

func newBreakerResult(d breaker.Doc, at action.Clock, now time.Time) breakerResult {
	return breakerResult{
		State: d.State, Since: d.Since.Wall, Reason: d.Reason, By: d.By, Bad: append([]breaker.Bad{}, d.Badly(d.Policy, at)...), Policy: d.Policy.WithDefaults(),
		Canary: d.Canary, Held: d.Held, Wide: append([]breaker.Wide{}, d.HeldBy(at)...), Changes: append([]breaker.Change{}, d.Changes...), now: now,
	}
}

// open says whether a person must look at it.
func (r breakerResult) open() bool { return r.State == breaker.Open }

func runBreakerStatus(ctx context.Context, c *call) (result, error) {
	var r breakerResult
	err := c.withStore(ctx, "breaker", func(st auditedStore) error {
		d, at, err := ledger.Breaker(ctx, st, clock.Read)
		r = newBreakerResult(d, at, c.stdio.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	r.full = true
	if r.open() {
		return r, exitWith(problem.ExitRefused)
	}
	return r, nil
}

func (c *call) changeBreaker(ctx context.Context, e breaker.Event) (result, error) {
	var r breakerResult
	err := c.withStore(ctx, "breaker", func(st auditedStore) error {
		d, at, err := ledger.Breaker(ctx, st, clock.Read)
		switch {
		case err != nil:
			return err
		case c.Bool("dry-run"):
			d, err = d.Apply(e, at)
		default:
			d, err = ledger.ChangeBreaker(ctx, st, clock.Read, e)
		}
		r = newBreakerResult(d, at, c.stdio.Now())
		r.DryRun = c.Bool("dry-run")
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// line says where it stands on one line, with what to type.
func (r breakerResult) line() string {
	var out string
	switch r.State {
	case breaker.Closed:
		out = fmt.Sprintf("closed: %d of %d attempts that open it went badly in the last %s", len(r.Bad), r.Policy.Count, howLong(r.Policy.Window))
	case breaker.HalfOpen:
		out = yellow("half-open") + fmt.Sprintf(": %d of %d canaries held", r.Held, r.Policy.Canaries)
		if r.Canary != "" {
			out += ", attempt " + r.Canary + " is trying"
		}
		out += fmt.Sprintf("; reset %s by %s: %s", when(r.Since, r.now), r.By, r.Reason)
	default:
		out = red("OPEN: nothing acts")
		if !r.Since.IsZero() {
			out += ", since " + when(r.Since, r.now)
		}
		if r.By != "" {
			out += ", by " + r.By
		}
		out += ": " + r.Reason
	}
	for i, w := range r.Wide {
		if i == 0 {
			out += "; " + red("HELD, nothing acts") + ": a problem is widespread:"
		}
		out += fmt.Sprintf(" %d of %d of %s", w.Bad, w.Members, w.Runbook)
	}
	return out
}

func (r breakerResult) text(u *ui) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	u.Printf("breaker %s%s\n", would, r.line())
	if r.open() {
		u.Printf("  find out what is wrong, then: runbook breaker reset --reason \"...\"\n")
	}
	if !r.full {
		return
	}
	for _, b := range r.Bad {
		u.Printf("  went badly  %s on %s %s, %s (attempt %s)\n", b.Runbook, b.Target, b.What, when(b.At.Wall, r.now), b.Attempt)
	}
	for _, ch := range r.Changes {
		by := ""
		if ch.By != "" {
			by = " by " + ch.By
		}
		u.Printf("  %s  %s%s: %s\n", clockTime(ch.At), ch.To, by, ch.Why)
	}
}
