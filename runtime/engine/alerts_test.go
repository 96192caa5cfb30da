package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

var twoAlertmanagers = strings.Replace(projectText, "    connections =", `    alerts = [connection("alertmanager", name = "a", config = {"url": "http://a"}), connection("alertmanager", name = "b", config = {"url": "http://b"})],
    connections =`, 1)

const onAlert = `runbook(
    owner    = "team",
    trigger  = alert("QueueStuck", labels = {"env": "prod"}),
    severity = "info",
    targets  = fleet(all = 'up{job="worker"}', by = "instance"),
    mode     = "auto",
)

def run(ctx):
    print(len(ctx.alerts.firing()))
    ctx.svc.restart("x.service", reason = "stuck", timeout = "20s", expect = 'depth < 100')
`

// site is a world with two Alertmanagers and what they say.
type site struct {
	*world
	says map[string][]fired // by connection; one that is not there cannot be asked
}

type fired struct {
	instance, severity string
	since              time.Duration // before now
	heard              time.Duration // before now
	silenced           bool
}

func newSite(t *testing.T, text string) *site {
	t.Helper()
	w := newWorldIn(t, t.TempDir(), twoAlertmanagers, map[string]string{"a.star": text})
	w.t = t
	return &site{w, map[string][]fired{"a": {}, "b": {}}}
}

// look is a run, and what it saw.
func (s *site) look() *trace.Run {
	s.t.Helper()
	p := s.process()
	p.host.alerts = map[string]func(string) (value.Value, error){}
	for _, c := range []string{"a", "b"} {
		p.host.alerts[c] = func(string) (value.Value, error) {
			list, ok := s.says[c]
			if !ok {
				return nil, problem.New(problem.MetricsSource, "connection refused")
			}
			out := value.List{}
			for _, f := range list {
				labels := map[string]string{"alertname": "QueueStuck", "env": "prod"}
				if f.instance != "" {
					labels["instance"] = f.instance
				}
				if f.severity != "" {
					labels["severity"] = f.severity
				}
				out = append(out, value.Map(map[string]value.Value{
					"name": value.String("QueueStuck"), "labels": value.Strings(labels), "annotations": value.Dict{},
					"since": value.Time(s.now.Add(-f.since)), "updated": value.Time(s.now.Add(-f.heard)), "silenced": value.Bool(f.silenced),
				}))
			}
			return out, nil
		}
	}
	r, err := p.run()
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return r
}

