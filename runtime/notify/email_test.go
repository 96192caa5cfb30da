package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailbox is a mail server that keeps what it is handed.
type mailbox struct {
	mu     sync.Mutex
	mails  []string
	to     []string
	user   string // who was let in
	refuse error  // what it says to a mail
}

func (b *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailSession{b: b}, nil }

type mailSession struct {
	b  *mailbox
	to []string
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "runbook" || password != "s3cretpass" {
			return errors.New("no such user, or not with " + password)
		}
		s.b.mu.Lock()
		defer s.b.mu.Unlock()
		s.b.user = user
		return nil
	}), nil
}

func (s *mailSession) Mail(string, *smtp.MailOptions) error { return nil }

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.refuse != nil {
		return s.b.refuse
	}
	s.b.mails, s.b.to = append(s.b.mails, string(text)), s.to
	return err
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// mailServer serves b, encrypted in one of the three ways, and returns how a client reaches it.
func mailServer(t *testing.T, b *mailbox, e Encryption) EmailServer {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil) // for its certificate of 127.0.0.1
	certs.StartTLS()
	t.Cleanup(certs.Close)
	pool := x509.NewCertPool()
	pool.AddCert(certs.Certificate())
	s := smtp.NewServer(b)
	s.AllowInsecureAuth = e == Plaintext
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: certs.TLS.Certificates, MinVersion: tls.VersionTLS12}
	switch e {
	case STARTTLS:
		s.TLSConfig = config
	case TLS:
		l = tls.NewListener(l, config)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return EmailServer{
		Address: l.Addr().String(), From: "runbook@example.org", To: []string{"oncall@example.org", "Ann <ann@example.org>"}, Encryption: e,
		tls: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12},
	}
}

func TestEmail(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 3, 4, 5, 0, time.UTC)
	m := Message{
		ID: "x-1", Count: 3, Last: at.Add(time.Hour), Notice: Notice{
			Kind: Escalation, Runbook: "worker", Target: "instance=w3", Owner: "team-é", Reason: "stuck", Run: "R1", At: at,
			Text: "the queue grows\r\nBcc: everybody@example.org\n.\nQUIT — 100 Aufträge", // what the world had a hand in
		},
	}
	m.ID = m.Notice.ID() + "-1"
	for _, e := range []Encryption{STARTTLS, TLS, Plaintext} {
		b := &mailbox{}
		s := mailServer(t, b, e)
		if e != Plaintext {
			s.User, s.Password = "runbook", "s3cretpass"
		}
		if err := Email(s, nil).Send(t.Context(), m); err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		if len(b.mails) != 1 || strings.Join(b.to, " ") != "oncall@example.org ann@example.org" || b.user != s.User {
			t.Fatalf("%s: %d mails to %v from %q", e, len(b.mails), b.to, b.user)
		}
		got, err := mail.ReadMessage(strings.NewReader(b.mails[0]))
		if err != nil {
			t.Fatal(err)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
		if err != nil || subject != "runbook escalation worker instance=w3 for team-é" {
			t.Errorf("%s: subject %q, %v", e, subject, err)
		}
		for header, want := range map[string]string{
			"Message-Id": "<" + m.ID + "@runbook>", "In-Reply-To": "", "Auto-Submitted": "auto-generated", "Bcc": "", "Date": "Sun, 29 Nov 2026 04:04:05 +0000",
			"From": "<runbook@example.org>",
		} {
			if got := got.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", e, header, got, want)
			}
		}
		text, err := io.ReadAll(quotedprintable.NewReader(got.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"the queue grows?\nBcc: everybody@example.org\n.\nQUIT — 100 Aufträge\n", "target   instance=w3\n", "happened 3 times", "runbook explain R1"} {
			if !strings.Contains(strings.ReplaceAll(string(text), "\r\n", "\n"), want) {
				t.Errorf("%s: the text lacks %q:\n%s", e, want, text)
			}
		}
	}
}

// A reminder is another mail in the same thread.
func TestEmailReminder(t *testing.T) {
	t.Parallel()
	b := &mailbox{}
	n := Notice{Kind: Info, Runbook: "worker", Reason: "x", Text: "x"}
	m := Message{ID: n.ID() + "-2", Reminder: 1, Notice: n}
	if err := Email(mailServer(t, b, Plaintext), nil).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got, err := mail.ReadMessage(strings.NewReader(b.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	if h := got.Header; h.Get("Message-Id") != "<"+n.ID()+"-2@runbook>" || h.Get("In-Reply-To") != "<"+n.ID()+"-1@runbook>" || !strings.Contains(h.Get("Subject"), "(reminder 1)") {
		t.Errorf("%v", h)
	}
}

func TestEmailFailures(t *testing.T) {
	t.Parallel()
	m := Message{ID: "x-1", Notice: Notice{Kind: Info, Text: "x"}}
	fails := func(what string, s EmailServer, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := Email(s, nil).Send(ctx, m)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	b := &mailbox{}
	s := mailServer(t, b, Plaintext)
	s.Encryption = STARTTLS
	fails("a server that does not encrypt", s, "STARTTLS")
	s = mailServer(t, b, STARTTLS)
	s.User, s.Password = "runbook", "s3cretwrong"
	fails("a wrong password", s, "no such user, or not with …")
	s = mailServer(t, b, STARTTLS)
	s.tls = nil
	fails("a certificate that nobody signed", s, "certificate")
	s = mailServer(t, &mailbox{refuse: &smtp.SMTPError{Code: 452, Message: "mailbox full"}}, Plaintext)
	fails("a full mailbox", s, "mailbox full")
	s.Address = "127.0.0.1:1"
	fails("nobody there", s, "connection refused")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s.Address, s.timeout = l.Addr().String(), 100*time.Millisecond
	fails("a server that says nothing", s, "i/o timeout")
	if len(b.mails) > 0 {
		t.Errorf("%d mails were taken", len(b.mails))
	}
}
