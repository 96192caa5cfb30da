package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/argv"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// journalctl is where every distribution with systemd has it.
const journalctl = "/usr/bin/journalctl"

// log is the journal's files. An archived one has an @ in its name, and one that was not closed in order a ~ at its end.
type log struct {
	Files    int   `rb:"files"` // archived
	Archived int64 `rb:"archived"`
	Active   int64 `rb:"active"`
}

func (l log) said() string {
	return fmt.Sprintf("%s in %d archived files, %s in use", bytes(l.Archived), l.Files, bytes(l.Active))
}

type noArgs struct{}

func (x *plugin) journal(_ context.Context, _ noArgs) (log, error) { return x.look() }

func (x *plugin) look() (log, error) {
	var l log
	err := filepath.WalkDir(x.config.Journal, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == x.config.Journal {
				return err
			}
			return nil // it has gone meanwhile
		}
		name := d.Name()
		if !d.Type().IsRegular() || !strings.HasSuffix(strings.TrimSuffix(name, "~"), ".journal") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		_, taken := place(info)
		if strings.Contains(name, "@") || strings.HasSuffix(name, "~") {
			l.Files++
			l.Archived += taken
		} else {
			l.Active += taken
		}
		return nil
	})
	if err != nil {
		return l, problem.Wrap(problem.PluginFailed, err, "the journal").WithHint("set journal in the connection if it is elsewhere; a journal in memory only (/run) is not looked at")
	}
	return l, nil
}

type vacuumArgs struct {
	Keep int64 `rb:"keep,required,positional" doc:"bytes that may be left, no less than the connection's least_journal; the files that are written to stay and count"`
}

// check looks at what is asked for and at the journal.
func (x *plugin) check(a vacuumArgs) (l log, nothing bool, err error) {
	if a.Keep < x.config.LeastLog {
		return l, false, problem.New(problem.Argument, "keep: %d is less than the connection's least_journal, %d", a.Keep, x.config.LeastLog)
	}
	l, err = x.look()
	return l, l.Files == 0 || l.Archived+l.Active <= a.Keep, err
}

// vacuumReceipt is the journal as it was before.
type vacuumReceipt struct {
	Keep  int64 `json:"keep"`
	Files int   `json:"files"`
}

func (x *plugin) vacuum(call *sdk.Call, a vacuumArgs) (log, error) {
	l, nothing, err := x.check(a)
	if err != nil {
		return l, err
	}
	if nothing {
		return l, sdk.NoChange("the journal takes no more: %s", l.said())
	}
	cmd, err := call.Prepare(sdk.Command{Argv: []string{journalctl, "--directory=" + x.config.Journal, fmt.Sprintf("--vacuum-size=%d", a.Keep)}, Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}})
	if err != nil {
		return l, err
	}
	r, err := json.Marshal(vacuumReceipt{a.Keep, l.Files})
	if err != nil {
		return l, err
	}
	if err := call.Begin(r); err != nil {
		return l, err
	}
	out, err := cmd.Run()
	if err != nil {
		return l, err
	}
	if out.Exit != 0 {
		return l, problem.New(problem.ActionFailed, "journalctl ended with status %d%s", out.Exit, argv.Said(out.Stdout, out.Stderr))
	}
	after, nothing, err := x.check(a)
	if err != nil {
		return l, nil //nolint:nilerr // it is done, whatever can be seen of it
	}
	if !nothing && after.Files >= l.Files {
		return after, problem.New(problem.ActionFailed, "journalctl has deleted nothing: %s%s", after.said(), argv.Said(out.Stdout, out.Stderr))
	}
	return after, nil
}

func (x *plugin) planVacuum(_ context.Context, _ sdk.Target, a vacuumArgs) (sdk.Plan, error) {
	l, nothing, err := x.check(a)
	if err != nil {
		return sdk.Plan{}, err
	}
	if _, err := os.Stat(journalctl); err != nil {
		return sdk.Plan{}, problem.Wrap(problem.PluginFailed, err, "journalctl")
	}
	return sdk.Plan{NoChange: nothing, Changes: []sdk.PlannedChange{{What: "delete archived files of the journal", Before: l.said(), After: "at most " + bytes(a.Keep)}}}, nil
}

// probeVacuum counts the archived files. As small as it was to be: done. As many as before: not done.
func (x *plugin) probeVacuum(_ context.Context, p sdk.Probe, a vacuumArgs) (sdk.ProbeAnswer, error) {
	var r vacuumReceipt
	if err := json.Unmarshal(p.Receipt, &r); err != nil || r.Keep != a.Keep || r.Files < 1 {
		return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this"}, nil
	}
	l, nothing, err := x.check(a)
	said := fmt.Sprintf("%s; there were %d archived files", l.said(), r.Files)
	switch {
	case err != nil:
		return sdk.ProbeAnswer{}, err
	case nothing:
		return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: said}, nil
	case l.Files >= r.Files:
		return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: said}, nil
	}
	return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: said}, nil
}
