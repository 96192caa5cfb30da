package ssh_test

import (
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
	"github.com/seed1de3961f/runbook/plugins/ssh"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"
	base := func(more ...any) value.Dict {
		return sdktest.Dict(append([]any{"host", "db1", "user", "runbook", "host_key", hostKey}, more...)...)
	}
	for name, c := range map[string]struct {
		config value.Dict
		want   string // "" is accepted
	}{
		"an agent":           {base("agent", "/run/agent"), ""},
		"no key":             {base(), "key and host_key are needed"},
		"both":               {base("agent", "/run/agent", "key", "x"), "two ways to log in"},
		"a bad key":          {base("key", "x"), "it is not a private key"},
		"a relative agent":   {base("agent", "agent"), "is not an absolute path"},
		"no host key":        {sdktest.Dict("host", "db1", "user", "runbook", "agent", "/run/agent"), "host_key"},
		"a bad host key":     {sdktest.Dict("host", "db1", "user", "runbook", "agent", "/run/agent", "host_key", "ssh-ed25519 x"), "it is not a public key"},
		"a relative argv":    {base("agent", "/a", "commands", sdktest.Dict("x", sdktest.Texts("touch"))), `commands: "x": "touch" is not the absolute path`},
		"an empty argv":      {base("agent", "/a", "commands", sdktest.Dict("x", sdktest.Texts())), `commands: "x": it is empty`},
		"a read's target":    {base("agent", "/a", "reads", sdktest.Dict("x", sdktest.Texts("/bin/ls", "{target}"))), "a read has no target"},
		"a variable":         {base("agent", "/a", "env", sdktest.Dict("A B", "x")), "cannot be set"},
		"a variable of us":   {base("agent", "/a", "env", sdktest.Dict("RUNBOOK_KEY", "x")), "cannot be set"},
		"a negative timeout": {base("agent", "/a", "timeout", value.Duration(-1)), "it must be positive"},
	} {
		err := sdktest.New(t, ssh.New()).Configure(c.config)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
