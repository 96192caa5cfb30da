package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/trace"
)

// acts adds a command "bad" to the site's connection, and a bad.star that runs it.
func (s *site) acts(t *testing.T, argv, more string) {
	t.Helper()
	s.commands += `, "bad": ` + argv
	s.project(t)
	s.runbook(t, "bad", fmt.Sprintf("ctx.exec.run(\"bad\", reason = \"queue stuck\"%s)", more))
}

// badAction is what bad.star has done, or tried to.
func badAction(t *testing.T, doc runDocument) *trace.Action {
	t.Helper()
	for _, rb := range doc.Runbooks {
		for _, target := range rb.Targets {
			if rb.Name != "bad" || target.Evaluation == nil {
				continue
			}
			for _, e := range target.Evaluation.Events {
				if e.Action != nil {
					return e.Action
				}
			}
		}
	}
	t.Fatal("bad.star has tried nothing")
	return nil
}

// A command that cannot be carried out is a failure, one whose end nobody saw is in doubt, and neither keeps the others from their work.
func TestBadCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	plain := filepath.Join(s.dir, "plain")
	for name, c := range map[string]struct {
		argv, more string
		want       said
		state      action.StepState
	}{
		"does not exist":   {`["/nowhere/restart", "{target}"]`, "", said{1, problem.PluginFailed, "bad.star:4:5", "/nowhere/restart", ""}, action.NotStarted},
		"not executable":   {fmt.Sprintf("[%q]", plain), "", said{1, problem.PluginFailed, "bad.star:4:5", "not an executable file", ""}, action.NotStarted},
		"a directory":      {`["/tmp"]`, "", said{1, problem.PluginFailed, "bad.star:4:5", "/tmp", ""}, action.NotStarted},
		"not listed":       {`["/bin/true"], "baad": ["/bin/true"]`, `, must = True); ctx.exec.run("bda", reason = "x"`, said{2, problem.Argument, "bad.star:4:", `"bda"`, "mark"}, action.Succeeded},
		"exits 3":          {`["/bin/sh", "-c", "echo it is broken >&2; exit 3"]`, "", said{1, problem.ActionFailed, "bad.star:4:5", "ended with status 3: it is broken", ""}, action.Failed},
		"hangs":            {`["/bin/sleep", "600"]`, `, timeout = "2s"`, said{4, problem.InDoubt, "bad.star:4:5", "outcome is unknown", "runbook resolve "}, action.InDoubt},
		"ignores SIGTERM":  {`["/bin/sh", "-c", "trap '' TERM; while :; do /bin/sleep 1; done"]`, `, timeout = "2s"`, said{4, problem.InDoubt, "bad.star:4:5", "outcome is unknown", "runbook resolve "}, action.InDoubt},
		"is killed":        {`["/bin/sh", "-c", "kill -9 $$"]`, "", said{4, problem.InDoubt, "bad.star:4:5", "outcome is unknown", "runbook resolve "}, action.InDoubt},
		"kills the plugin": {`["/bin/sh", "-c", "kill -9 $PPID; /bin/sleep 600"]`, "", said{4, problem.InDoubt, "bad.star:4:5", "outcome is unknown", "runbook resolve "}, action.InDoubt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write(t, "plain", "#!/bin/sh\n")
			s.acts(t, strings.ReplaceAll(c.argv, plain, filepath.Join(s.dir, "plain")), c.more)
			r := s.runs(t, c.want)
			if a := badAction(t, r.doc); a.State != c.state || a.ID == "" {
				t.Errorf("the action %q is %q", a.ID, a.State)
			}
			text := s.do(t, "run", "--dry-run")
			if doubt := c.state == action.InDoubt; strings.Contains(text.out, "runbook resolve ") != doubt || doubt != (len(r.doc.InDoubt) == 1) {
				t.Errorf("in doubt or not: %s", text.out)
			}
		})
	}
}

