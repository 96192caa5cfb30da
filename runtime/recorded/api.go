package recorded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// engineVersion is the release of Prometheus whose engine answers. A test compares it with go.mod.
const engineVersion = "3.16.0"

const (
	maxPoints   = 11_000  // per series of a range query, as in Prometheus
	maxFormSize = 1 << 20 // bytes
	// statusClosed is what Prometheus answers to a client that has gone away.
	statusClosed = 499
)

// Handler answers the part of Prometheus' HTTP API that queries need: query, query_range, series, labels, label values,
// buildinfo, and /-/ready and /-/healthy.
func (db *DB) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range map[string]func(*http.Request) reply{
		"/api/v1/query":               db.apiQuery,
		"/api/v1/query_range":         db.apiQueryRange,
		"/api/v1/series":              db.apiSeries,
		"/api/v1/labels":              db.apiLabels,
		"/api/v1/label/{name}/values": db.apiLabelValues,
		"/api/v1/status/buildinfo":    apiBuildinfo,
	} {
		mux.HandleFunc("GET "+path, serve(answer))
		mux.HandleFunc("POST "+path, serve(answer))
	}
	ready := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "Runbook's recorded metrics are Ready.")
	}
	mux.HandleFunc("GET /-/ready", ready)
	mux.HandleFunc("GET /-/healthy", ready)
	return mux
}

// reply is one answer, in the JSON shape of Prometheus.
type reply struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
	code      int
	result    []byte // data, as it is sent; nil: Data is
}

func success(data any) reply { return reply{Status: "success", Data: data, code: http.StatusOK} }

func failure(code int, kind string, err error) reply {
	return reply{Status: "error", ErrorType: kind, Error: err.Error(), code: code}
}

func badData(parameter string, err error) reply {
	return failure(http.StatusBadRequest, "bad_data", fmt.Errorf("invalid parameter %q: %w", parameter, err))
}

// queryFailure gives an engine's error the kind and code that Prometheus gives it.
func queryFailure(err error) reply {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		storage  promql.ErrStorage
	)
	switch {
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return failure(statusClosed, "canceled", err)
	case errors.As(err, &timeout):
		return failure(http.StatusServiceUnavailable, "timeout", err)
	case errors.As(err, &storage):
		return failure(http.StatusInternalServerError, "internal", err)
	}
	return failure(http.StatusUnprocessableEntity, "execution", err)
}

func serve(answer func(*http.Request) reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxFormSize)
		var a reply
		if err := r.ParseForm(); err != nil {
			a = failure(http.StatusBadRequest, "bad_data", fmt.Errorf("error parsing form values: %w", err))
		} else {
			a = answer(r)
		}
		body, err := json.Marshal(a)
		if a.result != nil {
			body = slices.Concat(bytes.TrimSuffix(body, []byte{'}'}), []byte(`,"data":`), a.result, []byte{'}'})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.code)
		_, _ = w.Write(body) // the client has gone away; nobody is left to tell
	}
}

func (db *DB) apiQuery(r *http.Request) reply {
	at, err := timeParam(r, "time", db.now())
	if err != nil {
		return badData("time", err)
	}
	return db.exec(r, func(ctx context.Context, opts promql.QueryOpts) (promql.Query, error) {
		return db.engine.NewInstantQuery(ctx, db, opts, r.Form.Get("query"), at)
	})
}

