package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/trace"
)

// An expensive question is asked once within its cooldown, whoever asks it; until then its answer is handed out with its age.
func TestAnalysisCooldown(t *testing.T) {
	t.Parallel()
	body := `def run(ctx):
    a = ctx.svc.diagnose("disk"ARGS)
    return nothing("%s after %s" % (a.value, a.age))
`
	w := newWorld(t, map[string]string{
		"a.star": header + strings.Replace(body, "ARGS", `, cooldown = "10m"`, 1),
		"b.star": header + strings.Replace(body, "ARGS", "", 1), // the plugin's own cooldown: 1m
		"c.star": header + strings.Replace(strings.Replace(body, "ARGS", "", 1), "disk", "net", 1),
	})
	w.sick("w3")
	said := func(r *trace.Run, path string) string {
		for _, rb := range r.Runbooks {
			if rb.Path == path {
				for _, x := range rb.Targets {
					if x.Evaluation != nil {
						return x.Evaluation.Reason
					}
				}
			}
		}
		return ""
	}
	p := w.process()
	p.opts.Paths = []string{"a.star"}
	if got := said(mustRun(t, p), "a.star"); got != "1 after 0s" {
		t.Errorf("first: %q", got)
	}
	for _, step := range []struct {
		path  string
		after time.Duration
		want  string
	}{
		{"a.star", 30 * time.Second, "1 after 30s"}, // another process, the recorded answer
		{"b.star", 15 * time.Second, "1 after 45s"}, // another runbook, the same question
		{"c.star", 0, "2 after 0s"},                 // another question
		{"a.star", 5 * time.Minute, "1 after 5m45s"},
		{"b.star", 0, "3 after 0s"}, // whose own cooldown is over asks, and all have the newer answer
		{"a.star", 15 * time.Second, "3 after 15s"},
		{"a.star", 10 * time.Minute, "4 after 0s"},
	} {
		w.pass(step.after)
		p := w.process()
		p.opts.Paths = []string{step.path}
		r := mustRun(t, p)
		if got := said(r, step.path); got != step.want {
			t.Errorf("%s after %s: %q, want %q: %+v", step.path, step.after, got, step.want, r.Runbooks[0])
		}
	}
	dry := w.process()
	w.pass(time.Hour)
	dry.opts.Paths, dry.opts.DryRun = []string{"a.star"}, true
	mustRun(t, dry)
	asked := w.diagnosed
	p = w.process()
	p.opts.Paths = []string{"a.star"}
	if got := said(mustRun(t, p), "a.star"); !strings.HasSuffix(got, "after 0s") || w.diagnosed != asked+1 {
		t.Errorf("a dry run has kept its answer: %q", got)
	}
}
