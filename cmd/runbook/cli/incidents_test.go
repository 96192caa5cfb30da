package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed1de3961f/runbook/runtime/guard"
	"github.com/seed1de3961f/runbook/runtime/project"
	"github.com/seed1de3961f/runbook/runtime/recorded"
	"github.com/seed1de3961f/runbook/runtime/testrun"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// injected is what was done to a pod of the recorded shop, on purpose.
type injected struct {
	At   string `json:"inject_time"`
	Pod  string `json:"inject_pod"`
	Kind string `json:"inject_type"`
}

func (f injected) begin(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateTime, f.At)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (f injected) service() string { name, _, _ := strings.Cut(f.Pod, "-"); return name }

// lasting is how long after a fault was begun something may be seen of it.
const lasting = 9 * time.Minute

// unlabelled are actions at times for which the list has no fault. The metrics show the same as with one: callers of adservice wait for 0.2 s and more, the two pods are
// as busy as they can be. That of 06:21 and of 07:38 are where the list, which has a fault every eight minutes, has none.
var unlabelled = []string{"05:14 cpu currencyservice", "06:21 cpu productcatalogservice", "07:38 network adservice"}

// The metrics of a shop of ten services into which 24 faults were put, over four hours, replayed through the runbooks in testdata/incidents. Every fault of a processor and of a
// network is found on the right pod or service, and acted on unless that was done to it within the last two hours; nothing else is.
func TestRecordedFaults(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("../../../../shared"); err != nil {
		t.Skipf("SKIPPED: the recorded incidents are not here: %v", err)
	}
	shop := "../../../../shared/data/nezha-onlineboutique-2022-08-22"
	p, o := backtested(t, workersScenario, 0, time.Minute)
	o.Data = recordings(t, shop)
	var err error
	if p.Data, err = project.Open(filepath.Join(shop, "metric")); err != nil {
		t.Fatal(err)
	}
	defer p.Data.Close()
	if p.Tree, err = project.Open("testdata/incidents"); err != nil {
		t.Fatal(err)
	}
	defer p.Tree.Close()
	if p.Settings, err = loadSettings(t, p.Tree); err != nil {
		t.Fatal(err)
	}
	o.Runbooks, o.Mode = []string{"cpu.star", "network.star", "slow.star"}, guard.Auto
	o.From, o.To = time.Date(2022, 8, 22, 3, 53, 0, 0, time.UTC), time.Date(2022, 8, 22, 8, 5, 0, 0, time.UTC)
	b, err := testrun.RunBacktest(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Problems) > 0 {
		t.Errorf("problems: %s", strings.Join(b.Problems, "\n"))
	}
	faults := faultsOf(t, shop)
	used := map[int]bool{}
	acted := 0
	for _, f := range faults {
		runbook := map[string]string{"cpu_contention": "cpu", "cpu_consumed": "cpu", "network_delay": "network"}[f.Kind]
		if runbook == "" {
			continue // exceptions and early returns are not to be seen in these metrics
		}
		found := "not found"
		for i, s := range b.Spans {
			right := s.Runbook == runbook && (strings.HasSuffix(s.Target, "="+f.Pod) || strings.HasSuffix(s.Target, "="+f.service()))
			if !right || s.From.Before(f.begin(t)) || !s.From.Before(f.begin(t).Add(lasting)) {
				continue
			}
			switch {
			case s.Outcome == trace.Acted:
				used[i] = true
				acted++
				found = fmt.Sprintf("acted after %s", s.From.Sub(f.begin(t)))
			case found == "not found" && s.Outcome == trace.Refused && slices.Equal(s.Refused, []string{"cooldown"}):
				found = "refused by cooldown"
			}
		}
		t.Logf("%s %-14s %-42s %s", f.At, f.Kind, f.Pod, found)
		if found == "not found" {
			t.Errorf("%s of %s at %s was not found", f.Kind, f.Pod, f.At)
		}
	}
	if acted != 14 {
		t.Errorf("%d faults were acted on", acted)
	}
	var others []string
	for i, s := range b.Spans {
		switch {
		case s.Outcome == trace.Acted && !used[i]:
			_, name, _ := strings.Cut(s.Target, "=")
			service, _, _ := strings.Cut(name, "-")
			others = append(others, fmt.Sprintf("%s %s %s", s.From.Format("15:04"), s.Runbook, service))
		case s.Outcome == trace.Nothing || s.Outcome == trace.Escalated || s.Outcome == trace.Refused:
			t.Logf("%s %s %s: %s", s.From.Format(time.TimeOnly), s.Runbook, s.Target, s.Decision())
		}
	}
	if diff := cmp.Diff(unlabelled, others); diff != "" {
		t.Errorf("actions without a fault:\n%s", diff)
	}
	standsDown := slices.ContainsFunc(b.Spans, func(s testrun.Span) bool {
		return s.Runbook == "slow" && s.Target == "component=recommendationservice" && s.Decision() == `nothing: what it needs is the cause: ["productcatalogservice"]`
	})
	if !standsDown {
		t.Error("nobody stands down while what it needs is the cause")
	}
}

func faultsOf(t *testing.T, shop string) []injected {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shop, "2022-08-22-fault_list.json"))
	if err != nil {
		t.Fatal(err)
	}
	var hours map[string][]injected
	if err := json.Unmarshal(text, &hours); err != nil {
		t.Fatal(err)
	}
	var out []injected
	for _, list := range hours {
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b injected) int { return strings.Compare(a.At, b.At) })
	if len(out) != 24 {
		t.Fatalf("%d faults", len(out))
	}
	return out
}

// recordings are the tables as they are: one for each pod, and for each call from one service to another as the caller and as the callee measured it.
func recordings(t *testing.T, shop string) []recorded.Recording {
	t.Helper()
	const layout = "2006-01-02 15:04:05.999999999 -0700 MST"
	pods, err := filepath.Glob(filepath.Join(shop, "metric", "*_metric.csv"))
	if err != nil || len(pods) != 10 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	var out []recorded.Recording
	for _, name := range pods {
		service, _, _ := strings.Cut(filepath.Base(name), "-")
		out = append(out, recorded.Recording{Name: "//" + filepath.Base(name), CSV: &recorded.CSV{
			Time: "Time", Layout: layout, Labels: map[string]string{"PodName": "pod"}, Add: map[string]string{"component": service, "shop": "boutique"},
			Values: map[string]string{"CpuUsageRate(%)": "pod_cpu_percent", "PodWorkload(Ops)": "pod_operations"},
		}})
	}
	for file, metric := range map[string]string{"source_50.csv": "caller_seconds", "destination_50.csv": "callee_seconds"} {
		f, err := os.Open(filepath.Join(shop, "metric", file))
		if err != nil {
			t.Fatal(err)
		}
		head, err := csv.NewReader(f).Read()
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, column := range head {
			if caller, callee, ok := strings.Cut(column, "_"); ok {
				out = append(out, recorded.Recording{Name: "//" + file, CSV: &recorded.CSV{
					Time: "time", Layout: layout, Values: map[string]string{column: metric}, Add: map[string]string{"caller": caller, "component": callee, "shop": "boutique"},
				}})
			}
		}
	}
	return out
}
