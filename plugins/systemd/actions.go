package systemd

import (
	"context"
	"encoding/json"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// verb is one thing that can be done to a unit.
type verb struct {
	name, doc string
	// done says that a unit is as the verb leaves it, so that there is nothing to do.
	done func(u unit) bool
	// job queues it and sends its result, or is nil: then do does it at once.
	job func(ctx context.Context, c *systemd.Conn, name string, result chan<- string) error
	do  func(ctx context.Context, c *systemd.Conn, name string) error
	// since says that it has been done since the receipt, as far as the unit shows.
	since func(u unit, before receipt) bool
}

// mode replaces a job that is queued for the unit, which is what a person means who types systemctl restart.
const mode = "replace"

var verbs = []verb{
	{
		name: "restart", doc: "Restart a unit of the target, or start it if it does not run.",
		done: func(unit) bool { return false },
		job: func(ctx context.Context, c *systemd.Conn, name string, result chan<- string) error {
			_, err := c.RestartUnitContext(ctx, name, mode, result)
			return err
		},
		since: started,
	},
	{
		name: "start", doc: "Start a unit of the target.",
		done: func(u unit) bool { return u.Active == "active" },
		job: func(ctx context.Context, c *systemd.Conn, name string, result chan<- string) error {
			_, err := c.StartUnitContext(ctx, name, mode, result)
			return err
		},
		since: started,
	},
	{
		name: "stop", doc: "Stop a unit of the target.",
		done: stopped,
		job: func(ctx context.Context, c *systemd.Conn, name string, result chan<- string) error {
			_, err := c.StopUnitContext(ctx, name, mode, result)
			return err
		},
		since: func(u unit, _ receipt) bool { return stopped(u) },
	},
	{
		name: "reset_failed", doc: "Let systemd forget that a unit of the target failed, so that it may be started again after too many failures.",
		done: func(u unit) bool { return u.Active != "failed" },
		do: func(ctx context.Context, c *systemd.Conn, name string) error {
			return c.ResetFailedUnitContext(ctx, name)
		},
		since: func(u unit, _ receipt) bool { return u.Active != "failed" },
	},
}

func started(u unit, before receipt) bool {
	return u.Invocation != "" && u.Invocation != before.Invocation
}

func stopped(u unit) bool { return u.Active == "inactive" || u.Active == "failed" }

// receipt is a unit as it was before an action.
type receipt struct {
	Unit       string `json:"unit"`
	Invocation string `json:"invocation"`
	Active     string `json:"active"`
}

// found looks at the unit before anything is done to it.
func (x *plugin) found(ctx context.Context, c *systemd.Conn, name string) (unit, error) {
	u, err := look(ctx, c, name)
	switch {
	case err != nil:
		return u, x.explain(ctx, err)
	case u.Load == "not-found":
		return u, problem.New(problem.NotFound, "there is no unit %s on %s", name, x.config.where())
	case u.Load != "loaded":
		return u, problem.New(problem.ActionFailed, "unit %s on %s is %s", name, x.config.where(), u.Load)
	}
	return u, nil
}

func (x *plugin) act(v verb) func(*sdk.Call, unitArgs) (unit, error) {
	return func(call *sdk.Call, a unitArgs) (unit, error) {
		if err := x.allowed(a.Unit); err != nil {
			return unit{}, err
		}
		dialing, cancel := context.WithTimeout(call, x.config.Timeout)
		defer cancel()
		c, end, err := x.dial(dialing)
		if err != nil {
			return unit{}, x.explain(dialing, err)
		}
		defer end()
		u, err := x.found(dialing, c, a.Unit)
		if err != nil {
			return u, err
		}
		if v.done(u) {
			return u, sdk.NoChange("%s is %s", a.Unit, u.state())
		}
		before, err := json.Marshal(receipt{Unit: a.Unit, Invocation: u.Invocation, Active: u.Active})
		if err != nil {
			return u, err
		}
		if err := call.Begin(before); err != nil {
			return u, err
		}
		if err := x.carryOut(call, c, v, a.Unit); err != nil {
			return u, err
		}
		// The job is done. What cannot be seen of the unit now does not change that.
		if after, err := look(call, c, a.Unit); err == nil {
			u = after
		}
		return u, nil
	}
}

// carryOut does it, and waits for the result of its job. An error of the request is a refusal if systemd worded it; of anything else nobody knows
// whether the request was read.
func (x *plugin) carryOut(call *sdk.Call, c *systemd.Conn, v verb, name string) error {
	result := make(chan string, 1)
	var err error
	if v.do != nil {
		err = v.do(call, c, name)
	} else {
		err = v.job(call, c, name, result)
	}
	switch {
	case refused(err):
		return x.explain(call, err)
	case err != nil:
		return sdk.Unknown(x.explain(call, err))
	case v.do != nil:
		return nil
	}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case r := <-result:
			if r == "done" {
				return nil
			}
			return x.failed(call, c, v, name, r)
		case <-call.Done():
			return sdk.Unknown(problem.New(problem.PluginTimeout, "%s %s: its job did not end in time, and goes on", v.name, name))
		case <-look.C:
			if !c.Connected() {
				return sdk.Unknown(problem.New(problem.PluginFailed, "%s %s: the connection to systemd broke before its job ended", v.name, name))
			}
		}
	}
}

