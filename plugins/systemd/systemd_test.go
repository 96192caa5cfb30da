package systemd_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/systemd"
)

var target = sdk.Target{Key: "instance=w3", Name: "w3", Labels: map[string]string{"instance": "w3"}}

func hintOf(err error) string {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p.Hint
	}
	return ""
}

func TestSettings(t *testing.T) {
	t.Parallel()
	sdktest.Settings(t, systemd.New, map[string]sdktest.Setting{
		"nothing":     {Want: ""},
		"patterns":    {Config: sdktest.Dict("units", sdktest.Texts("nginx.service", "worker@*.service")), Want: ""},
		"no ending":   {Config: sdktest.Dict("units", sdktest.Texts("nginx")), Want: "is not the name or pattern of a unit"},
		"bad pattern": {Config: sdktest.Dict("units", sdktest.Texts("worker[.service")), Want: "is not the name or pattern of a unit"},
		"socket":      {Config: sdktest.Dict("socket", value.String("run/systemd/private")), Want: "is not an absolute path"},
		"no keys":     {Config: sdktest.Dict("host", value.String("db1")), Want: "key and host_key are needed"},
		"no host":     {Config: sdktest.Dict("host_key", value.String("ssh-ed25519 AAAA")), Want: "are for another machine"},
		"bad key":     {Config: sdktest.Dict("host", value.String("db1"), "key", value.String("x"), "host_key", value.String("x")), Want: "it is not a private key"},
		"timeout":     {Config: sdktest.Dict("timeout", value.Duration(-1)), Want: "it must be positive"},
	})
}

// What is wrong with the name of a unit is said before anything is asked of systemd, and nothing is acted on that the connection does not list.
func TestUnitsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := sdktest.New(t, systemd.New())
	if err := h.Configure(sdktest.Dict("units", sdktest.Texts("worker@*.service", "nginx.service"), "socket", value.String("/nonexistent/socket"))); err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]string{
		"ngnix.service":           `does not allow to act on ngnix.service (did you mean "nginx.service"?)`,
		"nginx":                   "has no ending",
		"worker@a/b.service":      "cannot be the name of a unit",
		"worker@1.service.d.conf": "cannot be the name of a unit",
		"":                        "cannot be the name of a unit",
		"ssh.service":             "does not allow to act on",
		"worker@1.service":        "there is no such socket", // this one would be
	} {
		for _, verb := range []string{"restart", "start", "stop", "reset_failed"} {
			a := sdktest.Action{Function: verb, Args: sdktest.Dict("unit", value.String(unit)), Target: target, Key: "k"}
			if out := h.Act(a); out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED || out.Started || !strings.Contains(out.Message, want) {
				t.Errorf("%s %s: %+v, want %q", verb, unit, out, want)
			}
			if _, err := h.Plan(a); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("plan of %s %s: %v, want %q", verb, unit, err, want)
			}
		}
	}
	if _, err := h.Query(t.Context(), "unit", sdktest.Dict("unit", value.String("nginx"))); hintOf(err) != `write "nginx.service"` {
		t.Errorf("hint %q", hintOf(err))
	}
}
