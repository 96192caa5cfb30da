//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

const alertRunbook = `runbook(
    owner = "team",
    trigger = alert("WorkerQueueStuck"),
    mode = "auto",
    targets = fleet(all = 'up{job="worker"}', by = "instance", max_bad = 1),
)

def run(ctx):
    firing = ctx.alerts.firing("WorkerQueueStuck", where = {"instance": ctx.target.name})
    if len(firing) != 1:
        return escalate("%d alerts about one target" % len(firing))
    ctx.exec.run("restart", reason = "queue stuck", expect = 'queue_depth{job="worker"} < 100', within = "30s")
`

// Two real Alertmanagers, which do not know of each other, have the same alert of a real Prometheus: a run after another asks both, and the
// worker is restarted once. One of them that is gone says nothing about the others: what is not known to be sick is unknown.
func TestE2ETwoAlertmanagersCauseOneAction(t *testing.T) {
	t.Parallel()
	l := newLabThatAlerts(t, 2)
	s := l.newSite(t, fmt.Sprintf(`alerts = [connection("alertmanager", name = "a", config = {"url": %q}), connection("alertmanager", name = "b", config = {"url": %q})],`,
		l.alertmanagers[0], l.alertmanagers[1]), nil)
	write(t, filepath.Join(s.dir, "worker.star"), alertRunbook)
	r := s.startRun()
	if got, exit := r.ends(); exit != problem.ExitOK || got.Runbooks[0].Targets[1].Condition != trace.Healthy {
		t.Fatalf("exit %d\n%s", exit, show(got))
	}
	healthy := l.facts()
	l.stick()
	for _, am := range l.alertmanagers {
		l.wait("the alert in "+am, func() (bool, string, error) {
			resp, err := http.Get(am + "/api/v2/alerts") //nolint:noctx // polled, and bounded by wait
			if err != nil {
				return false, "", err
			}
			defer resp.Body.Close()
			var list []struct{ Labels map[string]string }
			err = json.NewDecoder(resp.Body).Decode(&list)
			return slices.ContainsFunc(list, func(a struct{ Labels map[string]string }) bool { return a.Labels["instance"] == stuck }), fmt.Sprint(list), err
		})
	}
	got, exit := s.startRun().ends()
	ev, act := s.evaluation(got, "worker")
	if exit != problem.ExitOK || ev.Outcome != trace.Acted || act.State != action.Succeeded {
		t.Fatalf("exit %d\n%s", exit, show(got))
	}
	for range 3 {
		s.startRun().ends()
	}
	if steps := s.actions(); len(steps) != 1 {
		t.Errorf("%d actions: %+v", len(steps), steps)
	}
	l.onlyRestarted(healthy, l.facts())

	text := fmt.Sprintf(projectFile, l.prometheus, binary, l.service, s.dir, fmt.Sprintf(`policy = policy(tested = False),
    alerts = [connection("alertmanager", name = "a", config = {"url": %q}), connection("alertmanager", name = "gone", config = {"url": %q})],`, l.alertmanagers[0], "http://"+l.free()))
	write(t, filepath.Join(s.dir, "project.star"), text)
	got, _ = s.startRun().ends()
	for _, x := range got.Runbooks[0].Targets {
		if x.Name != stuck && x.Condition != trace.Unknown {
			t.Errorf("%s is %s (%s) while one Alertmanager cannot be asked", x.Name, x.Condition, x.Why)
		}
	}
}
