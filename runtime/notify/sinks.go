package notify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	webhookTimeout = 5 * time.Second
	maxRedirects   = 3
)

// Stderr writes each notice to w, for the log of the scheduler.
func Stderr(w io.Writer) Sink { return stderr{w} }

type stderr struct{ w io.Writer }

func (stderr) Name() string      { return "stderr" }
func (stderr) Wants(string) bool { return true }

func (s stderr) Send(_ context.Context, m Message) error {
	var b strings.Builder
	fmt.Fprintf(&b, "runbook: %s:", m.Kind)
	for _, part := range []struct{ label, text string }{
		{"source ", m.Source}, {"", m.Runbook}, {"", m.Target}, {"for ", m.Owner},
	} {
		if part.text != "" {
			b.WriteString(" " + part.label + part.text)
		}
	}
	if m.Reminder > 0 {
		fmt.Fprintf(&b, " (reminder %d, %d times so far)", m.Reminder, m.Count)
	}
	// A line that the world had a hand in must not look like one of ours.
	b.WriteString(": " + strings.ReplaceAll(clean(m.Text), "\n", "\n    ") + "\n")
	_, err := io.WriteString(s.w, b.String())
	return err
}

func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(strings.TrimRight(text, "\n"), "?"))
}

// Webhook posts each notice as JSON to a URL, which may be a secret: neither a name nor an error shows more than its host. wants selects the
// owners; nil is everybody.
func Webhook(to string, headers map[string]string, wants func(owner string) bool) Sink {
	sum := sha256.Sum256([]byte(to))
	s := &webhook{to: to, headers: headers, wants: wants, label: "webhook " + hex.EncodeToString(sum[:4]), body: func(m Message) any { return m }}
	if u, err := url.Parse(to); err == nil && u.Host != "" {
		s.label = "webhook " + u.Scheme + "://" + u.Host + "/… (" + hex.EncodeToString(sum[:4]) + ")"
	}
	s.client = &http.Client{Timeout: webhookTimeout, CheckRedirect: sameHost}
	return s
}

type webhook struct {
	to, label string
	headers   map[string]string
	wants     func(string) bool
	body      func(Message) any
	client    *http.Client
}

func (w *webhook) Name() string { return w.label }

func (w *webhook) Wants(owner string) bool { return w.wants == nil || w.wants(owner) }

func (w *webhook) Send(ctx context.Context, m Message) error {
	body, err := json.Marshal(w.body(m))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.to, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL is not valid")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "runbook")
	req.Header.Set("Idempotency-Key", m.ID)
	for k, v := range w.headers {
		req.Header.Set(k, v)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return errors.New(w.hide(err))
	}
	// Read a little, so that the connection can be used for the next notice.
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("it answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}

// hide is an error without the URL that net/http puts before it, and without any part of it that may be secret.
func (w *webhook) hide(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	text := err.Error()
	u, parseErr := url.Parse(w.to)
	if parseErr != nil {
		return "it could not be reached"
	}
	secrets := []string{w.to, u.RequestURI(), u.Path, u.RawPath, u.RawQuery, u.Fragment, u.User.Username()}
	secrets = append(secrets, strings.Split(u.Path, "/")...)
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	if password, ok := u.User.Password(); ok {
		secrets = append(secrets, password)
	}
	for _, v := range w.headers {
		secrets = append(secrets, v)
	}
	// The longest first, so that a part does not spoil the whole. What is short is no secret, and is a word of every message.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		if len(s) > 5 {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}

// sameHost follows a redirect only to the same place, and only if it stays a POST: another host must not get what was meant for this one, and a
// page that is read after a redirect is not a delivery.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return errors.New("it redirects too often")
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return errors.New("it redirects to another host")
	case req.Method != http.MethodPost:
		return errors.New("it redirects to a page instead of taking the notice")
	}
	return nil
}

// messageID is the Idempotency-Key of one telling.
func (r Record) messageID() string { return fmt.Sprintf("%s-%d", r.ID, r.Round) }
