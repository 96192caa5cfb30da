// Package web asks an HTTP API, for plugins that are about one.
//
// Promise: an answer is what the server meant to say, or it is an error that names the server without its credentials. A login page, a redirect, an
// answer that is too large: each is an error that says so. Secrets that a server echoes are hidden.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// MaxBody bounds an answer, in bytes.
const MaxBody = 16 << 20

// maxConns is how many connections are kept for as many questions at once, where HTTP/2 does not share one.
const maxConns = 16

// Config says where the server is and who asks.
type Config struct {
	Name          string // what answers there: "Prometheus"
	Try           string // a path by which a person can see who answers: "/api/v1/query?query=1"
	URL           string
	BearerToken   string
	BasicUser     string
	BasicPassword string
	CAFile        string
	Headers       map[string]string

	Text bool         // it may answer with whatever it likes: not only JSON, and redirects and refusals are answers, too
	Once bool         // each request has a connection of its own: net/http sends one again by itself if a connection that was used before breaks
	Code problem.Code // of its errors; default that of a metrics source
}

// Client asks one server.
type Client struct {
	http.Client
	Server  string // the address without credentials, for messages
	config  Config
	secrets []string
}

// New checks a configuration and makes its client. Errors name the field.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return nil, problem.New(problem.Project, "url: not an http or https address").WithHint(`write url="https://%s.example:9090"`, strings.ToLower(c.Name))
	case u.User != nil:
		return nil, problem.New(problem.Project, "url: it contains credentials, which would show in messages").
			WithHint("use basic_user and basic_password")
	case c.BearerToken != "" && (c.BasicUser != "" || c.BasicPassword != ""):
		return nil, problem.New(problem.Project, "bearer_token and basic_user exclude each other")
	case strings.ContainsAny(c.BearerToken, "\r\n"):
		return nil, problem.New(problem.Project, "bearer_token: it contains a line break").WithHint("remove the one at the end of the file")
	}
	if c.Code == "" {
		c.Code = problem.MetricsSource
	}
	roots, err := TLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	x := &Client{config: c, Server: strings.TrimSuffix((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), "/"), secrets: []string{c.BearerToken, c.BasicPassword}}
	for _, v := range c.Headers {
		x.secrets = append(x.secrets, v)
	}
	x.Client = http.Client{
		Transport: &transport{
			client: x,
			// No proxy from the environment: there is none. The rest as in http.DefaultTransport.
			next: &http.Transport{TLSClientConfig: roots, ForceAttemptHTTP2: !c.Once, DisableKeepAlives: c.Once, MaxIdleConnsPerHost: maxConns, MaxConnsPerHost: maxConns, IdleConnTimeout: 90 * time.Second},
		},
		// A redirect is mostly the way to a login page, and would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return x, nil
}

// TLS is how servers are talked to: TLS 1.2 and newer, and their certificates are signed by one of the authorities in a PEM file, or by one of the
// system's if none is named. It is a mistake in the project if the file cannot be read.
func TLS(caFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, problem.New(problem.Project, "ca_file: %v", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, problem.New(problem.Project, "ca_file: %s has no certificate in PEM", caFile)
	}
	return c, nil
}

// Hide takes secrets out of what a server may have echoed.
func (x *Client) Hide(err error) error {
	var p *problem.Problem
	if !errors.As(err, &p) {
		p = problem.New(x.config.Code, "%s", err)
	}
	p.Message = x.Without(p.Message)
	return p
}

// Without is a text in which secrets are hidden.
func (x *Client) Without(text string) string {
	for _, s := range x.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[hidden]")
		}
	}
	return text
}

// Late is the error of a question that took longer than its limit.
func (x *Client) Late(limit time.Duration) *problem.Problem {
	return problem.New(x.config.Code, "%s: no answer within %s", x.Server, limit).WithHint("raise the connection's timeout, or ask for less")
}

