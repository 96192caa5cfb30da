package notify

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// emailTimeout bounds each exchange with a mail server, which may look at a message for a while before it takes it.
const emailTimeout = 15 * time.Second

// Encryption says how the connection to a mail server is protected.
type Encryption string

// The encryptions.
const (
	STARTTLS  Encryption = "starttls" // begins in the clear and must then be encrypted
	TLS       Encryption = "tls"      // encrypted from the first byte
	Plaintext Encryption = "none"     // for a server on this machine
)

// EmailServer is where mail is handed in, and how.
type EmailServer struct {
	Address        string // host:port
	From           string
	To             []string
	User, Password string // none if empty
	Encryption     Encryption

	tls     *tls.Config   // of a test
	timeout time.Duration // of a test
}

// Email sends each notice as a mail of plain text. One telling has one Message-ID, by which a repeated delivery can be told, and a reminder answers
// to the first mail, so that a reader shows them together. It says that nobody need answer it (RFC 3834).
func Email(s EmailServer, wants func(owner string) bool) Sink {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{s.From}, s.To...), "\x00")))
	if s.timeout == 0 {
		s.timeout = emailTimeout
	}
	return &email{s: s, wants: wants, label: fmt.Sprintf("email %s (%s)", s.Address, hex.EncodeToString(sum[:4]))}
}

type email struct {
	s     EmailServer
	wants func(string) bool
	label string
}

func (e *email) Name() string { return e.label }

func (e *email) Wants(owner string) bool { return e.wants == nil || e.wants(owner) }

func (e *email) Send(ctx context.Context, m Message) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	msg, err := e.message(m)
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return errors.New(e.hide(err))
	}
	return nil
}

func (e *email) client() (*mail.Client, error) {
	host, port, err := net.SplitHostPort(e.s.Address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	o := []mail.Option{mail.WithPort(number), mail.WithTimeout(e.s.timeout)}
	switch e.s.Encryption {
	case TLS:
		o = append(o, mail.WithSSL())
	case Plaintext:
		o = append(o, mail.WithTLSPolicy(mail.NoTLS))
	default:
		o = append(o, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if e.s.User != "" {
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(e.s.User), mail.WithPassword(e.s.Password))
	}
	if e.s.tls != nil {
		o = append(o, mail.WithTLSConfig(e.s.tls))
	}
	return mail.NewClient(host, o...)
}

func (e *email) message(m Message) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(e.s.From); err != nil {
		return nil, fmt.Errorf("from %q: %w", e.s.From, err)
	}
	if err := msg.To(e.s.To...); err != nil {
		return nil, fmt.Errorf("to %q: %w", e.s.To, err)
	}
	msg.Subject(cut(title(m), 200))
	msg.SetDateWithValue(m.Last)
	first := fmt.Sprintf("%s-1@runbook", m.Notice.ID())
	msg.SetMessageIDWithValue(m.ID + "@runbook")
	if m.ID+"@runbook" != first {
		msg.SetGenHeader(mail.HeaderInReplyTo, "<"+first+">")
		msg.SetGenHeader(mail.HeaderReferences, "<"+first+">")
	}
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	msg.SetUserAgent("runbook")
	msg.SetBodyString(mail.TypeTextPlain, emailText(m))
	return msg, nil
}

// emailText is a notice for a person who has nothing but this mail.
func emailText(m Message) string {
	var b strings.Builder
	b.WriteString(clean(m.Text) + "\n\n")
	for _, f := range []struct{ name, text string }{
		{"runbook", strings.Join(oneOr(m.Runbooks, m.Runbook), ", ")},
		{"target", m.Target},
		{"source", m.Source},
		{"for", strings.Join(oneOr(m.Owners, m.Owner), ", ")},
		{"since", m.At.UTC().Format(time.RFC1123)},
		{"run", m.Run},
	} {
		if f.text != "" {
			fmt.Fprintf(&b, "%-8s %s\n", f.name, clean(f.text))
		}
	}
	if m.Count > 1 {
		fmt.Fprintf(&b, "%-8s %d times, last at %s\n", "happened", m.Count, m.Last.UTC().Format(time.RFC1123))
	}
	if m.Run != "" {
		fmt.Fprintf(&b, "\nWhy: runbook explain %s\n", m.Run)
	}
	return b.String()
}

func oneOr(several []string, one string) []string {
	if len(several) > 0 || one == "" {
		return several
	}
	return []string{one}
}

// hide is an error without the password, should a server or the library repeat it.
func (e *email) hide(err error) string {
	text := err.Error()
	if len(e.s.Password) > 5 {
		text = strings.ReplaceAll(text, e.s.Password, "…")
	}
	return clean(text)
}