// failed words a job that did not get done. Its results are those of systemd's D-Bus API: canceled, timeout, failed, dependency, skipped and some more.
func (x *plugin) failed(ctx context.Context, c *systemd.Conn, v verb, name, result string) error {
	p := problem.New(problem.ActionFailed, "%s %s: the job ended with %q", v.name, name, result).
		WithHint("on %s: systemctl status %s; journalctl -u %s", x.config.where(), name, name)
	if u, err := look(ctx, c, name); err == nil {
		p.Message += "; the unit is " + u.state()
	}
	return p
}

func (x *plugin) plan(v verb) func(context.Context, sdk.Target, unitArgs) (sdk.Plan, error) {
	return func(ctx context.Context, _ sdk.Target, a unitArgs) (sdk.Plan, error) {
		if err := x.allowed(a.Unit); err != nil {
			return sdk.Plan{}, err
		}
		return with(ctx, x, func(ctx context.Context, c *systemd.Conn) (sdk.Plan, error) {
			u, err := x.found(ctx, c, a.Unit)
			if err != nil {
				return sdk.Plan{}, err
			}
			return sdk.Plan{NoChange: v.done(u), Changes: []sdk.PlannedChange{{What: v.name + " " + a.Unit + " on " + x.config.where(), Before: u.state()}}}, nil
		})
	}
}

// probe tells from the unit whether the action has happened. That another one did the same meanwhile cannot be told apart, and need not be: the
// unit is as it was to be.
func (x *plugin) probe(v verb) func(context.Context, sdk.Probe, unitArgs) (sdk.ProbeAnswer, error) {
	return func(ctx context.Context, p sdk.Probe, a unitArgs) (sdk.ProbeAnswer, error) {
		var before receipt
		if err := json.Unmarshal(p.Receipt, &before); err != nil || before.Unit != a.Unit {
			return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "the receipt is not one of this unit"}, nil
		}
		return with(ctx, x, func(ctx context.Context, c *systemd.Conn) (sdk.ProbeAnswer, error) {
			return sdk.LookTwice(ctx, func() (sdk.ProbeAnswer, error) {
				u, err := look(ctx, c, a.Unit)
				switch {
				case err != nil:
					return sdk.ProbeAnswer{}, err
				case u.job:
					return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: a.Unit + " has a job that has not ended"}, nil
				case v.since(u, before):
					return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: a.Unit + " is " + u.state() + ", invocation " + u.Invocation + ", before " + before.Invocation}, nil
				case u.Invocation == "" || u.Invocation != before.Invocation:
					// systemd forgets a unit that has ended and that nothing refers to, with its invocation: that it shows none says nothing.
					return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: a.Unit + " is " + u.state() + ", and systemd does not know what it was before"}, nil
				}
				return sdk.ProbeAnswer{State: sdk.ProbeNotDone, Message: a.Unit + " is still of the same invocation, " + u.state()}, nil
			})
		})
	}
}
