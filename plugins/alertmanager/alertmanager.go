// Package alertmanager is the plugin that reads the alerts of an Alertmanager, and silences them.
//
// Promise: an answer is complete or it is an error. A silence names one alert of the target by its labels, never everything; that it was made can be told
// later, by the action's key in its comment.
package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/sdk/web"
)

// maxAlerts bounds an answer.
const maxAlerts = 10_000

type config struct {
	URL           string            `rb:"url,required" doc:"address, such as https://alertmanager.example:9093"`
	Timeout       time.Duration     `rb:"timeout" default:"10s" doc:"how long one question may take"`
	BearerToken   string            `rb:"bearer_token,sensitive" doc:"sent as Authorization: Bearer"`
	BasicUser     string            `rb:"basic_user" doc:"user of HTTP basic authentication"`
	BasicPassword string            `rb:"basic_password,sensitive" doc:"password of HTTP basic authentication"`
	CAFile        string            `rb:"ca_file" doc:"PEM file with the authority that signed the server's certificate; default: the system's"`
	Headers       map[string]string `rb:"headers,sensitive" doc:"further headers, such as X-Scope-OrgID"`
}

type alertsArgs struct {
	Name  string            `rb:"name,positional" doc:"the alert's name; every alert if not given"`
	Where map[string]string `rb:"where" doc:"labels that it must have"`
}

type silenceArgs struct {
	Alert  string        `rb:"alert,required,positional" doc:"the alert's name"`
	By     []string      `rb:"by,required" doc:"the labels of the target that the alert has, too"`
	Length time.Duration `rb:"length" default:"1h" doc:"for how long, at most 24h"`
}

type expireArgs struct {
	Alert string   `rb:"alert,required,positional" doc:"the alert's name"`
	By    []string `rb:"by,required" doc:"the labels of the target that the alert has, too"`
}