// Two Alertmanagers deliver the same alert with different times, again and again: it is one problem, and it is acted on once.
func TestIncidentTwoAlertManagersDeliverTheSameAlert(t *testing.T) {
	t.Parallel()
	s := newSite(t, onAlert)
	s.says["a"] = []fired{{instance: "w3", severity: "warning", since: 2 * time.Minute}}
	s.says["b"] = []fired{{instance: "w3", severity: "warning", since: 110 * time.Second, heard: 20 * time.Second}}
	ev := evaluationOf(t, s.look(), "w3")
	if ev.Outcome != trace.Acted || !slices.ContainsFunc(ev.Events, func(e trace.Event) bool { return e.Branch != nil && e.Branch.Result == "1" }) {
		t.Fatalf("%+v", ev)
	}
	for range 20 {
		s.pass(15 * time.Second)
		s.says["b"][0].since += 15 * time.Second
		if r := s.look(); target(t, r, "w3").Condition != trace.Sick {
			t.Fatalf("%+v", target(t, r, "w3"))
		}
	}
	episodes := map[string]ledger.Episode{}
	if err := s.store.View(t.Context(), []string{ledger.KeyEpisodes("a")}, func(tx store.ReadTx) (err error) {
		episodes, err = ledger.Read[map[string]ledger.Episode](tx, ledger.KeyEpisodes("a"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if steps := s.steps(); len(steps) != 1 || len(s.effects) != 1 || len(episodes) != 1 || episodes["instance=w3"].ID != steps[0].Identity.Episode {
		t.Errorf("%d actions, %d effects, %+v", len(steps), len(s.effects), episodes)
	}
}

func TestAlertConditions(t *testing.T) {
	t.Parallel()
	fires := fired{instance: "w3", severity: "warning", since: 2 * time.Minute}
	change := func(f func(*fired)) []fired { x := fires; f(&x); return []fired{x} }
	for name, x := range map[string]struct {
		a, b []fired
		deaf string
		want trace.Condition
		why  string
	}{
		"fires":                    {a: []fired{fires}, want: trace.Sick, why: `alert("QueueStuck", labels = {env="prod"}) fires since`},
		"does not fire":            {want: trace.Healthy, why: "does not fire"},
		"fires for another":        {a: change(func(f *fired) { f.instance = "w1" }), want: trace.Healthy, why: "does not fire"},
		"silenced":                 {a: change(func(f *fired) { f.silenced = true }), want: trace.Pending, why: "but it is silenced"},
		"silenced in one":          {a: []fired{fires}, b: change(func(f *fired) { f.silenced = true }), want: trace.Pending, why: "but it is silenced"},
		"nothing heard of it":      {a: change(func(f *fired) { f.heard = time.Hour }), want: trace.Unknown, why: "nothing was heard of it for 1h0m0s, more than 1m"},
		"one is deaf, none fires":  {deaf: "b", want: trace.Unknown, why: "b cannot be asked"},
		"one is deaf, other fires": {a: []fired{fires}, deaf: "b", want: trace.Sick, why: "fires since"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, onAlert)
			s.says = map[string][]fired{"a": x.a, "b": x.b}
			delete(s.says, x.deaf)
			tt := target(t, s.look(), "w3")
			if tt.Condition != x.want || !strings.Contains(tt.Why, x.why) {
				t.Errorf("%s: %s", tt.Condition, tt.Why)
			}
			acted := 0
			if name == "fires for another" || x.want == trace.Sick && x.deaf == "" { // deaf: the runbook's own question cannot be answered
				acted = 1
			}
			if len(s.effects) != acted {
				t.Errorf("%d effects, want %d: %+v", len(s.effects), acted, tt.Evaluation)
			}
		})
	}
}

// None can be asked: nothing is known, and a person is told.
func TestNoAlertmanagerAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t, onAlert)
	s.says = nil
	r := s.look()
	if p := r.Runbooks[0].Problem; p == nil || p.Code != problem.MetricsSource || len(s.told) != 1 {
		t.Errorf("%+v, told %q", p, s.reasons())
	}
}

// An alert that does not say for whom it fires may mean every one of the fleet, and one for a target outside of it is not well either: neither may
// read as health.
func TestAlertForNobodyKnown(t *testing.T) {
	t.Parallel()
	s := newSite(t, onAlert)
	s.says["a"] = []fired{{severity: "warning", since: 2 * time.Minute}}
	r := s.look()
	w3 := target(t, r, "w3")
	if w3.Condition != trace.Unknown || !strings.Contains(w3.Why, "fires without saying for whom, which may be this one: it has no instance") || len(s.effects) != 0 {
		t.Errorf("%s: %s", w3.Condition, w3.Why)
	}
	s.says["a"] = append(s.says["a"], fired{instance: "w3", severity: "warning", since: 2 * time.Minute})
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Refused || !slices.Contains(refusals(ev), "fleet") {
		t.Errorf("with all others unknown: %+v", ev)
	}
	s.says["a"][0].silenced = true
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("with that one silenced: %+v", ev)
	}

	s = newSite(t, onAlert)
	s.says["a"] = []fired{{instance: "w9", severity: "warning", since: 2 * time.Minute}}
	r = s.look()
	if w9 := target(t, r, "w9"); w9.Condition != trace.Missing || !strings.Contains(w9.Why, "fires for it, and it is not in the fleet") || r.Runbooks[0].Fleet.Missing != 1 {
		t.Errorf("%+v", w9)
	}
}

