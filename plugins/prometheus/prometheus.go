// Package prometheus is the plugin that asks a Prometheus, or what speaks its HTTP API.
//
// Promise: an answer is complete or it is an error. A partial answer, one that is too large, one that is no Prometheus's,
// each is an error that names the server without its credentials.
package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/samples"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/sdk/web"
)

// maxPoints bounds an answer.
const maxPoints = 100_000

type config struct {
	URL           string            `rb:"url,required" doc:"address, such as https://prometheus.example:9090"`
	Timeout       time.Duration     `rb:"timeout" default:"10s" doc:"how long one question may take"`
	BearerToken   string            `rb:"bearer_token,sensitive" doc:"sent as Authorization: Bearer"`
	BasicUser     string            `rb:"basic_user" doc:"user of HTTP basic authentication"`
	BasicPassword string            `rb:"basic_password,sensitive" doc:"password of HTTP basic authentication"`
	CAFile        string            `rb:"ca_file" doc:"PEM file with the authority that signed the server's certificate; default: the system's"`
	Headers       map[string]string `rb:"headers,sensitive" doc:"further headers, such as X-Scope-OrgID"`
}

type instantArgs struct {
	Expr   string      `rb:"expr,required,positional" doc:"PromQL"`
	At     value.Value `rb:"at" doc:"the evaluation time: a time, or text as 2026-03-01T10:20:00Z; default: the server's now"`
	Packed bool        `rb:"packed" doc:"answer with one piece of bytes, as plugins/sdk/samples reads it"`
}

