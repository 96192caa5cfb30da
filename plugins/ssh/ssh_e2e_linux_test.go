//go:build e2e

package ssh_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/sshlogin/sshdtest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/ssh"
)

// site is a machine to log in on.
type site struct {
	t                  *testing.T
	dir                string
	key, hostKey, port string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.key, s.hostKey, s.port = sshdtest.Start(t)
	return s
}

func (s *site) config(more ...any) value.Dict {
	return sdktest.Dict(append([]any{
		"host", "127.0.0.1:" + s.port, "user", "root", "key", s.key, "host_key", s.hostKey,
		"commands", sdktest.Dict(
			"touch", sdktest.Texts("/usr/bin/touch", filepath.Join(s.dir, "touched{label:note}")),
			"args", sdktest.Texts("/bin/sh", "-c", `printf '%s\n' "$@"`, "sh", "{target}", "two words", `it's "quoted" $HOME \ * ;`, "x={label:note}"),
			"env", sdktest.Texts("/usr/bin/env"),
			"fails", sdktest.Texts("/bin/sh", "-c", "echo it is broken >&2; exit 3"),
			"dies", sdktest.Texts("/bin/sh", "-c", "kill -9 $$"),
			"hangs", sdktest.Texts("/bin/sleep", "3"),
			"cut", sdktest.Texts("/bin/sh", "-c", "kill -9 $PPID; sleep 1"),
			"chatty", sdktest.Texts("/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end"),
			"none", sdktest.Texts("/nonexistent/program"),
		),
		"reads", sdktest.Dict("id", sdktest.Texts("/usr/bin/id", "-un"), "fails", sdktest.Texts("/bin/false")),
		"env", sdktest.Dict("LANG", "C.UTF-8"),
	}, more...)...)
}

func (s *site) harness(config value.Dict) *sdktest.Harness {
	s.t.Helper()
	h := sdktest.New(s.t, ssh.New())
	if err := h.Configure(config); err != nil {
		s.t.Fatal(err)
	}
	return h
}

func run(command string) sdktest.Action {
	return sdktest.Action{
		Function: "run", Args: sdktest.Dict("command", command), Key: "key-1", Timeout: 20 * time.Second,
		Target: sdk.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3", "note": "a; rm -rf / $(reboot)"}},
	}
}