// What a command prints is not kept for ever, and does not keep it from its end.
func TestCommandPrintsALot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.acts(t, s.shell(`yes "$1" | head -c 100000000; yes | head -c 100000000 >&2; : > "$0/done-$1"`), "")
	r := s.do(t, "run", "--json")
	if r.exit != 0 || !s.marked(t, "done-w5") || len(r.out) > 1<<20 {
		t.Fatalf("exit %d, %d bytes: %s", r.exit, len(r.out), r.err)
	}
	if a := badAction(t, r.doc); a.State != action.Succeeded {
		t.Errorf("%+v", a)
	}
	s.otherwiseWell(t, r.doc)
	if shown := s.do(t, "explain", "last"); shown.exit != 0 || len(shown.out) > 100_000 {
		t.Errorf("explain: exit %d, %d bytes", shown.exit, len(shown.out))
	}
}

// What is in doubt keeps its target until a person has said what happened, and every view says what to type.
func TestInDoubtUntilResolved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.acts(t, `["/bin/sleep", "600"]`, `, timeout = "1s"`)
	r := s.do(t, "run")
	a := s.do(t, "run", "--dry-run", "--json")
	if r.exit != 4 || len(a.doc.InDoubt) != 1 {
		t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	d := a.doc.InDoubt[0]
	typed := "runbook resolve " + d.Step + " --nonce " + d.Nonce
	for _, args := range [][]string{{"run", "--dry-run"}, {"actions"}, {"actions", d.Step}, {"actions", "--in-doubt"}} {
		if shown := s.do(t, args...); strings.Count(shown.out, typed) != 1 {
			t.Errorf("%s does not say %q once:\n%s", strings.Join(args, " "), typed, shown.out)
		}
	}
	// explain says it where it happened, and once more at its end.
	if shown := s.do(t, "explain", "last"); strings.Count(shown.out, typed) != 2 {
		t.Errorf("explain does not say %q:\n%s", typed, shown.out)
	}
	if r := s.do(t, "status"); r.exit != 4 || !strings.Contains(r.out, "runbook actions "+d.Step) {
		t.Errorf("status: exit %d: %s", r.exit, r.out)
	}
	for name, c := range map[string]struct {
		args []string
		want said
	}{
		"no nonce":    {[]string{d.Step, "--as", "done", "--reason", "x"}, said{2, problem.Usage, "", "nonce", "runbook actions " + d.Step}},
		"wrong nonce": {[]string{d.Step, "--nonce", "abc", "--as", "done", "--reason", "x"}, said{2, problem.Usage, "", "nonce", "runbook actions " + d.Step}},
		"wrong word":  {[]string{d.Step, "--nonce", d.Nonce, "--as", "ok", "--reason", "x"}, said{2, problem.Usage, "", `"ok"`, ""}},
		"wrong id":    {[]string{"nosuchid", "--nonce", d.Nonce, "--as", "done", "--reason", "x"}, said{2, problem.NotFound, "", "nosuchid", "runbook actions"}},
	} {
		r := s.do(t, append([]string{"resolve", "--json"}, c.args...)...)
		if r.exit != c.want.exit || r.doc.Error == nil {
			t.Errorf("%s: exit %d: %s", name, r.exit, r.out)
			continue
		}
		c.want.check(t, r.doc.Error.Problem)
	}
	if r := s.do(t, "resolve", d.Step, "--nonce", d.Nonce, "--as", "done", "--reason", "uptime says so"); r.exit != 0 {
		t.Errorf("resolve: exit %d: %s%s", r.exit, r.out, r.err)
	}
	if r := s.do(t, "resolve", d.Step, "--nonce", d.Nonce, "--as", "not-done", "--reason", "changed my mind", "--json"); r.exit == 0 || r.doc.Error == nil {
		t.Errorf("resolved twice: %s", r.out)
	}
	if r := s.do(t, "actions", "--in-doubt"); r.exit != 0 || r.out != "nothing is in doubt\n" {
		t.Errorf("%s", r.out)
	}
}

