package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/kit"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/promexpr"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

func quietRunbook(t *testing.T) *project.Runbook {
	t.Helper()
	expr, err := promexpr.Parse("depth > 100", nil)
	if err != nil {
		t.Fatal(err)
	}
	sick, err := expr.Symptom()
	if err != nil {
		t.Fatal(err)
	}
	all, err := promexpr.Parse("up", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &project.Runbook{Name: "r", Targets: project.Targets{ID: "f", Sick: sick, Held: 2 * time.Minute, All: all, By: []string{"instance"}}}
}

// What is foreseen of many times at once is what judge says at each: of series with gaps, that change their labels, have no number or were measured long ago.
func TestForeseenIsWhatJudgeSays(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	rb := quietRunbook(t)
	const times, maxAge = 12, 3 * time.Minute
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	said := map[bool]int{}
	for range 3000 {
		a := Ahead{From: from, Step: time.Minute, Times: times}
		odd := r.IntN(3) // how odd a recording is
		often := func(n int) bool { return odd > 0 && r.IntN(n*(3-odd)) == 0 }
		var ages []kit.Series
		for target := range 1 + r.IntN(3) {
			labels := map[string]string{"instance": fmt.Sprintf("w%d", target)}
			if often(40) {
				labels = map[string]string{"pod": "p"}
			}
			var member, symptom, age kit.Series
			member.Labels, symptom.Labels, age.Labels = labels, labels, labels
			if often(10) {
				age.Labels = map[string]string{"job": "shared"}
			}
			for i := -2; i < times; i++ {
				at := from.Add(time.Duration(i) * time.Minute)
				if i >= 0 && !often(60) {
					member.Points = append(member.Points, kit.Point{At: at, Value: 1})
				}
				v := float64(r.IntN(100))
				switch {
				case often(80):
					v = 101
				case often(200):
					v = math.NaN()
				case often(200):
					v = math.Inf(-1)
				}
				if !often(100) {
					symptom.Points = append(symptom.Points, kit.Point{At: at, Value: v})
				}
				measured := float64(at.Add(-time.Duration(r.IntN(170)) * time.Second).Unix())
				switch {
				case often(100):
					measured -= 300
				case often(300):
					measured = math.NaN()
				}
				if i >= 0 && !often(100) {
					age.Points = append(age.Points, kit.Point{At: at, Value: measured})
				}
			}
			a.Members, a.Symptom, ages = append(a.Members, member), append(a.Symptom, symptom), append(ages, age)
			if often(40) {
				a.Symptom = append(a.Symptom, symptom)
			}
		}
		a.Ages = [][]kit.Series{ages}
		o := Foresee(rb, maxAge, a)
		for i := range times {
			members, want := judgedWell(rb, maxAge, a, i)
			said[want]++
			for _, key := range []string{"instance=w0", "instance=w1", "instance=w2"} {
				if there := slices.Contains(members, key); o.Quiet(i) && o.There(key, i) != there {
					t.Fatalf("at %d: %s is there: %t, want %t\n%+v", i, key, !there, there, a)
				}
			}
			// It may not know of what it says nothing, and errs on one side only.
			if o.Quiet(i) && !want {
				t.Fatalf("at %d: said to be quiet\n%+v", i, a)
			}
			if want && !o.Quiet(i) && odd == 0 {
				t.Fatalf("at %d: not said to be quiet\n%+v", i, a)
			}
		}
	}
	if said[true] < 5000 || said[false] < 5000 {
		t.Errorf("hardly a trial: %v", said)
	}
}

// judgedWell asks judge at one of the times: which targets there are, and whether all are healthy.
func judgedWell(rb *project.Runbook, maxAge time.Duration, a Ahead, i int) (members []string, well bool) {
	at := a.time(i)
	upTo := func(all []kit.Series, from time.Time) []kit.Series {
		var out []kit.Series
		for _, s := range all {
			s.Points = slices.DeleteFunc(slices.Clone(s.Points), func(p kit.Point) bool { return p.At.Before(from) || p.At.After(at) })
			if len(s.Points) > 0 {
				out = append(out, s)
			}
		}
		return out
	}
	now := func(all []kit.Series) []kit.Sample {
		var out []kit.Sample
		for _, s := range upTo(all, at) {
			out = append(out, kit.Sample{Labels: s.Labels, Value: s.Points[0].Value, At: at})
		}
		return out
	}
	e := &engine{}
	all, err := e.population(rb, now(a.Members))
	if err != nil || len(all) == 0 {
		return nil, false
	}
	byKey, err := seriesByTarget(rb, upTo(a.Symptom, at.Add(-rb.Targets.Held)))
	if err != nil {
		return nil, false
	}
	stamps := stampedBy(rb, [][]kit.Sample{now(a.Ages[0])})
	well = true
	for _, t := range all {
		members = append(members, t.Key)
		well = well && judge(rb, t, byKey[t.Key], newestFor(rb, t, stamps), 3, at, maxAge).Condition == trace.Healthy
	}
	return members, well
}

// Nothing is foreseen of a runbook of which one look is not enough.
func TestOnlyFleetsAreForeseen(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	series := func(v float64) []kit.Series {
		return []kit.Series{{Labels: map[string]string{"instance": "w"}, Points: []kit.Point{{At: from, Value: v}}}}
	}
	a := Ahead{From: from, Step: time.Minute, Times: 1, Members: series(1), Symptom: series(5), Ages: [][]kit.Series{series(float64(from.Unix()))}}
	for name, c := range map[string]struct {
		change func(rb *project.Runbook, a *Ahead)
		want   bool
	}{
		"a healthy fleet":     {func(*project.Runbook, *Ahead) {}, true},
		"a single target":     {func(rb *project.Runbook, _ *Ahead) { rb.Targets.Single = true }, false},
		"an alert":            {func(rb *project.Runbook, _ *Ahead) { rb.Alert = &project.Alert{Name: "Down"} }, false},
		"no symptom":          {func(rb *project.Runbook, _ *Ahead) { rb.Targets.Sick = promexpr.Symptom{} }, false},
		"no target":           {func(_ *project.Runbook, a *Ahead) { a.Members = nil }, false},
		"measured never":      {func(_ *project.Runbook, a *Ahead) { a.Ages[0] = nil }, false},
		"nothing is measured": {func(_ *project.Runbook, a *Ahead) { a.Ages = nil }, false},
		"sick":                {func(_ *project.Runbook, a *Ahead) { a.Symptom = series(101) }, false},
		"too old":             {func(_ *project.Runbook, a *Ahead) { a.Ages = [][]kit.Series{series(float64(from.Unix() - 181))} }, false},
	} {
		rb, changed := quietRunbook(t), a
		changed.Ages = slices.Clone(a.Ages)
		c.change(rb, &changed)
		if diff := cmp.Diff(c.want, Foresee(rb, 3*time.Minute, changed).Quiet(0)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
