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
		x := f.indexed()
		n := len(x.members)
		allowed, limit := f.allowed(n, in.Policy.FleetShare)
		switch {
		case f.ID == "":
			return lacks(limit, "the fleet is not known")
		case in.Target.Key == "" || !x.members[in.Target.Key]:
			return lacks(limit, "the target is not one of the %s of its fleet", plural(n, "target"))
		}
		bad, names := in.bad(x)
		measured := fmt.Sprintf("%d of %d bad: %s", bad, n, names)
		if bad <= allowed {
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

// fleetIndex is what a view says, so that one request costs no more in a large fleet than in a small one.
type fleetIndex struct {
	members map[string]bool
	why     map[string]string // of what this run saw as bad, the first reason that it has
	keys    []string          // of those, sorted
}

// Prepared is the view with its index: whoever asks more than once prepares it once. A prepared view is not changed any more.
func (f FleetView) Prepared() FleetView {
	f.index = nil
	f.index = f.indexed()
	return f
}

func (f FleetView) indexed() *fleetIndex {
	if f.index != nil {
		return f.index
	}
	x := &fleetIndex{members: make(map[string]bool, len(f.Members)), why: map[string]string{}}
	for _, key := range f.Members {
		if key != "" {
			x.members[key] = true
		}
	}
	for _, group := range []struct {
		keys []string
		why  string
	}{{f.Sick, "sick"}, {f.Unknown, "unknown"}, {f.Missing, "missing"}} {
		for _, key := range group.keys {
			if _, counted := x.why[key]; !counted && key != "" {
				x.why[key] = group.why
			}
		}
	}
	x.keys = slices.Sorted(maps.Keys(x.why))
	return x
}

// bad is how many targets are bad, each once, and the names of the first few with the first reason that each has.
func (in *Input) bad(x *fleetIndex) (n int, names string) {
	more := map[string]string{} // beside what this run saw
	add := func(key, why string) {
		if _, seen := x.why[key]; !seen && more[key] == "" && key != "" {
			more[key] = why
		}
	}
	add(in.Target.Key, "sick")
	for _, a := range in.Open {
		// One of this fleet, also if it has gone since, or one that another runbook knows by the same key.
		if a.State.Holds() && (a.Fleet == in.Fleet.ID || x.members[a.Target]) {
			add(a.Target, "under way")
		}
	}
	for _, key := range in.Cooling {
		if x.members[key] {
			add(key, "cooling down")
		}
	}
	const most = 5
	n = len(x.why) + len(more)
	first := append(slices.Clone(x.keys[:min(most, len(x.keys))]), slices.Collect(maps.Keys(more))...)
	slices.Sort(first)
	var parts []string
	for _, key := range first[:min(most, len(first))] {
		why := x.why[key]
		if why == "" {
			why = more[key]
		}
		parts = append(parts, key+" "+why)
	}
	if n > most {
		parts = append(parts, fmt.Sprintf("%d more", n-most))
	}
	return n, strings.Join(parts, ", ")
}
