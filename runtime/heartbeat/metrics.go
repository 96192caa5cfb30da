package heartbeat

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/breaker"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// counters are the metrics of the totals, by what they count.
var counters = map[string]struct{ name, help string }{
	"runs":      {"runbook_runs_total", "Runs that ended, by exit code."},
	"decisions": {"runbook_decisions_total", "Evaluations of a runbook for a target, by how they ended."},
	"refusals":  {"runbook_refusals_total", "Actions that a guard refused, by guard."},
	"actions":   {"runbook_actions_total", "Actions that were begun or reserved, by the state in which their run left them."},
	"failures":  {"runbook_runbook_failures_total", "Runs in which a runbook could not be evaluated."},
}

// render is the text of all metrics, in the exposition format.
func render(r *trace.Run, totals ledger.Totals) ([]byte, error) {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, v float64) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		g.Set(v)
		reg.MustRegister(g)
	}
	c := count(r)
	gauge("runbook_last_run_completed_timestamp_seconds", "When the last run completed, in seconds since 1970.", float64(r.Ended.UnixMilli())/1000)
	gauge("runbook_last_run_duration_seconds", "How long the last completed run took.", r.Ended.Sub(r.Started).Seconds())
	gauge("runbook_last_run_exit_code", "Exit code of the last completed run.", float64(r.Exit))
	gauge("runbook_last_run_runbooks_evaluated", "Runbooks that were due in the last completed run.", float64(c.evaluated))
	gauge("runbook_last_run_runbook_failures", "Runbooks that could not be evaluated in the last completed run.", float64(c.failed))
	gauge("runbook_last_run_targets_sick", "Targets that had a symptom for long enough in the last completed run.", float64(c.sick))
	gauge("runbook_actions_in_doubt", "Actions that began and whose outcome nobody knows.", float64(len(r.InDoubt)))
	gauge("runbook_halted", "1 while an emergency stop is set.", float64(min(len(r.Halt), 1)))

	state := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "runbook_breaker_state", Help: "1 for the state in which the global breaker is, 0 for the others."}, []string{"state"})
	reg.MustRegister(state)
	for _, s := range []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen} {
		// The run says it in words, and nothing while it is closed.
		is := r.Breaker != "" && strings.HasPrefix(r.Breaker, string(s)) || r.Breaker == "" && s == breaker.Closed
		state.WithLabelValues(string(s)).Set(map[bool]float64{true: 1}[is])
	}

	seconds := prometheus.NewCounter(prometheus.CounterOpts{Name: "runbook_run_seconds_total", Help: "What all runs took together."})
	seconds.Add(totals.Seconds)
	reg.MustRegister(seconds)
	vecs := map[string]*prometheus.CounterVec{}
	for _, n := range totals.Counts {
		about, ok := counters[n.What]
		if !ok {
			continue // a newer version counts it
		}
		if vecs[n.What] == nil {
			vecs[n.What] = prometheus.NewCounterVec(prometheus.CounterOpts{Name: about.name, Help: about.help}, slices.Sorted(maps.Keys(n.Labels)))
			reg.MustRegister(vecs[n.What])
		}
		counter, err := vecs[n.What].GetMetricWith(n.Labels)
		if err != nil {
			return nil, fmt.Errorf("render the metrics: %w", err)
		}
		counter.Add(float64(n.N))
	}

	families, err := reg.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather the metrics: %w", err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, fmt.Errorf("render the metrics: %w", err)
		}
	}
	return b.Bytes(), nil
}

type counts struct{ evaluated, failed, sick int }

func count(r *trace.Run) counts {
	var c counts
	for _, rb := range r.Runbooks {
		if rb.Due {
			c.evaluated++
		}
		if rb.Problem != nil {
			c.failed++
		}
		for _, t := range rb.Targets {
			if t.Condition == trace.Sick {
				c.sick++
			}
			if ev := t.Evaluation; ev != nil && ev.State == action.Interrupted {
				c.failed++
			}
		}
	}
	return c
}