func (db *DB) apiQueryRange(r *http.Request) reply {
	start, err := parseTime(r.Form.Get("start"))
	if err != nil {
		return badData("start", err)
	}
	end, err := parseTime(r.Form.Get("end"))
	if err != nil {
		return badData("end", err)
	}
	if end.Before(start) {
		return badData("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.Form.Get("step"))
	if err != nil {
		return badData("step", err)
	}
	if step <= 0 {
		return badData("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if end.Sub(start)/step > maxPoints {
		return failure(http.StatusBadRequest, "bad_data", errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return db.exec(r, func(ctx context.Context, opts promql.QueryOpts) (promql.Query, error) {
		return db.engine.NewRangeQuery(ctx, db, opts, r.Form.Get("query"), start, end, step)
	})
}

// exec makes a query under the request's timeout and lookback, and answers with its result.
func (db *DB) exec(r *http.Request, build func(context.Context, promql.QueryOpts) (promql.Query, error)) reply {
	ctx := r.Context()
	if s := r.Form.Get("timeout"); s != "" {
		timeout, err := parseDuration(s)
		if err == nil && timeout <= 0 {
			err = fmt.Errorf("timeout must be positive, got %s", timeout)
		}
		if err != nil {
			return badData("timeout", err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var lookback time.Duration
	if s := r.Form.Get("lookback_delta"); s != "" {
		var err error
		if lookback, err = parseDuration(s); err != nil {
			return badData("lookback_delta", err)
		}
	}
	q, err := build(ctx, promql.NewPrometheusQueryOpts(false, lookback, nil))
	if err != nil {
		return badData("query", err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return queryFailure(res.Err)
	}
	// The result is rendered before q.Close, which gives its memory back to the engine.
	a := success(nil)
	if a.result, err = appendResult(fmt.Appendf(nil, `{"resultType":%q,"result":`, res.Value.Type()), res.Value); err != nil {
		return failure(http.StatusInternalServerError, "internal", err)
	}
	a.result = append(a.result, '}')
	a.Warnings, a.Infos = res.Warnings.AsStrings(r.Form.Get("query"), 10, 10)
	return a
}

func (db *DB) apiSeries(r *http.Request) reply {
	sets, mint, maxt, bad := db.selection(r)
	if bad != nil {
		return *bad
	}
	if len(sets) == 0 {
		return failure(http.StatusBadRequest, "bad_data", errors.New("no match[] parameter provided"))
	}
	out := []labels.Labels{}
	seen := map[string]bool{}
	for _, matchers := range sets {
		set := (&querier{db, mint, maxt}).Select(r.Context(), true, nil, matchers...)
		for set.Next() {
			l := set.At().Labels()
			if key := string(l.Bytes(nil)); !seen[key] {
				seen[key] = true
				out = append(out, l)
			}
		}
	}
	return success(out)
}

func (db *DB) apiLabels(r *http.Request) reply {
	return db.apiDistinct(r, func(l labels.Label) (string, bool) { return l.Name, true })
}

func (db *DB) apiLabelValues(r *http.Request) reply {
	name := model.UnescapeName(r.PathValue("name"), model.ValueEncodingEscaping)
	if !model.UTF8Validation.IsValidLabelName(name) {
		return failure(http.StatusBadRequest, "bad_data", fmt.Errorf("invalid label name: %q", name))
	}
	return db.apiDistinct(r, func(l labels.Label) (string, bool) { return l.Value, l.Name == name })
}

func (db *DB) apiDistinct(r *http.Request, pick func(labels.Label) (string, bool)) reply {
	sets, mint, maxt, bad := db.selection(r)
	if bad != nil {
		return *bad
	}
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	return success((&querier{db, mint, maxt}).distinct(nil, sets, pick))
}

// selection reads match[], start and end.
func (db *DB) selection(r *http.Request) (sets [][]*labels.Matcher, mint, maxt millis, bad *reply) {
	refuse := func(a reply) ([][]*labels.Matcher, millis, millis, *reply) { return nil, 0, 0, &a }
	start, err := timeParam(r, "start", time.UnixMilli(math.MinInt64))
	if err != nil {
		return refuse(badData("start", err))
	}
	end, err := timeParam(r, "end", time.UnixMilli(math.MaxInt64))
	if err != nil {
		return refuse(badData("end", err))
	}
	for _, s := range r.Form["match[]"] {
		m, err := db.parser.ParseMetricSelector(s)
		if err != nil {
			return refuse(badData("match[]", err))
		}
		sets = append(sets, m)
	}
	return sets, start.UnixMilli(), end.UnixMilli(), nil
}

// apiBuildinfo names the engine, from which a client concludes how queries are evaluated.
func apiBuildinfo(*http.Request) reply {
	return success(map[string]string{
		"version": engineVersion, "revision": "", "branch": "runbook", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	})
}

// now is the time of a query that names none.
func (db *DB) now() time.Time {
	if db.opts.Now != nil {
		return db.opts.Now()
	}
	t, _ := db.Newest()
	return t
}

func timeParam(r *http.Request, name string, missing time.Time) (time.Time, error) {
	if s := r.Form.Get(name); s != "" {
		return parseTime(s)
	}
	return missing, nil
}

// parseTime reads seconds since 1970, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < math.MaxInt64/1000 {
		return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds, or a duration of Prometheus ("5m").
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if ns := f * float64(time.Second); math.Abs(ns) < math.MaxInt64 {
			return time.Duration(ns), nil
		}
		return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}
