package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/pluginhost"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/store"
)

// access examines who may write the state: whoever can, can lift a halt and act with the rights of the runs.
func (d *doctorResult) access(ctx context.Context, s control.State) {
	info, err := os.Stat(s.Dir)
	if err == nil && info.Mode().Perm()&0o002 != 0 {
		err = problem.New(problem.StateUnusable, "everybody may write %s (%s)", s.Dir, info.Mode().Perm()).WithHint("type: chmod o-w %s", s.Dir)
	}
	found := ""
	if err == nil {
		found = info.Mode().String()
	}
	d.note(ctx, "access", found, err)
	gate := s.GateDir
	if !s.GateInMemory() {
		gate += ", not on a memory file system: a disk that hangs can delay a stop"
	}
	_, err = os.Stat(s.GateDir)
	if os.IsNotExist(err) { // after a boot; the next run makes it
		gate, err = gate+", not made since the last boot", nil
	}
	d.note(ctx, "gate", gate, err)
}

// silentFor is how long no run may have completed before that is worth a look: whatever the schedules are, the scheduler starts runs much more often.
const silentFor = time.Hour

// runs says how long ago the last run completed: silence must not look like health.
func (d *doctorResult) runs(ctx context.Context, c *call, st store.Scanner) {
	all, err := ledger.Runs(ctx, st, 20, time.Time{}, nil)
	found := "none has completed yet"
	for _, r := range all {
		if r.Ended.IsZero() || r.DryRun {
			continue
		}
		age := c.stdio.Now().Sub(r.Ended)
		found = "the last completed " + howLong(age) + " ago"
		if age > silentFor {
			err = problem.New(problem.NotFound, "the last run completed %s ago", value.FormatDuration(age.Truncate(time.Second))).
				WithHint("does the scheduler still start runbook run? docs/schedule.md")
		}
		break
	}
	d.note(ctx, "runs", found, err)
}

// sources starts the plugin of each connection and asks each source something that it can always answer.
func (d *doctorResult) sources(ctx context.Context, o *opened) {
	host, err := o.host(filepath.Join(o.settings.StateDir, "plugins"))
	if err != nil {
		d.note(ctx, "plugins", "", err)
		return
	}
	defer host.Close()
	timed := func(name string, c project.Connection, ask func(pluginhost.Connection) (string, error)) {
		from := time.Now() //nolint:forbidigo // a stopwatch, not a date
		config, err := o.settings.Resolve(c)
		found := ""
		if err == nil {
			found, err = ask(pluginhost.Connection{Name: c.Name, Plugin: c.Plugin, Config: config, Confine: (*pluginhost.Confine)(c.Confine)})
		}
		d.note(ctx, name, fmt.Sprintf("%s in %s", found, howLong(time.Since(from))), err) //nolint:forbidigo // the same stopwatch
	}
	timed("metrics", o.settings.Metrics, func(c pluginhost.Connection) (string, error) {
		_, err := host.Query(ctx, c, "instant", value.Dict{{Key: value.String("expr"), Value: value.String("vector(1)")}})
		return "plugin " + c.Plugin + " answered", err
	})
	for _, a := range o.settings.Alerts {
		timed("alerts", a, func(c pluginhost.Connection) (string, error) {
			v, err := host.Query(ctx, c, "alerts", nil)
			list, _ := v.(value.List)
			return fmt.Sprintf("%s answered with %d alerts", c.Name, len(list)), err
		})
	}
	d.confined(ctx, o)
	for _, x := range o.settings.Connections {
		timed("plugin", x, func(c pluginhost.Connection) (string, error) {
			return fmt.Sprintf("%s (%s) is ready", c.Name, c.Plugin), host.Ready(ctx, c)
		})
	}
}

// confined says what is in force for connections that are confined, and whether this machine can.
func (d *doctorResult) confined(ctx context.Context, o *opened) {
	for _, x := range o.allConnections() {
		if x.Confine == nil {
			continue
		}
		m, err := o.manifest(x.Plugin)
		how := ""
		if err == nil {
			how, err = pluginhost.Confinement()
		}
		d.note(ctx, "confined", x.Name+": "+(*pluginhost.Confine)(x.Confine).Describe(m)+" ("+how+")", err)
	}
}
