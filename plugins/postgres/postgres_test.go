package postgres_test

import (
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/postgres"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	sdktest.Settings(t, postgres.New, map[string]sdktest.Setting{
		"a name":      {Config: sdktest.Dict("host", "db1", "user", "runbook", "users", sdktest.Texts("app_*")), Want: ""},
		"a socket":    {Config: sdktest.Dict("host", "/run/postgresql", "user", "runbook"), Want: ""},
		"no user":     {Config: sdktest.Dict("host", "db1"), Want: "user"},
		"a url":       {Config: sdktest.Dict("host", "postgres://db1", "user", "runbook"), Want: "is not the name of one server"},
		"two":         {Config: sdktest.Dict("host", "db1,db2", "user", "runbook"), Want: "is not the name of one server"},
		"a port":      {Config: sdktest.Dict("host", "db1", "user", "runbook", "port", 70000), Want: "is not 1 to 65535"},
		"a pattern":   {Config: sdktest.Dict("host", "db1", "user", "runbook", "users", sdktest.Texts("[")), Want: "is not a name or a pattern"},
		"ca, no tls":  {Config: sdktest.Dict("host", "db1", "user", "runbook", "tls", false, "ca_file", "/etc/ca.pem"), Want: "without tls no certificate is looked at"},
		"no ca there": {Config: sdktest.Dict("host", "db1", "user", "runbook", "ca_file", "/nonexistent"), Want: "no such file"},
		"timeout":     {Config: sdktest.Dict("host", "db1", "user", "runbook", "timeout", value.Duration(-1)), Want: "it must be positive"},
	})
}

// What cannot be the name of a session or a statement is said before the server hears of it.
func TestNamesThatCannotBe(t *testing.T) {
	t.Parallel()
	h := sdktest.New(t, postgres.New())
	if err := h.Configure(sdktest.Dict("host", "127.0.0.1", "port", 1, "user", "runbook", "users", sdktest.Texts("*"))); err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct{ function, argument, name string }{
		{"terminate", "backend", ""},
		{"terminate", "backend", "4711"},
		{"terminate", "backend", "4711/"},
		{"terminate", "backend", "4711/1/1"},
		{"terminate", "backend", "4711/1 or true"},
		{"terminate", "backend", "-1/1"},
		{"cancel", "statement", "4711/1"},
		{"cancel", "statement", "4711/1/0"}, // one that has run nothing yet
		{"cancel", "statement", "4711/1/99999999999999999999"},
	} {
		out := h.Act(sdktest.Action{Function: a.function, Args: sdktest.Dict(a.argument, a.name), Key: "k"})
		if out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(out.Message, "is not the name of one") {
			t.Errorf("%s %q: %+v", a.function, a.name, out)
		}
	}
}
