package guard

var attempts = Guard{
	Name: "attempts", Scope: PerAttempt,
	Set: "Default 2. `policy(attempts = 2)`, `runbook(attempts = 1)`.",
	Doc: "Refuses when the episode has had its attempts; then a person. 2 are allowed by default: the 3rd is refused. An attempt of which nothing began does not count.",
	Check: func(in Input) Verdict {
		limit := "at most " + plural(in.Policy.Attempts, "attempt") + " an episode"
		e := in.State.Episode
		switch {
		case in.Request.Episode == "" || e.ID != in.Request.Episode:
			return lacks(limit, "the episode is not known")
		case e.Attempts < in.Policy.Attempts:
			return pass(limit, "%s in this episode so far", plural(e.Attempts, "attempt"))
		}
		v := refuse(Person, limit, "%s in this episode", plural(e.Attempts, "attempt"))
		v.Lifts = "a person looks at the target; the episode ends after an hour of health"
		return v
	},
}
