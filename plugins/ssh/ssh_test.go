package ssh_test

import (
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
	sdktest.Settings(t, ssh.New, map[string]sdktest.Setting{
		"an agent":           {Config: base("agent", "/run/agent"), Want: ""},
		"no key":             {Config: base(), Want: "key and host_key are needed"},
		"both":               {Config: base("agent", "/run/agent", "key", "x"), Want: "two ways to log in"},
		"a bad key":          {Config: base("key", "x"), Want: "it is not a private key"},
		"a relative agent":   {Config: base("agent", "agent"), Want: "is not an absolute path"},
		"no host key":        {Config: sdktest.Dict("host", "db1", "user", "runbook", "agent", "/run/agent"), Want: "host_key"},
		"a bad host key":     {Config: sdktest.Dict("host", "db1", "user", "runbook", "agent", "/run/agent", "host_key", "ssh-ed25519 x"), Want: "it is not a public key"},
		"a relative argv":    {Config: base("agent", "/a", "commands", sdktest.Dict("x", sdktest.Texts("touch"))), Want: `commands: "x": "touch" is not the absolute path`},
		"an empty argv":      {Config: base("agent", "/a", "commands", sdktest.Dict("x", sdktest.Texts())), Want: `commands: "x": it is empty`},
		"a read's target":    {Config: base("agent", "/a", "reads", sdktest.Dict("x", sdktest.Texts("/bin/ls", "{target}"))), Want: "a read has no target"},
		"a variable":         {Config: base("agent", "/a", "env", sdktest.Dict("A B", "x")), Want: "cannot be set"},
		"a variable of us":   {Config: base("agent", "/a", "env", sdktest.Dict("RUNBOOK_KEY", "x")), Want: "cannot be set"},
		"a negative timeout": {Config: base("agent", "/a", "timeout", value.Duration(-1)), Want: "it must be positive"},
	})
}
