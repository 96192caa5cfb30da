package guard

var tested = Guard{
	Name: "tested", Scope: PerStep,
	Set: "On. `policy(tested = False)` in project.star turns it off, and `runbook status` says so; `runbook(policy = policy(tested = True))` turns it on again for one runbook.",
	Doc: "Refuses an action that no passing test of exactly this source, with these parameters and these plugins, has carried out, or to which a branch has led that " +
		"none has taken: `runbook test --attest` writes down what passing tests cover, in a file beside the runbook. It is asked again at every step, as the way grows; a " +
		"cleanup is judged as a whole before the first. If nothing else refuses, the owner is told what it would do, and what was never tested.",
	Check: func(in Input) Verdict {
		const limit = "covered by a passing test of exactly this source"
		c := in.Coverage
		switch {
		case !c.Enforced:
			return pass(limit, "not asked for: policy(tested = False)")
		case c.Covered:
			return pass(limit, "every branch on the way is covered")
		}
		v := refuse(Person, limit, "%s", c.Missing)
		v.Lifts = "write a test that gets there, then type: runbook test --attest"
		return v
	},
}

// Coverage is what is known of the tests that lead to an action.
type Coverage struct {
	Enforced bool
	Covered  bool
	Missing  string // a sentence about what was never tested
}