// A notice that cannot be delivered is kept, said, and delivered by a later run, once.
func TestWebhookIsDown(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	down, got := true, []string(nil)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		body, _ := io.ReadAll(r.Body)
		got = append(got, string(body))
	}))
	t.Cleanup(hook.Close)
	s := newSite(t)
	s.more = fmt.Sprintf(`notify = [webhook(%q)],`, hook.URL)
	s.project(t)
	s.runbook(t, "bad", `return escalate("its storage is slow")`)
	r := s.do(t, "run", "--json")
	if r.exit != 1 || r.doc.Error == nil || len(r.doc.Error.More) > 0 || strings.Count(r.err, "runbook: error:") != 1 {
		t.Fatalf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	said{1, problem.NoticeFailed, "", "1 of 1 notices", "next run tries again"}.check(t, r.doc.Error.Problem)
	if d := r.doc.Error.Detail; len(d) != 1 || !strings.Contains(d[0], "502") {
		t.Errorf("why: %q", d)
	}
	s.otherwiseWell(t, r.doc)

	mu.Lock()
	down = false
	mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if r := s.do(t, "run", "--json", "bad.star"); r.exit == 0 && r.doc.Runbooks[0].Due {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the next run never went well")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 1 || !strings.Contains(got[0], "its storage is slow") || !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, `"runbook":"bad"`) }) {
		t.Errorf("the webhook got %q", got)
	}
}

// What can be done without is done without; without its locks nothing acts.
// Each of the services that project.star can name is told, with its secret and in its own shape.
func TestNotificationServices(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string]string{}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		got[r.URL.Path] = r.Header.Get("Authorization") + string(body)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(hook.Close)
	s := newSite(t)
	secret := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{secret: "hush-hush", secret + ".url": hook.URL + "/slack"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mails := &mailbox{}
	server := smtp.NewServer(mails)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	s.more = fmt.Sprintf(`notify = [slack(secret.file(%q)), pagerduty(secret.file(%q), url = %q), opsgenie(secret.file(%q), url = %q, owners = ["nobody"]),
		email(%q, sender = "runbook@example.org", to = ["oncall@example.org"], tls = "none")],`,
		secret+".url", secret, hook.URL+"/pagerduty", secret, hook.URL+"/opsgenie", l.Addr())
	s.project(t)
	s.runbook(t, "bad", `return escalate("its storage is slow")`)
	r := s.do(t, "run", "--json")
	if strings.Contains(r.out+r.err, "hush-hush") {
		t.Errorf("it shows the secret: %s%s", r.out, r.err)
	}
	mu.Lock()
	defer mu.Unlock()
	for path, want := range map[string]string{"/slack": `{"text":"*runbook escalation bad`, "/pagerduty": `{"routing_key":"hush-hush","event_action":"trigger"`} {
		if !strings.HasPrefix(got[path], want) || !strings.Contains(got[path], "its storage is slow") {
			t.Errorf("%s got %q, want %q", path, got[path], want)
		}
	}
	if len(got) != 2 {
		t.Errorf("told: %v", got)
	}
	if m := mails.text.String(); !strings.Contains(m, "Subject: runbook escalation bad") || !strings.Contains(m, "its storage is slow") {
		t.Errorf("mailed: %q, %s", m, r.err)
	}
}

// mailbox keeps the text of what a mail server is handed.
type mailbox struct{ text bytes.Buffer }

func (b *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return b, nil }
func (b *mailbox) Mail(string, *smtp.MailOptions) error        { return nil }
func (b *mailbox) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (b *mailbox) Reset()                                      {}
func (b *mailbox) Logout() error                               { return nil }
func (b *mailbox) Data(r io.Reader) error                      { _, err := io.Copy(&b.text, r); return err }

func TestStateWithoutItsParts(t *testing.T) {
	t.Parallel()
	for part, needed := range map[string]bool{"plugins": false, "cache": false, "locks": true} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if err := os.RemoveAll(filepath.Join(s.state, part)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.state, part), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			r := s.do(t, "run", "--json")
			if !needed {
				s.otherwiseWell(t, r.doc)
				return
			}
			if r.exit != problem.ExitInternal || s.marked(t, "w9") {
				t.Errorf("exit %d: %s", r.exit, r.err)
			}
			for _, rb := range r.doc.Runbooks {
				said{5, problem.StateUnusable, "", part, "runbook doctor"}.check(t, rb.Problem)
			}
		})
	}
}
