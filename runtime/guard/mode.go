package guard

var mode = Guard{
	Name: "mode", Scope: PerAttempt, Cleanup: true,
	Set: "Default recommend. `runbook(mode = \"auto\")`; `policy(mode = \"approve\")` in project.star is a ceiling for all.",
	Doc: "Refuses in mode shadow, which only records, and in mode recommend, which tells the owner what it would do. In mode approve it passes once a person has approved " +
		"exactly this: this source, this target, this first action with these arguments. A request expires to no after 30m: at 29m59s it can be " +
		"approved, at 30m no more. It covers one attempt and is used up when that begins; all other guards are judged afresh then.",
	Check: func(in Input) Verdict {
		const limit = "mode auto, or approved by a person"
		m := in.Policy.Mode
		if m == Auto {
			return pass(limit, "mode is auto")
		}
		v := refuse(Person, limit, "mode is %s", m)
		switch m {
		case Shadow:
			v.Class = Passes // it records, and disturbs nobody
			v.Lifts = `to be told of it, set mode = "recommend"`
		case Recommend:
			v.Lifts = `once you trust it, set mode = "approve" or "auto" in the runbook`
		case Approve:
			if in.Cleanup {
				return pass(limit, "mode is approve, and the attempt that is cleaned up was approved")
			}
			return approved(in, limit)
		default:
			v.Measured = "mode " + quote(string(m)) + " is not known"
			v.Lifts = "write shadow, recommend, approve or auto"
		}
		return v
	},
}

func approved(in Input, limit string) Verdict {
	a := in.Approval
	no := func(measured string, args ...any) Verdict {
		v := refuse(Person, limit, measured, args...)
		v.Lifts = "a person is asked, and answers: runbook status"
		return v
	}
	switch {
	case a == nil:
		return no("mode is approve, and nobody was asked yet")
	case a.Answer == Declined && a.Episode == in.Request.Episode:
		v := refuse(Passes, limit, "declined by %s: %s", a.By, a.Why)
		v.Lifts = "it is asked again in the next episode"
		return v
	case a.Expired(in.Now):
		return no("request %s has expired, so the answer is no", a.ID)
	case a.Answer == Approved && a.Attempt == "":
		return pass(limit, "approved by %s %s ago (%s)", a.By, span(in.since(a.At)), a.ID)
	case a.Answer == "":
		v := no("request %s waits for an answer", a.ID)
		v.Lifts = "runbook approve " + a.ID + ", before it expires at " + clock(a.LiftsAt(in.Now))
		return v
	}
	return no("request %s was used up", a.ID)
}

func quote(s string) string { return `"` + s + `"` }
