//go:build e2e

package haproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/haproxy"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

// proxy is a real HAProxy before three real servers, each of which says its name.
type proxy struct {
	t            *testing.T
	socket, http string
	dir          string
	servers      []*httptest.Server
}

const settings = `
global
  stats socket %[1]s/admin level admin
  stats socket %[1]s/user level user
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend in
  bind 127.0.0.1:%[2]s
  default_backend web
backend web
  option httpchk GET /
  default-server check inter 100ms fall 1 rise 1
  server app1 %[3]s
  server app2 %[4]s
  server app3 %[5]s
`

func newProxy(t *testing.T) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "ha") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &proxy{t: t, dir: dir, socket: filepath.Join(dir, "admin")}
	addresses := []any{dir, sdktest.FreePort(t)}
	for i := range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "app%d", i+1) }))
		t.Cleanup(s.Close)
		p.servers = append(p.servers, s)
		addresses = append(addresses, strings.TrimPrefix(s.URL, "http://"))
	}
	p.http = fmt.Sprintf("http://127.0.0.1:%s/", addresses[1])
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, settings, addresses...), 0o600); err != nil {
		t.Fatal(err)
	}
	sdktest.Server(t, sdktest.Listens("unix", p.socket), "haproxy", "-f", config)
	return p
}

// says is HAProxy's own answer, asked without the plugin.
func (p *proxy) says(command string) string {
	p.t.Helper()
	c, err := net.Dial("unix", p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, command+"\n")
	b, err := io.ReadAll(c)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// answering are the servers that answer to 30 requests through the proxy.
func (p *proxy) answering() string {
	p.t.Helper()
	seen := map[string]bool{}
	for range 30 {
		req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.http, http.NoBody)
		if err != nil {
			p.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			seen[string(b)] = true
		}
	}
	out := ""
	for _, s := range []string{"app1", "app2", "app3"} {
		if seen[s] {
			out += s + " "
		}
	}
	return strings.TrimSpace(out)
}

func (p *proxy) config() value.Dict {
	return sdktest.Dict("socket", p.socket, "servers", sdktest.Texts("web/app[123]"))
}

func (p *proxy) harness() *sdktest.Harness {
	p.t.Helper()
	h := sdktest.New(p.t, haproxy.New())
	if err := h.Configure(p.config()); err != nil {
		p.t.Fatal(err)
	}
	return h
}

func on(verb, server string, more ...any) sdktest.Action {
	return sdktest.Action{Function: verb, Args: sdktest.Dict(append([]any{"server", server}, more...)...), Key: "key", Target: sdk.Target{Key: "instance=lb1", Name: "lb1"}}
}

