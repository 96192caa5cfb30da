package guard

var records = Guard{
	Name: "records", Scope: PerAttempt,
	Set: "Default 100000. `policy(records = 100000)` in project.star.",
	Doc: "Refuses when as many attempts are on record as may be kept: rather than forget one that is still needed, nothing new begins. 100000 are allowed by " +
		"default: the 100001st is refused. Settled ones older than `project(retention=)`, 90 days by default, are forgotten, a few at the end of each run; open ones never are.",
	Check: func(in Input) Verdict {
		limit := "at most " + plural(in.Policy.Records, "attempt") + " on record"
		if in.Kept < in.Policy.Records {
			return pass(limit, "%s on record", plural(in.Kept, "attempt"))
		}
		v := refuse(Person, limit, "%s on record", plural(in.Kept, "attempt"))
		v.Lifts = "find out what acts so often: runbook report; then allow more with policy(records=), or keep them for less long with project(retention=)"
		return v
	},
}
