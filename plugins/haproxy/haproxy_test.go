package haproxy_test

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/plugins/haproxy"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	sdktest.Settings(t, haproxy.New, map[string]sdktest.Setting{
		"a path":        {Config: sdktest.Dict("socket", "/run/haproxy/admin.sock", "servers", sdktest.Texts("web/app*")), Want: ""},
		"a port":        {Config: sdktest.Dict("socket", "127.0.0.1:9999"), Want: ""},
		"relative":      {Config: sdktest.Dict("socket", "admin.sock"), Want: "is not an absolute path, and not host:port"},
		"no backend":    {Config: sdktest.Dict("socket", "/s", "servers", sdktest.Texts("app1")), Want: "is not the name or pattern of a server"},
		"a bad pattern": {Config: sdktest.Dict("socket", "/s", "servers", sdktest.Texts("web/[")), Want: "is not the name or pattern of a server"},
		"timeout":       {Config: sdktest.Dict("socket", "/s", "timeout", value.Duration(-1)), Want: "it must be positive"},
	})
}

// A name cannot become a command, and nothing that the connection does not list is acted on.
func TestServersThatAreRefused(t *testing.T) {
	t.Parallel()
	h := sdktest.New(t, haproxy.New())
	if err := h.Configure(sdktest.Dict("socket", "/nonexistent", "servers", sdktest.Texts("web/app*"))); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		"web/ap1":                      "does not allow to act on web/ap1",
		"db/app1":                      "does not allow to act on db/app1",
		"web/app1; shutdown":           "is not backend/server",
		"web/app1\nset server web/app": "is not backend/server",
		"app1":                         "is not backend/server",
		"web/app1/x":                   "is not backend/server",
		"web/app1":                     "there is no such socket", // this one would be
	} {
		for _, verb := range []string{"drain", "maint", "ready"} {
			a := sdktest.Action{Function: verb, Args: sdktest.Dict("server", server), Key: "k"}
			if out := h.Act(a); out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(out.Message, want) {
				t.Errorf("%s %q: %+v, want %q", verb, server, out, want)
			}
			if _, err := h.Plan(a); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("plan of %s %q: %v, want %q", verb, server, err, want)
			}
		}
	}
}

// What HAProxy's answer is worth when it does not come whole. The real one never does this.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const states = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n1 web 1 app1 127.0.0.1 2 0 1\n1 web 2 app2 127.0.0.1 2 0 1\n\n"
	const stats = "# pxname,svname,scur,status,\nweb,app1,3,UP,\nweb,app2,4,UP,\n\n"
	for name, c := range map[string]struct {
		set     string // the answer to set server
		outcome pluginpb.Outcome
		want    string
	}{
		"done":             {"\n", pluginpb.Outcome_OUTCOME_SUCCEEDED, ""},
		"refused":          {"No such server.\n\n", pluginpb.Outcome_OUTCOME_FAILED, "No such server."},
		"no permission":    {"Permission denied\n\n", pluginpb.Outcome_OUTCOME_FAILED, "permission denied: set server"},
		"nothing":          {"", pluginpb.Outcome_OUTCOME_UNKNOWN, "was cut off"},
		"half of it":       {"No such", pluginpb.Outcome_OUTCOME_UNKNOWN, "was cut off"},
		"never":            {"wait", pluginpb.Outcome_OUTCOME_UNKNOWN, "no answer within"},
		"more than enough": {strings.Repeat("x", 9<<20) + "\n", pluginpb.Outcome_OUTCOME_UNKNOWN, "is longer than 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					line, _ := bufio.NewReader(conn).ReadString('\n')
					answer := map[string]string{"show servers state web\n": states, "show stat -1 4 -1\n": stats, "set server web/app1 state drain\n": c.set}[line]
					if answer == "wait" {
						<-t.Context().Done()
					}
					_, _ = io.WriteString(conn, answer)
					_ = conn.Close()
				}
			}()
			h := sdktest.New(t, haproxy.New())
			if err := h.Configure(sdktest.Dict("socket", socket, "servers", sdktest.Texts("web/app1"), "timeout", value.Duration(time.Second))); err != nil {
				t.Fatal(err)
			}
			h.Expect(sdktest.Action{Function: "drain", Args: sdktest.Dict("server", "web/app1"), Key: "k"}, c.outcome, c.want)
		})
	}
}