func TestE2EHAProxy(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	h := p.harness()
	state := func(server, field string) string {
		t.Helper()
		return fmt.Sprint(sdktest.Field(h.Ask("server", sdktest.Dict("server", server)), field))
	}
	if all := h.Ask("servers", sdktest.Dict("backend", "web")).(value.List); len(all) != 3 || p.answering() != "app1 app2 app3" {
		t.Fatalf("at first: %v, answering %s", all, p.answering())
	}

	plan, err := h.Plan(on("drain", "web/app1"))
	if err != nil || !strings.HasPrefix(plan.GetChanges()[0].GetBefore(), "ready (UP") {
		t.Errorf("plan: %v %v", plan, err)
	}
	no := on("drain", "web/app1")
	no.Decline = true
	if out := h.Act(no); !out.Declined || p.answering() != "app1 app2 app3" {
		t.Errorf("declined: %+v", out)
	}
	out := h.Expect(on("drain", "web/app1"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if p.answering() != "app2 app3" || state("web/app1", "state") != "drain" || state("web/app1", "serving") != "false" {
		t.Errorf("drained: %s answer, it is %s", p.answering(), state("web/app1", "state"))
	}
	h.Probes(on("drain", "web/app1"), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	h.Expect(on("drain", "web/app1"), pluginpb.Outcome_OUTCOME_NO_CHANGE, "web/app1 is drain")

	h.Expect(on("maint", "web/app2"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if p.answering() != "app3" {
		t.Errorf("answering: %s", p.answering())
	}
	// The last one stays, unless a person says that even that one may go.
	h.Expect(on("drain", "web/app3"), pluginpb.Outcome_OUTCOME_NOT_STARTED, "only 0 of the 2 other servers of backend web serve, and 1 have to")
	if p.answering() != "app3" {
		t.Errorf("answering: %s", p.answering())
	}
	h.Expect(on("drain", "web/app3", "least", 0), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	if p.answering() != "" {
		t.Errorf("answering: %s", p.answering())
	}
	// What is out already is so, in a dry run as in the action, however few others serve.
	if plan, err = h.Plan(on("drain", "web/app1")); err != nil || !plan.GetNoChange() {
		t.Errorf("plan: %v %v", plan, err)
	}
	for _, s := range []string{"web/app1", "web/app2", "web/app3"} {
		out = h.Expect(on("ready", s), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
		h.Probes(on("ready", s), out.Receipt, pluginpb.ProbeState_PROBE_STATE_DONE)
	}
	h.Expect(on("ready", "web/app3"), pluginpb.Outcome_OUTCOME_NO_CHANGE, "web/app3 is ready")
	for deadline := time.Now().Add(20 * time.Second); p.answering() != "app1 app2 app3"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("answering: %s", p.answering())
		}
	}

	// One that fails its health check does not serve, and does not count.
	p.servers[1].Close()
	for deadline := time.Now().Add(20 * time.Second); state("web/app2", "status") != "DOWN"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("app2 is %s", state("web/app2", "status"))
		}
	}
	if state("web/app2", "state") != "ready" || state("web/app2", "serving") != "false" || state("web/app2", "check") != "L4CON" {
		t.Errorf("app2: %v", h.Ask("server", sdktest.Dict("server", "web/app2")))
	}
	h.Expect(on("drain", "web/app1", "least", 2), pluginpb.Outcome_OUTCOME_NOT_STARTED, "only 1 of the 2 other servers")

	// Somebody else was at it.
	out = h.Expect(on("drain", "web/app1"), pluginpb.Outcome_OUTCOME_SUCCEEDED, "")
	p.says("set server web/app1 state ready")
	h.Probes(on("drain", "web/app1"), out.Receipt, pluginpb.ProbeState_PROBE_STATE_NOT_DONE)
	p.says("set server web/app1 state maint")
	h.Probes(on("drain", "web/app1"), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)
	h.Probes(on("drain", "web/app2"), out.Receipt, pluginpb.ProbeState_PROBE_STATE_UNKNOWN)

	for query, want := range map[string]string{"web/app9": `has no server web/app9 (did you mean "web/app1"?)`, "wob/app1": "has no backend wob"} {
		if _, err := h.Query(t.Context(), "server", sdktest.Dict("server", query)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", query, err)
		}
	}

	weak := sdktest.New(t, haproxy.New())
	if err := weak.Configure(sdktest.Dict("socket", filepath.Join(p.dir, "user"), "servers", sdktest.Texts("web/*"))); err != nil {
		t.Fatal(err)
	}
	if out := weak.Act(on("drain", "web/app3", "least", 0)); out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED && out.Outcome != pluginpb.Outcome_OUTCOME_FAILED || !strings.Contains(out.Message, "permission denied") {
		t.Errorf("over a socket without the level: %+v", out)
	}
}

func suite(p *proxy) sdktest.Suite {
	effect := func(verb, before, after string) sdktest.Effect {
		return sdktest.Effect{
			Action:   on(verb, "web/app1"),
			Happened: func() bool { return strings.Contains(p.says("show servers state web"), " app1 127.0.0.1 "+after) },
			Undo:     func() { p.says("set server web/app1 state " + before) },
		}
	}
	return sdktest.Suite{
		Argv: sdktest.Bundled(p.t, "haproxy"), Config: p.config(),
		Queries: []sdktest.Question{{Function: "servers", Args: sdktest.Dict("backend", "web")}, {Function: "server", Args: sdktest.Dict("server", "web/app1")}},
		Effects: []sdktest.Effect{effect("drain", "ready", "2 8 "), effect("maint", "ready", "0 1 "), effect("ready", "drain", "2 0 ")},
	}
}

func TestE2EConformance(t *testing.T) {
	t.Parallel()
	sdktest.Conformance(t, suite(newProxy(t)))
}

func TestE2EKills(t *testing.T) {
	t.Parallel()
	sdktest.Kills(t, suite(newProxy(t)), 50, 20261130)
}
