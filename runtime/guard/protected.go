package guard

import "strings"

var protected = Guard{
	Name: "protected", Scope: PerStep, Cleanup: true,
	Set: "Nothing is protected by default. `policy(protected = [protect(labels = {\"component\": \"db\"}, reason = \"...\")])`.",
	Doc: "Refuses targets that project.star protects, by name or by labels, at every step. A target without a name, an empty set of targets and a name " +
		"with a star are refused always: nothing is never taken for everything.",
	Check: func(in Input) Verdict {
		const limit = "not protected by project.star"
		t := in.Target
		switch {
		case t.Key == "" || t.Name == "" || !in.Fleet.Single && len(in.Fleet.Members) == 0:
			v := refuse(Person, limit, "no target is named: an empty set is an error, and never everything")
			v.Lifts = "name what is to be acted on in targets ="
			return v
		case strings.ContainsAny(t.Key, "*") || strings.ContainsAny(t.Name, "*"):
			v := refuse(Person, limit, "target %s looks like a pattern: a star is an error, and never everything", quote(t.Name))
			v.Lifts = "name what is to be acted on in targets ="
			return v
		}
		for _, p := range in.Policy.Protected {
			if p.Covers(in.subject()) {
				v := refuse(Person, limit, "%s is protected: %s", p.Selector, p.Reason)
				v.Lifts = "a person acts; protected targets are listed in project.star"
				return v
			}
		}
		return pass(limit, "%s", plural(len(in.Policy.Protected), "protection")+" in project.star, none covers it")
	},
}
