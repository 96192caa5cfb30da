package redis_test

import (
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/redis"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	sdktest.Settings(t, redis.New, map[string]sdktest.Setting{
		"a port":      {Config: sdktest.Dict("address", "cache1:6379"), Want: ""},
		"a socket":    {Config: sdktest.Dict("address", "/run/redis/redis.sock"), Want: ""},
		"no port":     {Config: sdktest.Dict("address", "cache1"), Want: "is not host:port"},
		"a url":       {Config: sdktest.Dict("address", "redis://cache1:6379"), Want: "is not host:port"},
		"no password": {Config: sdktest.Dict("address", "cache1:6379", "user", "runbook"), Want: "has no password"},
		"ca, no tls":  {Config: sdktest.Dict("address", "cache1:6379", "ca_file", "/etc/ca.pem"), Want: "without tls no certificate is looked at"},
		"no ca":       {Config: sdktest.Dict("address", "cache1:6379", "ca_file", "/nonexistent", "tls", true), Want: "no such file"},
		"a pattern":   {Config: sdktest.Dict("address", "cache1:6379", "settings", sdktest.Texts("max*")), Want: "cannot be a parameter"},
		"timeout":     {Config: sdktest.Dict("address", "cache1:6379", "timeout", value.Duration(-1)), Want: "it must be positive"},
	})
}

// What is wrong with the name of a client is said before the server hears of it.
func TestClientsThatCannotBe(t *testing.T) {
	t.Parallel()
	h := sdktest.New(t, redis.New())
	if err := h.Configure(sdktest.Dict("address", "127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"", "12", "/12", strings.Repeat("a", 40), strings.Repeat("a", 40) + "/", strings.Repeat("a", 40) + "/-1", strings.Repeat("a", 40) + "/1 TYPE normal", "short/1"} {
		out := h.Act(sdktest.Action{Function: "end_client", Args: sdktest.Dict("client", client), Key: "k"})
		if out.Outcome != pluginpb.Outcome_OUTCOME_NOT_STARTED {
			t.Errorf("%q: %+v", client, out)
		}
	}
}
