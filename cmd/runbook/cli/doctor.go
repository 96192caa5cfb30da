package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/clock"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/notify"
	"github.com/seed1de3961f/runbook/runtime/store"
)

func doctorCommand() spec {
	return spec{
		name: "doctor", group: "Maintain", summary: "examine the state, the store, the clock, plugins and sources",
		about: `One line for each thing that must be in order for runs to act. Changes
nothing. Exits 3 if something needs a person.`,
		takes: takesProject | takesState, example: "runbook doctor",
		run: runDoctor,
	}
}

type doctorResult struct {
	State  string    `json:"state,omitempty"`
	Checks []checkup `json:"checks"`
}

// checkup is one line of the examination.
type checkup struct {
	Name    string           `json:"name"`
	OK      bool             `json:"ok"`
	Found   string           `json:"found"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

func (d *doctorResult) note(ctx context.Context, name, found string, err error) {
	c := checkup{Name: name, OK: err == nil, Found: found}
	if err != nil {
		c.Problem = asProblem(ctx, err)
		c.Found = c.Problem.Error()
	}
	d.Checks = append(d.Checks, c)
}

func runDoctor(ctx context.Context, c *call) (result, error) {
	d := &doctorResult{}
	o, err := c.openProject(ctx)
	if err == nil {
		defer o.close()
		d.note(ctx, "project", o.tree.Root(), nil)
	}
	given, gerr := c.givenState()
	switch {
	case gerr != nil:
		return nil, gerr
	case err != nil && given == "":
		return nil, err
	case err != nil:
		d.note(ctx, "project", "", err)
	default:
		given = o.settings.StateDir
	}
	d.State = given
	if err := d.state(ctx, c, given); err != nil {
		return d, err
	}
	if o != nil {
		d.sources(ctx, o)
	}
	for _, x := range d.Checks {
		if !x.OK {
			return d, exitWith(problem.ExitFindings)
		}
	}
	return d, nil
}

// state examines the state directory and what is in it.
func (d *doctorResult) state(ctx context.Context, c *call, dir string) error {
	s, err := control.Open(dir)
	d.note(ctx, "state", dir, err)
	if err != nil {
		return nil
	}
	halt := s.Check(c.stdio.Env)
	d.note(ctx, "stop", "not halted", control.Halted(halt))
	d.access(ctx, s)
	st, err := c.openStore(s, "doctor")
	if err != nil {
		return err
	}
	defer st.Close()
	r, err := st.Check(ctx)
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == problem.StoreBusy {
		d.note(ctx, "lock", "", err)
		return nil
	}
	d.note(ctx, "lock", "nobody else holds the store", nil)
	d.note(ctx, "store", fmt.Sprintf("%d records in %d commits, %s; the mark agrees", r.Records, r.Commits, inBytes(r.Bytes)), err)
	if err != nil {
		return nil
	}
	free := inBytes(r.Space.Bytes) + " free"
	if r.Space.HasInodes {
		free += fmt.Sprintf(", %d inodes", r.Space.Inodes)
	}
	d.note(ctx, "disk", free, nil)
	d.clock(ctx, st)
	status, err := ledger.ReadStatus(ctx, st, clock.Read)
	if err == nil && len(status.InDoubt) > 0 {
		ids := make([]string, len(status.InDoubt))
		for i, x := range status.InDoubt {
			ids[i] = x.ID
		}
		err = problem.New(problem.InDoubt, "%d actions are in doubt: %s", len(ids), strings.Join(ids, ", ")).WithHint("runbook actions --in-doubt")
	}
	d.note(ctx, "actions", fmt.Sprintf("nothing is in doubt, %d attempts hold their target", len(status.Open)), err)
	d.runs(ctx, c, st)
	waiting, err := notify.Pending(ctx, st)
	if err == nil && len(waiting) > 0 {
		err = problem.New(problem.NoticeFailed, "%d notices have not been delivered, the oldest since %s", len(waiting), clockTime(waiting[0].Last)).
			WithHint("check the routes in project(notify=); every run tries again")
	}
	d.note(ctx, "notices", "all delivered", err)
	return nil
}

func (d *doctorResult) clock(ctx context.Context, st store.Store) {
	now, err := clock.Read()
	if err == nil {
		err = st.View(ctx, []string{ledger.KeyClock}, func(tx store.ReadTx) error { return ledger.Believed(tx, clock.Read) })
	}
	found := "synchronised"
	if !now.Synced {
		found = "believed, though nothing says that it is synchronised"
	}
	d.note(ctx, "clock", clockTime(now.Wall)+", "+found, err)
}

func (d *doctorResult) text(u *ui) {
	for _, x := range d.Checks {
		j := passed
		if !x.OK {
			j = refused
		}
		u.Verdict(j, x.Name, x.Found)
		if x.Problem != nil && x.Problem.Hint != "" {
			u.Printf("                         %s\n", x.Problem.Hint)
		}
	}
}

// inBytes is a size for people.
func inBytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
