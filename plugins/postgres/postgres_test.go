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
	for name, c := range map[string]struct {
		config value.Dict
		want   string // "" is accepted
	}{
		"a name":      {sdktest.Dict("host", "db1", "user", "runbook", "users", sdktest.Texts("app_*")), ""},
		"a socket":    {sdktest.Dict("host", "/run/postgresql", "user", "runbook"), ""},
		"no user":     {sdktest.Dict("host", "db1"), "user"},
		"a url":       {sdktest.Dict("host", "postgres://db1", "user", "runbook"), "is not the name of one server"},
		"two":         {sdktest.Dict("host", "db1,db2", "user", "runbook"), "is not the name of one server"},
		"a port":      {sdktest.Dict("host", "db1", "user", "runbook", "port", 70000), "is not 1 to 65535"},
		"a pattern":   {sdktest.Dict("host", "db1", "user", "runbook", "users", sdktest.Texts("[")), "is not the name or pattern of a user"},
		"ca, no tls":  {sdktest.Dict("host", "db1", "user", "runbook", "tls", false, "ca_file", "/etc/ca.pem"), "without tls no certificate is looked at"},
		"no ca there": {sdktest.Dict("host", "db1", "user", "runbook", "ca_file", "/nonexistent"), "no such file"},
		"timeout":     {sdktest.Dict("host", "db1", "user", "runbook", "timeout", value.Duration(-1)), "it must be positive"},
	} {
		err := sdktest.New(t, postgres.New()).Configure(c.config)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
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
