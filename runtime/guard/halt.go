package guard

import (
	"time"

	"github.com/seed1de3961f/runbook/runtime/control"
)

var halt = Guard{
	Name: "halt", Scope: PerStep, Cleanup: true,
	Set: "Set and lifted by persons: `runbook halt`, `runbook resume`. It cannot be switched off.",
	Doc: "Refuses while any halt source is set or cannot be read: one is enough.",
	Check: func(in Input) Verdict {
		const limit = "nothing acts while a halt is set"
		if len(in.Halt) == 0 {
			return pass(limit, "no halt is set")
		}
		v := refuse(Person, limit, "halted: %s", in.Halt[0].String())
		if n := len(in.Halt) - 1; n > 0 {
			v.Measured += ", and " + plural(n, "more source")
		}
		v.Lifts = `runbook resume --reason "why it is safe"`
		ends := true
		for _, h := range in.Halt {
			if h.Source == control.SourceEnvironment {
				v.Lifts = "unset " + control.EnvHalt + " where runbook is started"
			}
			ends = ends && !h.Until.IsZero()
			if h.Until.After(v.LiftsAt) {
				v.LiftsAt = h.Until
			}
		}
		if !ends {
			// One source without an end is enough.
			v.LiftsAt = time.Time{}
		}
		return v
	},
}
