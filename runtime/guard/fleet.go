package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

var fleet = Guard{
	Name: "fleet", Scope: PerAttempt,
	Set: "Default 20%. `policy(fleet_share = 20)`; `fleet(max_bad = 1)` for small fleets.",
	Doc: "Refuses when too much of the fleet is bad: more than max(1, 20% of its N targets, rounded down), for N of 3 and more. Of 15, 3 are allowed and the 4th bad one " +
		"refuses; of 3 to 9, 1 is allowed. For N of 1 and 2 nothing is automatic unless fleet(max_bad=) says so; for bigger fleets max_bad can only lower the " +
		"limit. Bad is sick, unknown, missing, under way, or acted on within its cooldown; the target itself is bad. A target counts once. A single passes.",
	Check: func(in Input) Verdict {
		f := in.Fleet
		if f.Single {
			return pass("none for a single target", "a single target has no fleet")
		}
		members := distinct(f.Members)
		n := len(members)
		allowed, limit := f.allowed(n, in.Policy.FleetShare)
		switch {
		case f.ID == "":
			return lacks(limit, "the fleet is not known")
		case in.Target.Key == "" || !members[in.Target.Key]:
			return lacks(limit, "the target is not one of the %s of its fleet", plural(n, "target"))
		}
		bad := in.bad(members)
		measured := fmt.Sprintf("%d of %d bad: %s", len(bad), n, list(bad))
		if len(bad) <= allowed {
			return pass(limit, "%s", measured)
		}
		v := refuse(Person, limit, "%s", measured)
		v.Lifts = "when fewer are bad; look for what they have in common"
		if n <= 2 && f.MaxBad <= 0 {
			v.Lifts = "a fleet this small acts only with fleet(max_bad = 1)"
		}
		return v
	},
}

// allowed is how many targets of n may be bad for an action to be considered, and that in words.
func (f FleetView) allowed(n, share int) (int, string) {
	if n <= 2 {
		if f.MaxBad <= 0 {
			return 0, fmt.Sprintf("none of %d: too few targets to judge by", n)
		}
		return f.MaxBad, fmt.Sprintf("at most %d of %d (max_bad)", f.MaxBad, n)
	}
	allowed := Share(n, share)
	if f.MaxBad > 0 && f.MaxBad < allowed {
		return f.MaxBad, fmt.Sprintf("at most %d of %d (max_bad)", f.MaxBad, n)
	}
	return allowed, fmt.Sprintf("at most %d of %d (%d%%, rounded down, at least 1)", allowed, n, share)
}

// Share is how many of n targets a percentage is: rounded down, without a float in between, and at least 1.
func Share(n, percent int) int { return max(1, n*percent/100) }

// bad is every bad target and the first reason that it has.
func (in Input) bad(members map[string]bool) map[string]string {
	f := in.Fleet
	bad := map[string]string{in.Target.Key: "sick"}
	add := func(key, why string) {
		if _, counted := bad[key]; !counted && key != "" {
			bad[key] = why
		}
	}
	for _, group := range []struct {
		keys []string
		why  string
	}{{f.Sick, "sick"}, {f.Unknown, "unknown"}, {f.Missing, "missing"}} {
		for _, key := range group.keys {
			add(key, group.why)
		}
	}
	for _, a := range in.Open {
		// One of this fleet, also if it has gone since, or one that another runbook knows by the same key.
		if a.State.Holds() && (a.Fleet == f.ID || members[a.Target]) {
			add(a.Target, "under way")
		}
	}
	for _, key := range in.Cooling {
		if members[key] {
			add(key, "cooling down")
		}
	}
	return bad
}

func distinct(keys []string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, k := range keys {
		if k != "" {
			set[k] = true
		}
	}
	return set
}

// list names the first few of them, in order.
func list(bad map[string]string) string {
	const most = 5
	var names []string
	for _, key := range slices.Sorted(maps.Keys(bad)) {
		if len(names) == most {
			names = append(names, fmt.Sprintf("%d more", len(bad)-most))
			break
		}
		names = append(names, key+" "+bad[key])
	}
	return strings.Join(names, ", ")
}
