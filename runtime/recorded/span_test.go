package recorded

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// spanRules are rules to choose from, in any order: some need others, some look ahead, some fail now and then.
var spanRules = []string{
	"{record: 'job:depth:sum', expr: 'sum by (job) (depth)', labels: {kind: sum}}",
	"{record: 'job:depth:max', expr: 'max by (job) (depth > 3)'}",
	"{record: 'job:depth:rate', expr: 'rate(depth[5m])'}",
	"{record: 'all', expr: 'count(job:depth:sum)'}",
	"{record: 'scalar', expr: 'scalar(depth{instance=\"w1\"}) + 1'}",
	"{record: 'worst', expr: 'max_over_time(job:depth:max[3m:1m])'}",
	"{record: 'sum', expr: 'sum_over_time(sum[2m]) or vector(1)'}", // of itself
	"{record: 'before', expr: 'job:depth:sum offset 2m'}",
	"{record: 'later', expr: 'job:depth:sum offset -2m'}",
	"{record: 'ended', expr: 'depth @ end()'}",
	"{record: 'one', expr: 'depth{instance=\"w1\"} > 6'}",
	"{record: 'one', expr: 'depth{instance=\"w1\"} < 3'}", // of the same name, at other times
	"{record: 'same', expr: 'label_replace(depth, \"instance\", \"x\", \"\", \"\")'}",
	"{record: 'copy', expr: 'job:depth:sum + 0'}",
	"{record: 'forced', expr: 'depth{instance=\"w1\"} > 8 or depth{instance=\"w2\"} < 2', labels: {instance: x}}", // two series of one name, at times at once
	"{record: 'single', expr: 'depth * on (job) (depth > 6)'}",                                                    // many to many at times
	"{record: 'any', expr: 'count({job=\"worker\"})'}",
	"{record: 'spread', expr: 'histogram_quantile(0.5, took)'}",
	"{record: 'took:copy', expr: 'took'}",
	"{record: 'top', expr: 'topk(1, depth)'}",
	"{alert: Stuck, expr: 'depth > 5', for: 2m, keep_firing_for: 3m, annotations: {text: '{{ $labels.instance }} {{ $value }}'}}",
	"{alert: Wide, expr: 'job:depth:sum > 12', labels: {worst: '{{ $value | humanize }}'}}",
	"{alert: Several, expr: 'count(ALERTS{alertname=\"Stuck\", alertstate=\"firing\"}) >= 1'}",
	"{alert: Gone, expr: 'absent(depth{instance=\"w1\"})', for: 1m}",
	"{alert: Asks, expr: 'depth > 8', annotations: {all: '{{ query \"all\" | len }}'}}",
	"{alert: Stuck, expr: 'depth < 1'}", // of the same name
}

