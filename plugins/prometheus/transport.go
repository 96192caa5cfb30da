package prometheus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"syscall"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// maxBody bounds an answer, in bytes of JSON.
const maxBody = 16 << 20

// maxConns is how many connections are kept for as many queries at once, where HTTP/2 does not share one. Prometheus works on 20 queries
// at a time, over all that ask.
const maxConns = 16

// transport adds the credentials and lets through only what can be a Prometheus's answer: the API client would report a login page
// as a syntax error in JSON.
type transport struct {
	config config
	server string
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for k, v := range t.config.Headers {
		r.Header.Set(k, v)
	}
	switch {
	case t.config.BearerToken != "":
		r.Header.Set("Authorization", "Bearer "+t.config.BearerToken)
	case t.config.BasicUser != "" || t.config.BasicPassword != "":
		r.SetBasicAuth(t.config.BasicUser, t.config.BasicPassword)
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &limited{ReadCloser: resp.Body, left: maxBody, server: t.server}
	if err := t.judge(r, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// judge refuses what is no Prometheus's answer. An error that Prometheus words itself passes: the client reads it.
func (t *transport) judge(r *http.Request, resp *http.Response) error {
	source := func(format string, args ...any) *problem.Problem {
		return problem.New(problem.MetricsSource, t.server+": "+format, args...)
	}
	// The client asks again with GET where POST is not allowed.
	postRefused := r.Method == http.MethodPost &&
		(resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case postRefused:
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
			WithHint("set url to the address of Prometheus itself, behind the proxy that asks for a login")
	case kind != "application/json":
		if kind == "" {
			kind = "no content type"
		}
		return source("not a Prometheus answer: %s, %s: %q", resp.Status, kind, beginning(resp.Body)).
			WithHint("open %s/api/v1/query?query=1 and see who answers", t.server)
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
	server string
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge(l.server)
	}
	return n, err
}

// explain words why there is no answer.
func explain(server string, err error) error {
	source := func(format string, args ...any) *problem.Problem {
		return problem.New(problem.MetricsSource, server+": "+format, args...)
	}
	var (
		known    *problem.Problem
		said     *promv1.Error
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
	case errors.As(err, &said):
		return explainSaid(server, said)
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