type silenced struct {
	ID string `rb:"id"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("alertmanager", "1", "Read the alerts of an Alertmanager, and silence them.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "alerts", "The alerts that it has: a list of {name, labels, annotations, since, updated, silenced}, sorted by labels; silenced is also true of one that another inhibits.",
		x.alerts, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.ActionFunc(p, "silence", "Silence one alert of the target for a while.", x.silence, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.PlanFunc(p, "silence", x.plan)
	sdk.ProbeFunc(p, "silence", x.probe)
	sdk.ActionFunc(p, "expire", "End the silences of one alert of the target that runbook has made.", x.expire, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	return p
}

type plugin struct {
	web     *web.Client
	timeout time.Duration
}

func (x *plugin) configure(_ context.Context, c config) error {
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	w, err := web.New(web.Config{
		Name: "Alertmanager", Try: "/api/v2/status", URL: c.URL, BearerToken: c.BearerToken, BasicUser: c.BasicUser, BasicPassword: c.BasicPassword,
		CAFile: c.CAFile, Headers: c.Headers,
	})
	if err != nil {
		return err
	}
	x.web, x.timeout = w, c.Timeout
	return nil
}

// alert is a gettableAlert of Alertmanager's API, version 2.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	UpdatedAt   time.Time         `json:"updatedAt"`
	Status      struct {
		State string `json:"state"` // unprocessed, active or suppressed
	} `json:"status"`
}

func (x *plugin) alerts(ctx context.Context, a alertsArgs) (value.Value, error) {
	q := url.Values{"active": {"true"}, "silenced": {"true"}, "inhibited": {"true"}, "unprocessed": {"true"}}
	if a.Name != "" {
		q.Add("filter", matcher("alertname", a.Name))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Where)) {
		q.Add("filter", matcher(name, a.Where[name]))
	}
	var found []alert
	if err := x.ask(ctx, http.MethodGet, "/api/v2/alerts?"+q.Encode(), nil, &found); err != nil {
		return nil, err
	}
	if len(found) > maxAlerts {
		return nil, problem.New(problem.MetricsSource, "%s: more than %d alerts", x.web.Server, maxAlerts).WithHint("ask for one name, or for labels")
	}
	slices.SortFunc(found, func(a, b alert) int { return strings.Compare(text(a.Labels), text(b.Labels)) })
	out := make(value.List, 0, len(found))
	for _, f := range found {
		if f.Labels["alertname"] == "" || f.StartsAt.IsZero() || f.UpdatedAt.IsZero() || f.Status.State == "" {
			return nil, problem.New(problem.MetricsSource, "%s: not an Alertmanager answer: an alert without its name, times or state", x.web.Server)
		}
		out = append(out, value.Dict{
			entry("name", value.String(f.Labels["alertname"])), entry("labels", value.Strings(f.Labels)), entry("annotations", value.Strings(f.Annotations)),
			entry("since", value.Time(f.StartsAt.UTC())), entry("updated", value.Time(f.UpdatedAt.UTC())), entry("silenced", value.Bool(f.Status.State == "suppressed")),
		})
	}
	return out, nil
}

func entry(name string, v value.Value) value.Entry {
	return value.Entry{Key: value.String(name), Value: v}
}

// matcher is an equality in the notation of Alertmanager's filters.
func matcher(name, v string) string { return name + "=" + strconv.Quote(v) }

func text(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(matcher(name, labels[name]) + ",")
	}
	return b.String()
}

// wanted are the labels of one alert of the target.
func wanted(t sdk.Target, alert string, by []string) (map[string]string, error) {
	if len(by) == 0 {
		return nil, problem.New(problem.Argument, "by: names no label, so that the alert of every target would be meant")
	}
	out := map[string]string{"alertname": alert}
	for _, l := range by {
		if l == "alertname" || t.Labels[l] == "" {
			return nil, problem.New(problem.Argument, "by: the target has no label %q", l)
		}
		out[l] = t.Labels[l]
	}
	return out, nil
}

// silence is a gettableSilence, and without ID and Status a postableSilence.
type silence struct {
	ID       string    `json:"id,omitempty"`
	Matchers []equal   `json:"matchers"`
	StartsAt time.Time `json:"startsAt"`
	EndsAt   time.Time `json:"endsAt"`
	By       string    `json:"createdBy"`
	Comment  string    `json:"comment"`
	Status   *struct {
		State string `json:"state"` // expired, active or pending
	} `json:"status,omitempty"`
}

type equal struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	IsRegex bool   `json:"isRegex"`
	IsEqual bool   `json:"isEqual"`
}

// creator is who a silence of ours says it is by.
const creator = "runbook"

func (x *plugin) silence(c *sdk.Call, a silenceArgs) (silenced, error) {
	labels, err := wanted(c.Target, a.Alert, a.By)
	if err != nil {
		return silenced{}, err
	}
	if a.Length < time.Minute || a.Length > 24*time.Hour {
		return silenced{}, problem.New(problem.Argument, "length: must be from 1m to 24h, got %s", a.Length)
	}
	ours, err := x.ours(c, labels)
	if err != nil {
		return silenced{}, err
	}
	for _, s := range ours {
		if strings.Contains(s.Comment, c.Key) {
			return silenced{}, sdk.NoChange("silence %s is there already", s.ID)
		}
	}
	if err := c.Begin(nil); err != nil {
		return silenced{}, err
	}
	now := time.Now().UTC()
	post := silence{StartsAt: now, EndsAt: now.Add(a.Length), By: creator, Comment: "runbook action " + c.Key}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		post.Matchers = append(post.Matchers, equal{Name: name, Value: labels[name], IsEqual: true})
	}
	var made struct {
		ID string `json:"silenceID"`
	}
	if err := x.ask(c, http.MethodPost, "/api/v2/silences", post, &made); err != nil {
		return silenced{}, err
	}
	return silenced{made.ID}, nil
}

func (x *plugin) plan(_ context.Context, t sdk.Target, a silenceArgs) (sdk.Plan, error) {
	labels, err := wanted(t, a.Alert, a.By)
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: "silence of " + strings.TrimSuffix(text(labels), ","), After: "for " + value.FormatDuration(a.Length)}}}, nil
}

// probe looks for the silence by the key in its comment. That it is not there says nothing: the request may still be on its way.
func (x *plugin) probe(ctx context.Context, p sdk.Probe, a silenceArgs) (sdk.ProbeAnswer, error) {
	labels, err := wanted(p.Target, a.Alert, a.By)
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	ours, err := x.ours(ctx, labels)
	if err != nil {
		return sdk.ProbeAnswer{}, err
	}
	for _, s := range ours {
		if strings.Contains(s.Comment, p.Key) {
			return sdk.ProbeAnswer{State: sdk.ProbeDone, Message: "silence " + s.ID + " has the action's key"}, nil
		}
	}
	return sdk.ProbeAnswer{State: sdk.ProbeUnknown, Message: "no silence has the action's key"}, nil
}

func (x *plugin) expire(c *sdk.Call, a expireArgs) (value.Value, error) {
	labels, err := wanted(c.Target, a.Alert, a.By)
	if err != nil {
		return nil, err
	}
	ours, err := x.ours(c, labels)
	if err != nil {
		return nil, err
	}
	ours = slices.DeleteFunc(ours, func(s silence) bool { return s.Status.State == "expired" })
	if len(ours) == 0 {
		return nil, sdk.NoChange("runbook has no silence there")
	}
	if err := c.Begin(nil); err != nil {
		return nil, err
	}
	for _, s := range ours {
		if err := x.ask(c, http.MethodDelete, "/api/v2/silence/"+url.PathEscape(s.ID), nil, nil); err != nil {
			return nil, err
		}
	}
	return value.Int(len(ours)), nil
}

// ours are the silences of exactly these labels that runbook has made.
func (x *plugin) ours(ctx context.Context, labels map[string]string) ([]silence, error) {
	var all []silence
	if err := x.ask(ctx, http.MethodGet, "/api/v2/silences", nil, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s silence) bool {
		if s.By != creator || s.Status == nil || len(s.Matchers) != len(labels) {
			return true
		}
		return slices.ContainsFunc(s.Matchers, func(m equal) bool {
			v, ok := labels[m.Name]
			return !ok || m.IsRegex || !m.IsEqual || m.Value != v
		})
	}), nil
}

// ask asks once, within the connection's timeout. Of a request that changes something an error without an answer means that it may have.
func (x *plugin) ask(ctx context.Context, method, path string, body, into any) error {
	limited, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	var payload io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(limited, method, x.web.Server+path, payload)
	if err != nil {
		return problem.New(problem.Project, "url: %v", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := x.web.Do(req)
	if err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			err = x.web.Late(x.timeout)
		} else {
			err = x.web.Explain(err)
		}
		if method != http.MethodGet {
			return sdk.Unknown(x.web.Hide(err))
		}
		return x.web.Hide(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil && method != http.MethodGet && resp.StatusCode < 300:
		return sdk.Unknown(x.web.Hide(x.web.Explain(err)))
	case err != nil:
		return x.web.Hide(x.web.Explain(err))
	case resp.StatusCode >= 300:
		return x.web.Hide(problem.New(problem.MetricsSource, "%s: it answers %s: %s", x.web.Server, resp.Status, said(text)))
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return x.web.Hide(problem.New(problem.MetricsSource, "%s: not an Alertmanager answer: %v", x.web.Server, err).WithHint("set url to an Alertmanager that speaks its API version 2"))
	}
	return nil
}

// said is what a server words as its error, in one line.
func said(text []byte) string {
	var word string
	if json.Unmarshal(text, &word) != nil {
		var body struct{ Message, Error string }
		if err := json.Unmarshal(text, &body); err == nil {
			word = body.Message + body.Error
		}
	}
	if word == "" {
		word = string(text)
	}
	word = strings.Join(strings.Fields(strings.ToValidUTF8(word, "\uFFFD")), " ")
	return word[:min(len(word), 200)]
}
