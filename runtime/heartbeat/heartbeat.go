// Package heartbeat says that a run completed, so that silence does not look like health: whoever watches alerts when the
// time in the file grows old, or when the ping stays away.
package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// pingTimeout bounds the ping: nobody waits for it.
const pingTimeout = 5 * time.Second

// Write replaces the textfile at path, for node_exporter's textfile collector, which reads whole files ending in .prom only.
func Write(path string, r *trace.Run) error {
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

	families, err := reg.Gather()
	if err != nil {
		return fmt.Errorf("gather the heartbeat: %w", err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return fmt.Errorf("render the heartbeat: %w", err)
		}
	}
	return replace(path, b.Bytes())
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

// replace writes a file so that a reader sees the old or the new one, never half.
func replace(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".heartbeat-*")
	if err != nil {
		return fmt.Errorf("write the heartbeat: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write the heartbeat: %w", err), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(content); err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Ping asks for a URL once, as dead man's switches on the web want it. Errors do not show the URL beyond its host: the rest of
// it is the secret.
func Ping(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return errors.New("ping: the URL cannot be used")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return fmt.Errorf("ping %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("ping %s: %s", req.URL.Host, resp.Status)
	}
	return nil
}
