// Package http is the plugin that asks one HTTP server, and tells it to do something.
//
// Promise: only the server of the connection is talked to, and no redirect leads elsewhere. A runbook contributes values, never pieces of a URL or of a body:
// each is encoded where it stands. An action sends its key as Idempotency-Key, so that a server that knows it does twice only once, and goes only to a path
// that the connection lists. A definite failure is one that the server worded with a status of 4xx, or that came before anything was sent.
package http

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/sdk/web"
)

// maxText is the largest answer that a runbook is given, in bytes.
const maxText = 1 << 20

type config struct {
	URL           string            `rb:"url,required" doc:"address of the server, with a path that all others are below: https://api.example/v1"`
	Sends         []string          `rb:"sends" doc:"what actions may send, each a method and a path with * for one part of it: POST /workers/*/restart; nothing if not given"`
	Timeout       time.Duration     `rb:"timeout" default:"10s" doc:"how long one question may take"`
	BearerToken   string            `rb:"bearer_token,sensitive" doc:"sent as Authorization: Bearer"`
	BasicUser     string            `rb:"basic_user" doc:"user of HTTP basic authentication"`
	BasicPassword string            `rb:"basic_password,sensitive" doc:"password of HTTP basic authentication"`
	CAFile        string            `rb:"ca_file" doc:"PEM file with the authority that signed the server's certificate; default: the system's"`
	Headers       map[string]string `rb:"headers,sensitive" doc:"further headers, such as X-Api-Key"`
}

type getArgs struct {
	Path  string            `rb:"path,required,positional" doc:"below the connection's url: /workers/w3"`
	Query map[string]string `rb:"query" doc:"parameters of the query"`
}

type sendArgs struct {
	Path   string            `rb:"path,required,positional" doc:"below the connection's url: /workers/w3/restart"`
	Method string            `rb:"method" default:"POST" doc:"POST, PUT, PATCH or DELETE"`
	JSON   value.Value       `rb:"json" doc:"the body, which is sent as JSON; none if not given"`
	Form   map[string]string `rb:"form" doc:"the body, which is sent as a form; not together with json"`
}

// answer is what a server said. JSON is None if it is not JSON.
type answer struct {
	Status int         `rb:"status"`
	Text   string      `rb:"text"`
	JSON   value.Value `rb:"json"`
}

// New makes the plugin.
func New() *sdk.Plugin {
	x := &plugin{}
	p := sdk.New("http", "1", "Ask an HTTP server, and tell it to do something.")
	sdk.ConfigFunc(p, x.configure)
	sdk.QueryFunc(p, "get", "GET, and return {status, text, json}, whatever the status; json is None if the answer is not JSON. At most 1 MiB.",
		x.get, sdk.Timeout(30*time.Second, 5*time.Minute), sdk.Capabilities("net"))
	sdk.ActionFunc(p, "send", "Send a request that changes something, with the action's key as Idempotency-Key, and return {status, text, json}. A status of 2xx is success, "+
		"4xx a definite failure; after any other, and without an answer, it is in doubt.", x.send, sdk.Timeout(30*time.Second, 10*time.Minute), sdk.Capabilities("net"))
	sdk.PlanFunc(p, "send", x.plan)
	return p
}

type plugin struct {
	config config
	web    *web.Client // for questions
	once   *web.Client // for actions: what has an Idempotency-Key net/http takes for a request that may be sent again, and not every server knows it
}

func (x *plugin) configure(_ context.Context, c config) error {
	if c.Timeout <= 0 {
		return problem.New(problem.Project, "timeout: it must be positive")
	}
	for _, s := range c.Sends {
		method, pattern, _ := strings.Cut(s, " ")
		if _, err := path.Match(pattern, ""); err != nil || !slices.Contains(methods, method) || !strings.HasPrefix(pattern, "/") {
			return problem.New(problem.Project, "sends: %q is not a method and a path", s).WithHint(`write "POST /workers/*/restart"`)
		}
	}
	server := web.Config{
		Name: "HTTP server", Try: "/", URL: c.URL, BearerToken: c.BearerToken, BasicUser: c.BasicUser, BasicPassword: c.BasicPassword, CAFile: c.CAFile,
		Headers: c.Headers, Text: true, Code: problem.PluginFailed,
	}
	var err error
	if x.web, err = web.New(server); err != nil {
		return err
	}
	server.Once = true
	x.once, err = web.New(server)
	x.config = c
	return err
}

var methods = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// address is where a path leads, which is always below the connection's url.
func (x *plugin) address(p string, query map[string]string) (string, error) {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "", problem.New(problem.Argument, "path: %.80q does not begin with /", p)
	case strings.ContainsAny(p, "?#%\\") || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", problem.New(problem.Argument, "path: %.80q has a character that means something in a URL", p).WithHint("parameters go to query, as values")
	case path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/":
		return "", problem.New(problem.Argument, "path: %.80q has an empty part, . or ..", p)
	}
	to := x.web.Server + (&url.URL{Path: p}).EscapedPath()
	if len(query) > 0 {
		q := url.Values{}
		for k, v := range query {
			q.Set(k, v)
		}
		to += "?" + q.Encode()
	}
	return to, nil
}

