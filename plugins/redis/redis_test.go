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
	for name, c := range map[string]struct {
		config value.Dict
		want   string // "" is accepted
	}{
		"a port":      {sdktest.Dict("address", "cache1:6379"), ""},
		"a socket":    {sdktest.Dict("address", "/run/redis/redis.sock"), ""},
		"no port":     {sdktest.Dict("address", "cache1"), "is not host:port"},
		"a url":       {sdktest.Dict("address", "redis://cache1:6379"), "is not host:port"},
		"no password": {sdktest.Dict("address", "cache1:6379", "user", "runbook"), "has no password"},
		"ca, no tls":  {sdktest.Dict("address", "cache1:6379", "ca_file", "/etc/ca.pem"), "without tls no certificate is looked at"},
		"no ca":       {sdktest.Dict("address", "cache1:6379", "ca_file", "/nonexistent", "tls", true), "no such file"},
		"a pattern":   {sdktest.Dict("address", "cache1:6379", "settings", sdktest.Texts("max*")), "cannot be a parameter"},
		"timeout":     {sdktest.Dict("address", "cache1:6379", "timeout", value.Duration(-1)), "it must be positive"},
	} {
		err := sdktest.New(t, redis.New()).Configure(c.config)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
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