// transport adds the credentials and lets through only what can be an API's answer: whoever reads it would report a login page
// as a syntax error in JSON.
type transport struct {
	client *Client
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	c := t.client.config
	for k, v := range c.Headers {
		r.Header.Set(k, v)
	}
	switch {
	case c.BearerToken != "":
		r.Header.Set("Authorization", "Bearer "+c.BearerToken)
	case c.BasicUser != "" || c.BasicPassword != "":
		r.SetBasicAuth(c.BasicUser, c.BasicPassword)
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &limited{ReadCloser: resp.Body, left: MaxBody, client: t.client}
	if err := t.judge(r, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// judge refuses what is no answer of the API. An error that the server words itself passes: the plugin reads it.
func (t *transport) judge(r *http.Request, resp *http.Response) error {
	source := func(format string, args ...any) *problem.Problem {
		return problem.New(t.client.config.Code, t.client.Server+": "+format, args...)
	}
	// The client asks again with GET where POST is not allowed.
	postRefused := r.Method == http.MethodPost &&
		(resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case t.client.config.Text, postRefused, r.Method == http.MethodDelete && resp.StatusCode < 300 && resp.ContentLength == 0:
		return nil
	case resp.StatusCode == http.StatusUnauthorized:
		return source("it does not accept the credentials (401)").WithHint("check bearer_token, or basic_user and basic_password")
	case resp.StatusCode == http.StatusForbidden:
		return source("these credentials may not ask (403)").WithHint("give the account of the connection the right to query")
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		to := "elsewhere"
		if u, err := resp.Location(); err == nil {
			to = u.Scheme + "://" + u.Host + u.Path
		}
		return source("it redirects to %s, which may be a login page", clip(to, 200)).
			WithHint("set url to the address of %s itself, behind the proxy that asks for a login", t.client.config.Name)
	case kind != "application/json":
		if kind == "" {
			kind = "no content type"
		}
		return source("not %s answer: %s, %s: %q", a(t.client.config.Name), resp.Status, kind, beginning(resp.Body)).
			WithHint("open %s%s and see who answers", t.client.Server, t.client.config.Try)
	}
	return nil
}

// beginning is the first 80 characters of a body, in one line.
func beginning(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 400))
	s := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "\uFFFD")), " "))
	return string(s[:min(len(s), 80)])
}

// limited ends a body that is too large with an error instead of cutting it.
type limited struct {
	io.ReadCloser
	left   int64
	client *Client
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, problem.New(l.client.config.Code, "%s: the answer is too large (at most %d MiB)", l.client.Server, MaxBody>>20).WithHint("ask for less")
	}
	return n, err
}

// Explain words why there is no answer.
func (x *Client) Explain(err error) error {
	server := x.Server
	source := func(format string, args ...any) *problem.Problem {
		return problem.New(x.config.Code, server+": "+format, args...)
	}
	var (
		known    *problem.Problem
		dns      *net.DNSError
		cert     *tls.CertificateVerificationError
		hostname x509.HostnameError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		netErr   net.Error
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &dns):
		return source("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return source("connection refused: nothing listens there").WithHint("check that the server runs, and the port in url")
	case errors.As(err, &hostname):
		return source("TLS: the certificate is for another name: %v", hostname)
	case errors.As(err, &cert):
		return source("TLS: the certificate is not trusted: %v", cert.Err).WithHint("set ca_file to the authority that signed it")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return source("TLS: the server does not speak it").WithHint("write http:// in url, if that is what is meant")
	case errors.As(err, &alert):
		return source("TLS: %v", alert)
	case errors.Is(err, context.Canceled):
		return source("cancelled")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return source("no answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return source("the connection broke before the answer was complete")
	}
	return source("%v", root(err))
}

// root drops the layers that repeat the address.
func root(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// a is a name with its article.
func a(name string) string {
	if strings.ContainsRune("AEIOU", rune(name[0])) {
		return "an " + name
	}
	return "a " + name
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}
