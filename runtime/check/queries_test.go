package check_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/builtins/analysis"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/check"
)

// What runbooks ask is found in their declarations, their functions, what they load and what their targets need, with how far back it looks.
func TestFindQueries(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"topology.star": `component("db", all = 'up{job="db"}', by = ["instance"], sick = 'db_lag_seconds > 5')` + "\n",
		"lib/disk.star": `FREE = 'disk_free{mount="/"}'
def free(c, window):
    return c.metrics.value(FREE + " / disk_size", where = {"instance": "a"})
`,
		"r.star": `load("//lib/disk.star", "free")
runbook(
    owner = "team",
    trigger = every("1m"),
    severity = "warning",
    targets = fleet(all = 'up{job="worker"}', sick = 'rate(errors_total[$window]) > 1', by = "instance", held = "10m"),
    params = {"window": param.duration("5m", doc = "a window")},
)

def run(ctx):
    free(ctx, "1h")
    for p in ctx.metrics.range("depth", window = "2h"):
        if p: pass
    ctx.metrics.range(expr = "load", window = ctx.params.window)
    ctx.metrics.value("m_" + ctx.target.name)
    ctx.analysis.baseline("orders", season = "1d", seasons = 3)
    ctx.analysis.forecast("disk_used", limit = 5)
    ctx.svc.restart("a", reason = "r", cooldown = "1h", expect = "absent(stuck offset 1m)")
`,
	})
	p.Families = append(slices.Clone(p.Families), analysis.Family())
	q, err := check.FindQueries(t.Context(), p, []string{"r.star"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range q.Reads {
		got = append(got, fmt.Sprintf("%s %s", r.Selector, value.FormatDuration(r.Back)))
	}
	slices.Sort(got)
	want := []string{
		`db_lag_seconds 0s`, `depth 2h`, `disk_free{mount="/"} 0s`, `disk_size 0s`, `disk_used 6h`, `errors_total 15m`, `load 5m`, `orders 3d`,
		`stuck 1m`, `up{job="db"} 0s`, `up{job="worker"} 10m`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]value.Pos{{File: "r.star", Line: 15, Col: 23}}, q.Computed); diff != "" {
		t.Error(diff)
	}
}
