package recorded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// Target is a /metrics page that is scraped into a DB as Prometheus would scrape it: with up, and with the end of each
// series that is no longer on the page. It is used by one goroutine at a time.
type Target struct {
	// URL of the page.
	URL string
	// Labels are added to every series ("job", "instance"). On a conflict they win and the page's label becomes
	// exported_NAME, unless HonorLabels is set: then the page's label stays.
	Labels      map[string]string
	HonorLabels bool
	// Client fetches the page; nil means http.DefaultClient. The time that a scrape may take is the context's.
	Client *http.Client

	seen map[string]labels.Labels // series of the last scrape that carried no time of their own
}

const (
	acceptHeader = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
	maxPage      = 64 << 20
)

// Scrape fetches the target's page and appends what it says, as of now. If the page cannot be had or read, up is 0, every
// series of the target ends, and the error says why.
func (db *DB) Scrape(ctx context.Context, t *Target, now time.Time) error {
	page, contentType, err := t.fetch(ctx)
	var samples []sample
	if err == nil {
		samples, err = t.parse(page, contentType, now.UnixMilli())
	}
	up := 1.0
	if err != nil {
		up, samples = 0, nil
		err = fmt.Errorf("scrape %s: %w", t.URL, err)
	}
	return errors.Join(err, db.commit(t, samples, now.UnixMilli(), up))
}

// Forget ends every series of a target that will not be scraped again, up included.
func (db *DB) Forget(t *Target, now time.Time) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	errs := []error{db.stale(t.up(), now.UnixMilli())}
	for _, l := range t.seen {
		errs = append(errs, db.stale(l, now.UnixMilli()))
	}
	t.seen = nil
	return errors.Join(errs...)
}

// commit makes one scrape visible. A sample that is out of order is left out and said; the rest of the page counts.
func (db *DB) commit(t *Target, samples []sample, now millis, up float64) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	var errs []error
	seen := make(map[string]labels.Labels, len(samples))
	for _, s := range samples {
		if err := db.append(s); err != nil {
			errs = append(errs, err)
		}
		// A series with times of its own ends when it says so or by lookback, as in Prometheus.
		if s.t == now {
			seen[string(s.labels.Bytes(nil))] = s.labels
		}
	}
	for key, l := range t.seen {
		if _, ok := seen[key]; !ok {
			errs = append(errs, db.stale(l, now))
		}
	}
	t.seen = seen
	errs = append(errs, db.append(sample{labels: t.up(), t: now, v: up}))
	db.sweep()
	return errors.Join(errs...)
}

func (t *Target) up() labels.Labels {
	b := labels.NewBuilder(labels.FromMap(t.Labels))
	return b.Set(model.MetricNameLabel, "up").Labels()
}

func (t *Target) fetch(ctx context.Context) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", acceptHeader)
	client := t.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("server returned HTTP status %s", resp.Status)
	}
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, "", err
	}
	if len(page) > maxPage {
		return nil, "", fmt.Errorf("the page is larger than %d bytes", maxPage)
	}
	return page, resp.Header.Get("Content-Type"), nil
}

// parse reads a whole page before anything of it counts: half a page is no page.
func (t *Target) parse(page []byte, contentType string, now millis) ([]sample, error) {
	if len(bytes.TrimSpace(page)) == 0 {
		return nil, nil
	}
	p, err := textparse.New(page, contentType, labels.NewSymbolTable(), textparse.ParserOptions{FallbackContentType: "text/plain"})
	if p == nil {
		return nil, err
	}
	var out []sample
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if entry != textparse.EntrySeries {
			continue // help, type, comments; native histograms come only with protobuf, which is not asked for
		}
		var l labels.Labels
		p.Labels(&l)
		_, at, v := p.Series()
		s := sample{labels: t.relabel(l), t: now, v: v}
		if at != nil {
			s.t = *at
		}
		if err := check(s.labels); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
}

// relabel adds the target's labels to those of a series on the page.
func (t *Target) relabel(l labels.Labels) labels.Labels {
	b := labels.NewBuilder(l)
	names := make([]string, 0, len(t.Labels))
	for name := range t.Labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		own := l.Get(name)
		if own != "" && t.HonorLabels {
			continue
		}
		if own != "" {
			free := model.ExportedLabelPrefix + name
			for l.Has(free) {
				free = model.ExportedLabelPrefix + free
			}
			b.Set(free, own)
		}
		b.Set(name, t.Labels[name])
	}
	return b.Labels()
}
