package main

import (
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	server := func(more ...any) value.Dict {
		return sdktest.Dict(append([]any{"server", "https://10.0.0.1:6443"}, more...)...)
	}
	sdktest.Settings(t, newPlugin, map[string]sdktest.Setting{
		"a server":        {Config: server("token", "x"), Want: ""},
		"no cluster":      {Want: "unable to load in-cluster configuration"},
		"both":            {Config: server("kubeconfig", "/x"), Want: "two ways to say where the cluster is"},
		"a token alone":   {Config: sdktest.Dict("token", "x"), Want: "belong to server"},
		"no encryption":   {Config: sdktest.Dict("server", "http://10.0.0.1"), Want: "is not an https address"},
		"no such file":    {Config: sdktest.Dict("kubeconfig", "/nonexistent"), Want: "/nonexistent"},
		"no such ca":      {Config: server("ca_file", "/nonexistent"), Want: "/nonexistent"},
		"a context alone": {Config: sdktest.Dict("context", "x"), Want: "context belongs to kubeconfig"},
		"a bad pattern":   {Config: server("namespaces", sdktest.Texts("[")), Want: "is not a name or a pattern"},
		"less than least": {Config: server("least", 3, "most", 2), Want: "is no range of replicas"},
		"negative":        {Config: server("least", -1), Want: "is no range of replicas"},
		"a timeout of 0":  {Config: server("timeout", value.Duration(-1)), Want: "it must be positive"},
		"more of them":    {Config: server("nodes", sdktest.Texts("worker-*"), "most", 5), Want: ""},
	})
}
