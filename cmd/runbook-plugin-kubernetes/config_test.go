package main

import (
	"strings"
	"testing"

	"github.com/seed1de3961f/runbook/plugins/sdk/sdktest"
	"github.com/seed1de3961f/runbook/plugins/sdk/value"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	server := func(more ...any) value.Dict {
		return sdktest.Dict(append([]any{"server", "https://10.0.0.1:6443"}, more...)...)
	}
	for name, c := range map[string]struct {
		config value.Dict
		want   string // "" is accepted
	}{
		"a server":        {server("token", "x"), ""},
		"no cluster":      {nil, "unable to load in-cluster configuration"},
		"both":            {server("kubeconfig", "/x"), "two ways to say where the cluster is"},
		"a token alone":   {sdktest.Dict("token", "x"), "belong to server"},
		"no encryption":   {sdktest.Dict("server", "http://10.0.0.1"), "is not an https address"},
		"no such file":    {sdktest.Dict("kubeconfig", "/nonexistent"), "/nonexistent"},
		"no such ca":      {server("ca_file", "/nonexistent"), "/nonexistent"},
		"a context alone": {sdktest.Dict("context", "x"), "context belongs to kubeconfig"},
		"a bad pattern":   {server("namespaces", sdktest.Texts("[")), "is not a name or a pattern"},
		"less than least": {server("least", 3, "most", 2), "is no range of replicas"},
		"negative":        {server("least", -1), "is no range of replicas"},
		"a timeout of 0":  {server("timeout", value.Duration(-1)), "it must be positive"},
		"more of them":    {server("nodes", sdktest.Texts("worker-*"), "most", 5), ""},
	} {
		err := sdktest.New(t, newPlugin()).Configure(c.config)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