func TestE2ESSH(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := s.harness(s.config())
	stdout := func(v value.Value) string {
		text, _ := sdktest.Field(v, "stdout").(value.String)
		return string(text)
	}

	if out := stdout(h.Ask("read", sdktest.Dict("command", "id"))); out != "root\n" {
		t.Errorf("id says %q", out)
	}
	if exit := sdktest.Field(h.Ask("read", sdktest.Dict("command", "fails")), "exit"); exit != value.Int(1) {
		t.Errorf("exit %v", exit)
	}
	// Each argument arrives as it is, whatever a shell would make of it.
	out := h.Expect(run("args"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if want := "w3\ntwo words\nit's \"quoted\" $HOME \\ * ;\nx=a; rm -rf / $(reboot)\n"; stdout(out.Value) != want {
		t.Errorf("arguments: %q, want %q", stdout(out.Value), want)
	}
	out = h.Expect(run("env"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	for _, want := range []string{"RUNBOOK_KEY=key-1\n", "RUNBOOK_TARGET=w3\n", "LANG=C.UTF-8\n"} {
		if !strings.Contains(stdout(out.Value), want) {
			t.Errorf("environment: %q, without %q", stdout(out.Value), want)
		}
	}
	out = h.Expect(run("chatty"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if got := stdout(out.Value); len(got) != 64<<10 || !strings.HasSuffix(got, "xend\n") {
		t.Errorf("%d bytes of output", len(got))
	}
	h.Expect(run("fails"), pluginpb.Outcome_OUTCOME_FAILED, "/bin/sh on 127.0.0.1:"+s.port+" ended with status 3: it is broken")
	h.Expect(run("none"), pluginpb.Outcome_OUTCOME_FAILED, "ended with status 127")
	h.Expect(run("dies"), pluginpb.Outcome_OUTCOME_UNKNOWN, "was ended by signal KILL")
	h.Expect(run("cut"), pluginpb.Outcome_OUTCOME_UNKNOWN, "the connection broke before it ended")
	hangs := run("hangs")
	hangs.Timeout = 1500 * time.Millisecond
	h.Expect(hangs, pluginpb.Outcome_OUTCOME_UNKNOWN, "did not end in time, and may go on")
	h.Expect(run("tuoch"), pluginpb.Outcome_OUTCOME_NOT_STARTED, `the connection's commands have no "tuoch" (did you mean "touch"?)`)
	plan, err := h.Plan(run("args"))
	if err != nil || !strings.Contains(plan.GetChanges()[0].GetWhat(), `"x=a; rm -rf / $(reboot)"] on 127.0.0.1`) {
		t.Errorf("plan: %v %v", plan, err)
	}
}

func TestE2ELogin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	touch := run("touch")
	touch.Target.Labels = map[string]string{"note": "1"}
	otherKey, otherPublic := sshdtest.NewKey(t)
	without := func(d value.Dict, name string) value.Dict {
		var out value.Dict
		for _, e := range d {
			if e.Key != value.String(name) {
				out = append(out, e)
			}
		}
		return out
	}
	with := func(name string, v any) value.Dict {
		return append(without(s.config(), name), sdktest.Dict(name, v)...)
	}
	for what, c := range map[string]struct {
		config value.Dict
		want   string
	}{
		"another host key": {with("host_key", otherPublic), "it has another host key than the one in host_key"},
		"another key":      {with("key", otherKey), "it does not let root log in with this key"},
		"nobody there":     {with("host", "127.0.0.1:1"), "connection refused"},
		"no agent":         {append(without(s.config(), "key"), sdktest.Dict("agent", "/nonexistent/agent")...), "ssh-agent /nonexistent/agent"},
	} {
		s.harness(c.config).Expect(touch, pluginpb.Outcome_OUTCOME_NOT_STARTED, c.want)
		if s.touched("1") {
			t.Fatalf("%s: it was done", what)
		}
	}
	s.harness(append(without(s.config(), "key"), sdktest.Dict("agent", newAgent(t, s.key))...)).Expect(touch, pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if !s.touched("1") {
		t.Error("it was not done")
	}
}

// newAgent is the socket of an agent that has a key.
func newAgent(t *testing.T, key string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ag") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	private, err := cryptossh.ParseRawPrivateKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, c); _ = c.Close() }()
		}
	}()
	return filepath.Join(dir, "agent")
}

func suite(s *site) sdktest.Suite {
	round := 0
	return sdktest.Suite{
		Argv: sdktest.Bundled(s.t, "ssh"), Config: s.config(),
		Queries: []sdktest.Question{{Function: "read", Args: sdktest.Dict("command", "id")}},
		Effects: []sdktest.Effect{{
			Action:   run("touch"),
			Happened: func() bool { return s.touched(strconv.Itoa(round)) },
			Undo:     func() { _ = os.Remove(filepath.Join(s.dir, "touched"+strconv.Itoa(round))) },
			// What was started there may take its time.
			Fresh: func(a *sdktest.Action) {
				round++
				a.Target.Labels = map[string]string{"note": strconv.Itoa(round)}
			},
		}},
	}
}

// touched says whether the command touch has been run for a target with this note.
func (s *site) touched(note string) bool {
	_, err := os.Stat(filepath.Join(s.dir, "touched"+note))
	return err == nil
}

func TestE2EConformance(t *testing.T) {
	t.Parallel()
	sdktest.Conformance(t, suite(newSite(t)))
}

func TestE2EKills(t *testing.T) {
	t.Parallel()
	sdktest.Kills(t, suite(newSite(t)), 50, 20261130)
}