// However many steps are evaluated together, what is written and what fires is what evaluation step by step writes and fires.
func TestSpansAreSteps(t *testing.T) {
	t.Parallel()
	together, apart := 0, 0
	one := func(rt *rapid.T) {
		text := spanFile(rt)
		values := rapid.SliceOfN(rapid.SampledFrom([]string{"1x3", "4x2", "7x5", "9x3", "stale", "_x3", "NaN", "2+3x4"}), 3, 12)
		var inputs [3]string
		for i := range inputs {
			inputs[i] = strings.Join(values.Draw(rt, "values"), " ")
		}
		load := func() loaded {
			db := New(Options{})
			for i, v := range inputs {
				if _, err := db.Notation(fmt.Sprintf(`depth{job="worker", instance="w%d"}`, i), v, time.Unix(0, 0), time.Minute); err != nil {
					rt.Fatal(err)
				}
			}
			if _, err := db.Notation("took", "{{schema:1 sum:4 count:3 buckets:[1 2]}}+{{schema:1 sum:4 count:3 buckets:[1 2]}}x20 _x3 {{schema:1 sum:4 count:3 buckets:[1 2]}}x9", time.Unix(0, 0), time.Minute); err != nil {
				rt.Fatal(err)
			}
			r, err := db.LoadRules([]RuleFile{{Name: "rules.yml", Text: []byte(text)}}, RuleOptions{})
			if err != nil {
				rt.Fatal(err)
			}
			return loaded{db, r}
		}
		spans, steps := load(), load()
		step := rapid.SampledFrom([]time.Duration{time.Minute, 30 * time.Second, 7 * time.Minute}).Draw(rt, "step")
		if steps.rules.ahead() {
			together++
		} else {
			apart++
		}
		var spanErr, stepErr error
		for from := time.Unix(0, 0); spanErr == nil && from.Before(time.Unix(4000, 0)); {
			n := rapid.SampledFrom([]int{1, 2, 3, 5, 8, 70}).Draw(rt, "steps")
			to := from.Add(time.Duration(n-1) * step)
			spanErr = spans.rules.Every(context.Background(), from, to, step)
			for i := range n {
				if stepErr = steps.rules.Eval(context.Background(), from.Add(time.Duration(i)*step)); stepErr != nil {
					break
				}
			}
			if (spanErr == nil) != (stepErr == nil) {
				rt.Fatalf("together: %v; step by step: %v\n%s", spanErr, stepErr, text)
			}
			if spanErr != nil {
				return // which of two that fail is told first may differ
			}
			if d := cmp.Diff(fmt.Sprint(steps.rules.Firing("")), fmt.Sprint(spans.rules.Firing(""))); d != "" {
				rt.Fatalf("firing, step by step and together: %s\n%s", d, text)
			}
			from = to.Add(step)
		}
		if d := cmp.Diff(dump(steps.db), dump(spans.db)); d != "" {
			rt.Fatalf("written, step by step and together: %s\n%s", d, text)
		}
	}
	for range 3 {
		rapid.Check(t, one)
	}
	if together == 0 || apart == 0 {
		t.Errorf("%d cases evaluated together, %d step by step", together, apart)
	}
}

type loaded struct {
	db    *DB
	rules *Rules
}

// spanFile is a file of some of the rules in two groups, among them often a pair that has to be taken apart.
func spanFile(rt *rapid.T) string {
	pick := func(part string) int {
		return slices.IndexFunc(spanRules, func(r string) bool { return strings.Contains(r, part) })
	}
	pair := rapid.SampledFrom([][]int{
		nil,
		{pick(`"} > 6'}`), pick(`"} < 3'}`)},
		{pick("Stuck, expr: 'depth > 5'"), pick("Stuck, expr: 'depth < 1'")},
		{pick("job:depth:sum"), pick("copy")},
		{pick("forced")},
		{pick("copy"), pick("job:depth:sum")},
		{pick("job:depth:sum"), pick("later")},
	}).Draw(rt, "pair")
	chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, len(spanRules)-1), 0, 3, rapid.ID[int]).Draw(rt, "rules")
	chosen = append(slices.DeleteFunc(chosen, func(i int) bool { return slices.Contains(pair, i) }), pair...)
	if len(chosen) == 0 {
		chosen = []int{0}
	}
	split := rapid.IntRange(0, len(chosen)).Draw(rt, "split")
	late := rapid.IntRange(0, 3).Draw(rt, "late") == 0
	if late {
		split = len(chosen) - 1
	}
	var b strings.Builder
	b.WriteString("groups:\n")
	for i, part := range [][]int{chosen[:split], chosen[split:]} {
		fmt.Fprintf(&b, "- name: g%d\n", i)
		if rapid.IntRange(0, 9).Draw(rt, "limited") == 0 {
			b.WriteString("  limit: 2\n")
		}
		if late && i == 0 || rapid.IntRange(0, 9).Draw(rt, "offset") == 0 {
			b.WriteString("  query_offset: 1m\n")
		}
		b.WriteString("  rules:\n")
		for _, k := range part {
			b.WriteString("  - " + spanRules[k] + "\n")
		}
	}
	return b.String()
}

// dump is everything that a DB has.
func dump(db *DB) []string {
	var out []string
	for _, s := range db.series {
		for i, at := range s.ts {
			line := fmt.Sprintf("%s %d %x", s.labels, at, math.Float64bits(s.vs[i]))
			if s.hs != nil && s.hs[i] != nil {
				line += " " + s.hs[i].String()
			}
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}
