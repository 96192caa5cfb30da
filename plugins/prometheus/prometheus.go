// Package prometheus is the plugin that asks a Prometheus, or what speaks its HTTP API.
//
// Promise: an answer is complete or it is an error. A partial answer, one that is too large, one that is no Prometheus's,
// each is an error that names the server without its credentials.
package prometheus

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

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
	if a, err := x.get(limited, "/api/v1/status/buildinfo", url.Values{}); err == nil { // not everything that speaks the API has it
		version = a.Data.Version
	}
	return value.Dict{
		{Key: value.String("server"), Value: value.String(x.server)}, {Key: value.String("version"), Value: value.String(version)},
	}, nil
}

type plugin struct {
	web     *web.Client
	url     *url.URL
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
	x.web, x.server, x.timeout = w, w.Server, c.Timeout
	x.url, err = url.Parse(c.URL)
	return err
}

func (x *plugin) instant(ctx context.Context, a instantArgs) (value.Value, error) {
	at, err := instantOf("at", a.At)
	if err != nil {
		return nil, err
	}
	args := url.Values{"query": {a.Expr}}
	if !at.IsZero() {
		args.Set("time", unix(at))
	}
	return x.ask(ctx, a.Packed, "/api/v1/query", args)
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
	return x.ask(ctx, a.Packed, "/api/v1/query_range", url.Values{
		"query": {a.Expr}, "start": {unix(start)}, "end": {unix(end)}, "step": {strconv.FormatFloat(a.Step.Seconds(), 'f', -1, 64)},
	})
}

// unix is a time as the API takes it: seconds since 1970, with a fraction.
func unix(t time.Time) string {
	return strconv.FormatFloat(float64(t.Unix())+float64(t.Nanosecond())/1e9, 'f', -1, 64)
}

// ask asks once, within the connection's timeout, and accepts only a complete answer.
func (x *plugin) ask(ctx context.Context, packed bool, path string, args url.Values) (value.Value, error) {
	limited, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	args.Set("timeout", x.timeout.String())
	a, err := x.post(limited, path, args)
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		err = x.web.Late(x.timeout)
	case err != nil:
		err = x.web.Explain(err)
	case len(a.Warnings) > 0:
		err = problem.New(problem.MetricsSource, "%s: the answer is partial: %s", x.server, clip(strings.Join(a.Warnings, "; "), 500))
	}
	if err != nil {
		return nil, x.web.Hide(err)
	}
	series, err := x.numbers(a.Data)
	if err != nil {
		return nil, x.web.Hide(err)
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
