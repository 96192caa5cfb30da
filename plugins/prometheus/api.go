package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/samples"
)

// answer is what the HTTP API says: https://prometheus.io/docs/prometheus/latest/querying/api/.
type answer struct {
	Status    string   `json:"status"` // success or error
	Data      data     `json:"data"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
}

type data struct {
	ResultType string `json:"resultType"` // vector, matrix, scalar or string
	Result     result `json:"result"`
	Version    string `json:"version"` // of buildinfo alone
}

// result is a list of series, or one value alone.
type result struct {
	there  bool
	series []series
}

type series struct {
	Metric     map[string]string `json:"metric"`
	Value      *point            `json:"value"`  // of a vector
	Values     []point           `json:"values"` // of a matrix
	Histogram  jsontext.Value    `json:"histogram"`
	Histograms []jsontext.Value  `json:"histograms"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (r *result) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	open, err := d.ReadToken()
	switch {
	case err != nil:
		return err
	case open.Kind() == 'n':
		return nil
	case open.Kind() != '[':
		return errors.New("its result is not a list")
	}
	r.there = true
	if d.PeekKind() == '0' {
		var p point
		err := p.take(d)
		r.series = []series{{Value: &p}}
		return err
	}
	for d.PeekKind() != ']' {
		var s series
		if err := json.UnmarshalDecode(d, &s); err != nil {
			return err
		}
		r.series = append(r.series, s)
	}
	_, err = d.ReadToken()
	return err
}

// point is [seconds since 1970, "value"].
type point samples.Point

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *point) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if open, err := d.ReadToken(); err != nil || open.Kind() != '[' {
		return errors.Join(err, errors.New("a sample is not a list"))
	}
	return p.take(d)
}

// latest is in the year 9999, in seconds since 1970.
const latest = 253402300799

// take reads what follows the bracket.
func (p *point) take(d *jsontext.Decoder) error {
	at, err := d.ReadToken()
	if err != nil {
		return err
	}
	if at.Kind() != '0' {
		return errors.New("a sample's time is not a number")
	}
	seconds, err := at.Float()
	if err != nil || math.Abs(seconds) > latest {
		return errors.New("a sample's time is beyond all years")
	}
	p.Milli = int64(math.Round(seconds * 1000))
	text, err := d.ReadToken()
	if err != nil {
		return err
	}
	if p.Value, err = strconv.ParseFloat(text.String(), 64); err != nil || text.Kind() != '"' {
		return errors.New("a sample's value is not a number as text")
	}
	if end, err := d.ReadToken(); err != nil || end.Kind() != ']' {
		return errors.Join(err, errors.New("a sample has more than a time and a value"))
	}
	return nil
}

// numbers takes the numbers out of an answer. NaN and infinities stay what they are: the engine decides about them.
func (x *plugin) numbers(a data) ([]samples.Series, error) {
	switch {
	case !a.Result.there:
		return nil, x.foreign("JSON without a result")
	case a.ResultType != "vector" && a.ResultType != "matrix" && a.ResultType != "scalar":
		return nil, x.foreign("its result is a " + clip(a.ResultType, 80) + ", not numbers")
	}
	out := make([]samples.Series, 0, len(a.Result.series))
	total := 0
	for _, s := range a.Result.series {
		if s.Histogram != nil || len(s.Histograms) > 0 {
			return nil, problem.New(problem.MetricsSource, "%s: the answer has native histograms, which have no single value", x.server).
				WithHint("use histogram_quantile, histogram_avg or histogram_count in the expression")
		}
		points := s.Values
		if a.ResultType != "matrix" {
			if s.Value == nil {
				return nil, x.foreign("a sample without a value")
			}
			points = []point{*s.Value}
		}
		if total += len(points); total > maxPoints {
			return nil, tooLarge(x.server)
		}
		n := samples.Series{Labels: s.Metric, Points: make([]samples.Point, len(points))}
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		for i, p := range points {
			n.Points[i] = samples.Point(p)
		}
		out = append(out, n)
	}
	return out, nil
}

// post asks with the arguments in the body, where they may be long, and again with GET where that is not allowed.
func (x *plugin) post(ctx context.Context, endpoint string, args url.Values) (answer, error) {
	u, args := x.endpoint(endpoint, args)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(args.Encode()))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header["Idempotency-Key"] = nil // it only reads: net/http may send it again if a connection that was used before breaks
	a, status, err := x.do(r)
	switch status {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return x.get(ctx, endpoint, args)
	}
	return a, err
}

func (x *plugin) get(ctx context.Context, endpoint string, args url.Values) (answer, error) {
	u, args := x.endpoint(endpoint, args)
	u.RawQuery = args.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{}, err
	}
	a, _, err := x.do(r)
	return a, err
}

// endpoint is the address of a part of the API, and the arguments with those that the connection's own address has.
func (x *plugin) endpoint(endpoint string, args url.Values) (url.URL, url.Values) {
	u := *x.url
	u.Path = path.Join(u.Path, endpoint)
	all := u.Query()
	maps.Copy(all, args)
	return u, all
}

// do asks. The status is 0 if there was no answer.
func (x *plugin) do(r *http.Request) (a answer, status int, err error) {
	resp, err := x.web.Do(r)
	if err != nil {
		return a, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, resp.StatusCode, err
	}
	// A label that is not UTF-8 does not make a target invisible.
	err = json.Unmarshal(body, &a, jsontext.AllowInvalidUTF8(true))
	switch {
	case resp.StatusCode/100 != 2:
		return a, resp.StatusCode, x.refused(resp.StatusCode, a)
	case err != nil:
		return a, resp.StatusCode, x.foreign(clip(err.Error(), 500))
	case a.Status == "error":
		return a, resp.StatusCode, x.refused(http.StatusBadRequest, a)
	}
	return a, resp.StatusCode, nil
}

func (x *plugin) foreign(why string) *problem.Problem {
	return problem.New(problem.MetricsSource, "%s: not a Prometheus answer: %s", x.server, why)
}

// refused words an error that the server has.
func (x *plugin) refused(status int, a answer) *problem.Problem {
	msg := clip(a.Error, 500)
	if status == http.StatusBadRequest || status == http.StatusUnprocessableEntity {
		switch a.ErrorType {
		case "bad_data":
			return problem.New(problem.Query, "%s: it refuses the query: %s", x.server, msg)
		case "execution":
			return problem.New(problem.Query, "%s: the query failed: %s", x.server, msg)
		case "timeout", "canceled":
			return problem.New(problem.MetricsSource, "%s: the query took the server too long: %s", x.server, msg)
		}
	}
	side := "client"
	if status >= 500 {
		side = "server"
	}
	return problem.New(problem.MetricsSource, "%s: %s", x.server, strings.TrimSuffix(fmt.Sprintf("%s error: %d: %s", side, status, msg), ": "))
}