type rangeArgs struct {
	Expr   string        `rb:"expr,required,positional" doc:"PromQL"`
	Start  value.Value   `rb:"start,required" doc:"the first evaluation time"`
	End    value.Value   `rb:"end,required" doc:"the last evaluation time"`
	Step   time.Duration `rb:"step,required" doc:"time between two evaluations"`
	Packed bool          `rb:"packed" doc:"answer with one piece of bytes, as plugins/sdk/samples reads it"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("prometheus", "1", "Ask a Prometheus, or what speaks its HTTP API.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "instant", "The value of an expression at one time: a list of {labels, points}, points a list of [time, value].",
		x.instant, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.QueryFunc(p, "range", "The values of an expression over a time: a list of {labels, points}, points a list of [time, value].",
		x.queryRange, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.QueryFunc(p, "server", "What is asked: {server, version}, version empty if it does not say.", x.about, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	return p
}

type noArgs struct{}

// about is what the server says of itself: a recording says where it is from.
func (x *plugin) about(ctx context.Context, _ noArgs) (value.Value, error) {
	limited, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	version := ""
	if info, err := x.api.Buildinfo(limited); err == nil { // not everything that speaks the API has it
		version = info.Version
	}
	return value.Dict{
		{Key: value.String("server"), Value: value.String(x.server)}, {Key: value.String("version"), Value: value.String(version)},
	}, nil
}

type plugin struct {
	web     *web.Client
	api     promv1.API
	server  string // the address without credentials, for messages
	timeout time.Duration
}

func (x *plugin) configure(_ context.Context, c config) error {
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	w, err := web.New(web.Config{
		Name: "Prometheus", Try: "/api/v1/query?query=1", URL: c.URL, BearerToken: c.BearerToken, BasicUser: c.BasicUser, BasicPassword: c.BasicPassword,
		CAFile: c.CAFile, Headers: c.Headers,
	})
	if err != nil {
		return err
	}
	client, err := api.NewClient(api.Config{Address: c.URL, Client: &w.Client})
	if err != nil {
		return problem.New(problem.Project, "url: %v", err)
	}
	x.web, x.server, x.timeout, x.api = w, w.Server, c.Timeout, promv1.NewAPI(client)
	return nil
}

func (x *plugin) instant(ctx context.Context, a instantArgs) (value.Value, error) {
	at, err := instantOf("at", a.At)
	if err != nil {
		return nil, err
	}
	return x.ask(ctx, a.Packed, func(ctx context.Context) (model.Value, promv1.Warnings, error) {
		v, w, _, err := x.api.Query(ctx, a.Expr, at, promv1.WithTimeout(x.timeout))
		return v, w, err
	})
}

func (x *plugin) queryRange(ctx context.Context, a rangeArgs) (value.Value, error) {
	start, err := instantOf("start", a.Start)
	if err != nil {
		return nil, err
	}
	end, err := instantOf("end", a.End)
	if err != nil {
		return nil, err
	}
	if a.Step <= 0 || end.Before(start) {
		return nil, problem.New(problem.Argument, "range: start must not be after end, and step must be positive")
	}
	return x.ask(ctx, a.Packed, func(ctx context.Context) (model.Value, promv1.Warnings, error) {
		v, w, _, err := x.api.QueryRange(ctx, a.Expr, promv1.Range{Start: start, End: end, Step: a.Step}, promv1.WithTimeout(x.timeout))
		return v, w, err
	})
}

// ask asks once, within the connection's timeout, and accepts only a complete answer.
func (x *plugin) ask(ctx context.Context, packed bool, q func(context.Context) (model.Value, promv1.Warnings, error)) (value.Value, error) {
	limited, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	v, warnings, err := q(limited)
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		err = x.web.Late(x.timeout)
	case err != nil:
		err = x.explain(err)
	case len(warnings) > 0:
		err = problem.New(problem.MetricsSource, "%s: the answer is partial: %s", x.server, clip(strings.Join(warnings, "; "), 500))
	}
	if err != nil {
		return nil, x.web.Hide(err)
	}
	series, err := take(x.server, v)
	if err != nil {
		return nil, err
	}
	if packed {
		return pack(series), nil
	}
	return list(series), nil
}

// instantOf is a time from a time or its text; none is the zero time.
func instantOf(name string, v value.Value) (time.Time, error) {
	switch v := v.(type) {
	case nil, value.Null:
		return time.Time{}, nil
	case value.Time:
		return time.Time(v), nil
	case value.String:
		t, err := time.Parse(time.RFC3339, string(v))
		if err != nil {
			return time.Time{}, problem.New(problem.Argument, "%s: %q is not a time such as 2026-03-01T10:20:00Z", name, clip(string(v), 80))
		}
		return t, nil
	}
	return time.Time{}, problem.New(problem.Argument, "%s: must be a time, got %s", name, v.Kind())
}

// list is an answer as a runbook sees it.
func list(all []samples.Series) value.List {
	out := make(value.List, 0, len(all))
	for _, s := range all {
		points := make(value.List, 0, len(s.Points))
		for _, p := range s.Points {
			points = append(points, value.List{value.Time(time.UnixMilli(p.Milli).UTC()), value.Float(p.Value)})
		}
		out = append(out, value.Dict{
			{Key: value.String("labels"), Value: value.Strings(s.Labels)}, {Key: value.String("points"), Value: points},
		})
	}
	return out
}

func pack(all []samples.Series) value.Bytes {
	var out value.Bytes
	for _, s := range all {
		out = samples.Append(out, s)
	}
	return out
}

// take takes the numbers out of an answer. NaN and infinities stay what they are: the engine decides about them.
func take(server string, v model.Value) ([]samples.Series, error) {
	out := []samples.Series{}
	total := 0
	add := func(m model.Metric, points []model.SamplePair, histograms int) error {
		if histograms > 0 {
			return problem.New(problem.MetricsSource, "%s: the answer has native histograms, which have no single value", server).
				WithHint("use histogram_quantile, histogram_avg or histogram_count in the expression")
		}
		if total += len(points); total > maxPoints {
			return tooLarge(server)
		}
		s := samples.Series{Labels: make(map[string]string, len(m)), Points: make([]samples.Point, len(points))}
		for k, l := range m {
			s.Labels[string(k)] = string(l)
		}
		for i, p := range points {
			s.Points[i] = samples.Point{Milli: int64(p.Timestamp), Value: float64(p.Value)}
		}
		out = append(out, s)
		return nil
	}
	var err error
	switch v := v.(type) {
	case model.Vector:
		for _, s := range v {
			n := 0
			if s.Histogram != nil {
				n = 1
			}
			err = errors.Join(err, add(s.Metric, []model.SamplePair{{Timestamp: s.Timestamp, Value: s.Value}}, n))
			if err != nil {
				return nil, err
			}
		}
	case model.Matrix:
		for _, s := range v {
			if err := add(s.Metric, s.Values, len(s.Histograms)); err != nil {
				return nil, err
			}
		}
	case *model.Scalar:
		err = add(nil, []model.SamplePair{{Timestamp: v.Timestamp, Value: v.Value}}, 0)
	case nil:
		err = problem.New(problem.MetricsSource, "%s: not a Prometheus answer: JSON without a result", server)
	default:
		err = problem.New(problem.Query, "%s: the expression is a %s, not numbers", server, v.Type())
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func tooLarge(server string) error {
	return problem.New(problem.MetricsSource, "%s: the answer is too large (at most %d points and %d MiB)", server, maxPoints, web.MaxBody>>20).
		WithHint("aggregate in the expression, or ask for a shorter time or a longer step")
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}

// explain words why there is no answer.
func (x *plugin) explain(err error) error {
	if said, ok := errors.AsType[*promv1.Error](err); ok {
		if _, known := errors.AsType[*problem.Problem](err); !known {
			return explainSaid(x.server, said)
		}
	}
	return x.web.Explain(err)
}

// explainSaid words an error that the server worded.
func explainSaid(server string, e *promv1.Error) error {
	msg := clip(e.Msg, 500)
	// Of statuses other than 400 and 422 the client leaves the body unread, and Prometheus' reason is in there.
	var body struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(e.Detail), &body) == nil && body.Error != "" {
		msg += ": " + clip(body.Error, 500)
	}
	switch e.Type {
	case promv1.ErrBadData:
		return problem.New(problem.Query, "%s: it refuses the query: %s", server, msg)
	case promv1.ErrExec:
		return problem.New(problem.Query, "%s: the query failed: %s", server, msg)
	case promv1.ErrTimeout, promv1.ErrCanceled:
		return problem.New(problem.MetricsSource, "%s: the query took the server too long: %s", server, msg)
	case promv1.ErrBadResponse:
		return problem.New(problem.MetricsSource, "%s: not a Prometheus answer: %s", server, msg)
	}
	return problem.New(problem.MetricsSource, "%s: %s", server, msg)
}