// A question of a runbook itself needs the answer of every Alertmanager: the deaf one may have what the other has not.
func TestAskedAlertmanagerIsDeaf(t *testing.T) {
	t.Parallel()
	s := newSite(t, strings.NewReplacer(`alert("QueueStuck", labels = {"env": "prod"})`, `every("1m")`, `by = "instance"`, `by = "instance", sick = 'depth > 100'`, `severity = "info"`, `severity = "warning"`).Replace(onAlert))
	s.sick("w3")
	delete(s.says, "b")
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Failed || !strings.Contains(ev.Reason, "connection refused") || len(s.effects) != 0 {
		t.Errorf("%+v", ev)
	}
	s.says["b"] = []fired{}
	s.pass(time.Minute)
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("%+v", ev)
	}
}

// How bad it is, is what the alert says; one that does not say it is critical.
func TestAlertSeverity(t *testing.T) {
	t.Parallel()
	for severity, want := range map[string][]string{"warning": nil, "info": nil, "critical": {"severity"}, "": {"severity"}, "page": {"severity"}} {
		t.Run("severity "+severity, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, onAlert)
			s.says["a"] = []fired{{instance: "w3", severity: severity, since: 2 * time.Minute}}
			if got := refusals(evaluationOf(t, s.look(), "w3")); !slices.Equal(got, want) {
				t.Errorf("refused by %q, want %q", got, want)
			}
		})
	}
	t.Run("the worst of two", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, onAlert)
		s.says["a"] = []fired{{instance: "w3", severity: "warning", since: 2 * time.Minute}, {instance: "w3", severity: "critical", since: time.Minute}}
		if got := refusals(evaluationOf(t, s.look(), "w3")); !slices.Equal(got, []string{"severity"}) {
			t.Errorf("refused by %q", got)
		}
	})
}

// With sick = both must say so; then the action needs no expectation of its own, and without it needs one.
func TestAlertAndSymptom(t *testing.T) {
	t.Parallel()
	both := strings.NewReplacer(`by = "instance"`, `by = "instance", sick = 'depth > 100'`, `, expect = 'depth < 100'`, ``).Replace(onAlert)
	s := newSite(t, both)
	s.says["a"] = []fired{{instance: "w3", severity: "warning", since: 2 * time.Minute}}
	if tt := target(t, s.look(), "w3"); tt.Condition != trace.Healthy || !strings.Contains(tt.Why, "5, not > 100; alert") {
		t.Errorf("%s: %s", tt.Condition, tt.Why)
	}
	s.sick("w3")
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Acted {
		t.Errorf("%+v", ev)
	}
	s = newSite(t, strings.Replace(onAlert, `, expect = 'depth < 100'`, ``, 1))
	s.says["a"] = []fired{{instance: "w3", severity: "warning", since: 2 * time.Minute}}
	if ev := evaluationOf(t, s.look(), "w3"); ev.Outcome != trace.Refused || !strings.Contains(ev.Reason, "svc.restart needs expect") || len(s.effects) != 0 {
		t.Errorf("%+v", ev)
	}
}

// A runbook by hand is for the target that a person names, and for no other.
func TestManual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"a.star": strings.NewReplacer(`alert("QueueStuck", labels = {"env": "prod"})`, `manual()`, "    print(len(ctx.alerts.firing()))\n", "").Replace(onAlert)})
	r := w.tick()
	if rb := r.Runbooks[0]; rb.Due || rb.Why != "only by hand: runbook run a.star --target T" {
		t.Errorf("%+v", rb)
	}
	p := w.process()
	p.opts.Target = "w3"
	r, err := p.run()
	if err != nil {
		t.Fatal(err)
	}
	if ev := evaluationOf(t, r, "w3"); ev.Outcome != trace.Acted || len(w.effects) != 1 || target(t, r, "w1").Condition != trace.Healthy {
		t.Errorf("%+v", ev)
	}
}
