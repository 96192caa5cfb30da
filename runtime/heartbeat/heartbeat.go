// Package heartbeat says that a run completed, so that silence does not look like health: whoever watches alerts when the
// time in the file grows old, or when the ping stays away.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// pingTimeout bounds the ping: nobody waits for it.
const pingTimeout = 5 * time.Second

// Write replaces the textfile at path, for node_exporter's textfile collector, which reads whole files ending in .prom only. It has gauges
// about the run, and counters of what all runs did.
func Write(path string, r *trace.Run, totals ledger.Totals) error {
	text, err := render(r, totals)
	if err != nil {
		return err
	}
	return replace(path, text)
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
