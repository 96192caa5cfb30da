package guard

var tested = Guard{
	Name: "tested", Scope: PerStep,
	Set: `Not enforced without attested tests.`,
	Doc: "Refuses an action that, or a branch on the way to which, no passing test of exactly this source has covered; asked again at every step, as the way grows. Not " +
		"enforced as long as the project has no attestation of its tests: then it passes, and says so.",
	Check: func(in Input) Verdict {
		const limit = "covered by a passing test of exactly this source"
		c := in.Coverage
		switch {
		case !c.Enforced:
			return pass(limit, "not enforced")
		case c.Covered:
			return pass(limit, "every branch on the way is covered")
		}
		missing := c.Missing
		if missing == "" {
			missing = "this source"
		}
		v := refuse(Person, limit, "%s was never tested", missing)
		v.Lifts = "write a test that gets there, then attest it"
		return v
	},
}

// Coverage is what is known of the tests that lead to an action.
type Coverage struct {
	Enforced bool
	Covered  bool
	Missing  string // what was never tested: "worker.star:26:5"
}
