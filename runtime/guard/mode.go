package guard

var mode = Guard{
	Name: "mode", Scope: PerAttempt,
	Set: "Default recommend. `runbook(mode = \"auto\")`; `policy(mode = \"approve\")` in project.star is a ceiling for all.",
	Doc: `Refuses in mode shadow and recommend, and in mode approve as there are no approvals in this version. Only auto acts. The default is recommend.`,
	Check: func(in Input) Verdict {
		const limit = "only mode auto acts"
		m := in.Policy.Mode
		if m == Auto {
			return pass(limit, "mode is auto")
		}
		v := refuse(Person, limit, "mode is %s", m)
		switch m {
		case Shadow, Recommend:
			v.Lifts = `once you trust it, set mode = "auto" in the runbook`
		case Approve:
			v.Lifts = `this version knows no approvals: it recommends, and a person acts; or set mode = "auto"`
		default:
			v.Measured = "mode " + quote(string(m)) + " is not known"
			v.Lifts = "write shadow, recommend, approve or auto"
		}
		return v
	},
}

func quote(s string) string { return `"` + s + `"` }
