package guard

var severity = Guard{
	Name: "severity", Scope: PerAttempt,
	Set: "Default ceiling warning, and a runbook that declares no severity is critical. `policy(severity = \"warning\")`, `runbook(severity = \"info\")`.",
	Doc: "Refuses above the ceiling: info < warning < critical. A missing or unknown severity is critical. At the ceiling it passes.",
	Check: func(in Input) Verdict {
		ceiling := in.Policy.SeverityCeiling
		limit := "at most " + string(ceiling)
		measured := string(in.Severity)
		switch {
		case measured == "":
			measured = "no severity is given, which counts as critical"
		case in.Severity != Info && in.Severity != Warning && in.Severity != Critical:
			measured = "severity " + quote(measured) + " is not known, which counts as critical"
		default:
			measured = "severity is " + measured
		}
		// An unknown ceiling allows nothing.
		var allowed int
		if ceiling == Info || ceiling == Warning || ceiling == Critical {
			allowed = rank(ceiling)
		}
		if rank(in.Severity) <= allowed {
			return pass(limit, "%s", measured)
		}
		v := refuse(Person, limit, "%s", measured)
		v.Lifts = "a person acts, or the policy in project.star raises its severity ceiling"
		return v
	},
}

func rank(s Severity) int {
	switch s {
	case Info:
		return 1
	case Warning:
		return 2
	default:
		return 3
	}
}
