package guard

import "fmt"

var inDoubt = Guard{
	Name: "in doubt", Scope: PerStep, Cleanup: true,
	Set: "Lifted by persons: `runbook resolve`. It cannot be switched off.",
	Doc: "Refuses while the target has an action in doubt, whichever action and runbook it was. There is no end by itself.",
	Check: func(in Input) Verdict {
		const limit = "nothing acts on a target with an action in doubt"
		var mine []DoubtfulStep
		for _, d := range in.InDoubt {
			if d.Target == in.Target.Key {
				mine = append(mine, d)
			}
		}
		if len(mine) == 0 {
			return pass(limit, "no action on the target is in doubt")
		}
		first := mine[0]
		v := refuse(Person, limit, "%s of %s began %s ago and its outcome is unknown (%s)", first.Action, first.Runbook, span(in.since(first.Since)), first.ID)
		if n := len(mine) - 1; n > 0 {
			v.Measured += ", and " + plural(n, "more action")
		}
		v.Lifts = fmt.Sprintf("look at the target, then: runbook resolve %s --nonce N --as done|not-done|abandoned --reason R", first.ID)
		return v
	},
}
