package guard

var cooldown = Guard{
	Name: "cooldown", Scope: PerStep,
	Set: "Default 1h. `policy(cooldown = \"1h\")`, `runbook(cooldown = \"2h\")`, and `cooldown =` of each action.",
	Doc: "Refuses an action that was started on the target less than its cooldown ago, whichever runbook did it; failed and in doubt count, earlier steps of the " +
		"same attempt do not, unless one was this action with the same arguments: to try again is a new attempt. The longest of the plugin's, the policy's, this call's and the previous call's applies: with 1h it is refused at 59m59s and " +
		"passes at 1h.",
	Check: func(in Input) Verdict {
		last := in.State.Cooldown
		need := max(in.Request.Cooldown, in.Policy.Cooldown, last.For)
		limit := "at most once per " + span(need)
		if in.Repeats {
			v := refuse(Passes, limit, "%s with these arguments was done by this attempt already", in.Action)
			v.LiftsAt = in.Now.Wall.Add(need)
			return v
		}
		switch {
		case last.StartedAt.IsZero():
			return pass(limit, "%s was not done on the target before", in.Action)
		case in.Attempt != "" && last.Attempt == in.Attempt:
			return pass(limit, "%s was done by this attempt itself", in.Action)
		}
		ago := in.since(last.StartedAt)
		if ago >= need {
			return pass(limit, "%s started %s ago", in.Action, span(ago))
		}
		v := refuse(Passes, limit, "%s started %s ago by %s", in.Action, span(ago), last.Runbook)
		v.LiftsAt = in.Now.Wall.Add(need - ago)
		return v
	},
}
