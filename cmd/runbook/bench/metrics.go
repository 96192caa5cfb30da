package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/seed1de3961f/runbook/runtime/recorded"
)

// metricServer answers PromQL, by Prometheus' own engine, about fleets that report every second.
type metricServer struct {
	url    string
	db     *recorded.DB
	server *http.Server
}

// history is how far back the samples go, and interval how far they are apart.
const (
	history  = 20 * time.Minute
	interval = 15 * time.Second
)

func serveMetrics(ctx context.Context) (*metricServer, error) {
	m := &metricServer{db: recorded.New(recorded.Options{Retention: history})}
	now := time.Now().Truncate(interval)
	for t := now.Add(-history); !t.After(now); t = t.Add(interval) {
		if err := m.append(t); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m.url = "http://" + l.Addr().String()
	m.server = &http.Server{Handler: m.db.Handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = m.server.Serve(l) }() // ends with close
	go m.follow(ctx, now)
	return m, nil
}

// follow adds the samples of each interval as it comes.
func (m *metricServer) follow(ctx context.Context, last time.Time) {
	for {
		last = last.Add(interval)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(last)):
			_ = m.append(last) // a missing sample makes a target unknown, and that fails the benchmark
		}
	}
}

func (m *metricServer) append(t time.Time) error {
	for i := range runbooks {
		for member := range members {
			if err := m.worker(fleetName(i), member, t, 5, float64(t.Unix())); err != nil {
				return err
			}
		}
	}
	for member := range members {
		depth, done := 5.0, float64(t.Unix())
		if member == 0 {
			depth, done = 1000, 7 // stuck
		}
		if err := m.worker("sick", member, t, depth, done); err != nil {
			return err
		}
	}
	return nil
}

func (m *metricServer) worker(job string, member int, t time.Time, depth, done float64) error {
	for name, v := range map[string]float64{"up": 1, "queue_depth": depth, "jobs_done_total": done} {
		l := map[string]string{"__name__": name, "job": job, "instance": fmt.Sprintf("%s-%d", job, member)}
		if err := m.db.Append(l, t, v); err != nil {
			return err
		}
	}
	return nil
}

func (m *metricServer) close() { _ = m.server.Close() }

func fleetName(i int) string { return fmt.Sprintf("fleet%02d", i) }