func (x *plugin) get(ctx context.Context, a getArgs) (answer, error) {
	to, err := x.address(a.Path, a.Query)
	if err != nil {
		return answer{}, err
	}
	limited, cancel := context.WithTimeout(ctx, x.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, to, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	r, err := ask(x.web, req)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = x.web.Late(x.config.Timeout)
	}
	return r, err
}

// ask asks once.
func ask(w *web.Client, req *http.Request) (answer, error) {
	resp, err := w.Do(req)
	if err != nil {
		return answer{}, w.Hide(w.Explain(err))
	}
	defer resp.Body.Close()
	r := answer{Status: resp.StatusCode, JSON: value.Null{}}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText+1))
	if err != nil {
		return r, w.Hide(w.Explain(err))
	}
	if len(text) > maxText {
		return r, problem.New(problem.PluginFailed, "%s: the answer is larger than 1 MiB", w.Server).WithHint("ask for less")
	}
	r.Text = w.Without(strings.ToValidUTF8(string(text), "\uFFFD"))
	r.JSON = fromJSON([]byte(r.Text))
	return r, nil
}

// request is what an action sends, and what that is in words.
func (x *plugin) request(ctx context.Context, a sendArgs) (*http.Request, string, error) {
	to, err := x.address(a.Path, nil)
	if err != nil {
		return nil, "", err
	}
	if !slices.Contains(methods, a.Method) {
		return nil, "", problem.New(problem.Argument, "method: %.20q is none of %s", a.Method, strings.Join(methods, ", "))
	}
	if err := x.allowed(a); err != nil {
		return nil, "", err
	}
	var body []byte
	kind := ""
	hasJSON := a.JSON != nil && a.JSON != value.Value(value.Null{})
	switch {
	case hasJSON && a.Form != nil:
		return nil, "", problem.New(problem.Argument, "json and form: a request has one body")
	case hasJSON:
		plain, err := plain(a.JSON)
		if err != nil {
			return nil, "", problem.New(problem.Argument, "json: %v", err)
		}
		if body, err = json.Marshal(plain); err != nil {
			return nil, "", problem.New(problem.Argument, "json: %v", err)
		}
		kind = "application/json"
	case a.Form != nil:
		form := url.Values{}
		for k, v := range a.Form {
			form.Set(k, v)
		}
		body, kind = []byte(form.Encode()), "application/x-www-form-urlencoded"
	}
	req, err := http.NewRequestWithContext(ctx, a.Method, to, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	return req, string(body), nil
}

// allowed says whether the connection lists what is to be sent.
func (x *plugin) allowed(a sendArgs) error {
	for _, s := range x.config.Sends {
		method, pattern, _ := strings.Cut(s, " ")
		if ok, _ := path.Match(pattern, a.Path); ok && method == a.Method {
			return nil
		}
	}
	p := problem.New(problem.Argument, "the connection does not allow to send %s %s", a.Method, a.Path)
	if len(x.config.Sends) == 0 {
		return p.WithHint(`list it in the connection in project.star: config = {"sends": [%q]}`, a.Method+" "+a.Path)
	}
	return p.WithHint("list it in the connection's sends in project.star, which are: %s", strings.Join(x.config.Sends, ", "))
}

func (x *plugin) plan(ctx context.Context, _ sdk.Target, a sendArgs) (sdk.Plan, error) {
	req, body, err := x.request(ctx, a)
	if err != nil {
		return sdk.Plan{}, err
	}
	return sdk.Plan{Changes: []sdk.PlannedChange{{What: req.Method + " " + req.URL.String(), After: body}}}, nil
}

func (x *plugin) send(c *sdk.Call, a sendArgs) (answer, error) {
	req, _, err := x.request(c, a)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Idempotency-Key", c.Key)
	if err := c.Begin(nil); err != nil {
		return answer{}, err
	}
	connected := false
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }}
	r, err := ask(x.once, req.WithContext(httptrace.WithClientTrace(c, trace)))
	if r.Status >= 200 && r.Status < 300 {
		return r, nil // it is done, whatever became of the rest of the answer
	}
	if err == nil {
		err = x.once.Hide(problem.New(problem.ActionFailed, "%s answers %d%s", x.once.Server, r.Status, said(r)))
	}
	if !connected || refused(r.Status) {
		return r, err
	}
	return r, sdk.Unknown(err)
}

// refused says that a status means that nothing was done: the server words the client's mistake, or where to ask instead. A server that failed may have done
// its work all the same, and some lead elsewhere once it is done.
func refused(status int) bool {
	return status >= 400 && status < 500 || status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
}

// said is the beginning of an answer, in one line.
func said(r answer) string {
	s := []rune(strings.Join(strings.Fields(r.Text), " "))
	if len(s) == 0 {
		return ""
	}
	return ": " + string(s[:min(len(s), 200)])
}
