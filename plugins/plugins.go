// Package plugins lists the plugins that are part of the binary.
package plugins

import (
	"context"
	"fmt"

	"github.com/seed1de3961f/runbook/plugins/alertmanager"
	"github.com/seed1de3961f/runbook/plugins/disk"
	"github.com/seed1de3961f/runbook/plugins/exec"
	"github.com/seed1de3961f/runbook/plugins/haproxy"
	"github.com/seed1de3961f/runbook/plugins/http"
	"github.com/seed1de3961f/runbook/plugins/postgres"
	"github.com/seed1de3961f/runbook/plugins/prometheus"
	"github.com/seed1de3961f/runbook/plugins/redis"
	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/ssh"
	"github.com/seed1de3961f/runbook/plugins/systemd"
)

// Plugin is a bundled plugin.
type Plugin struct {
	Name string
	New  func() *sdk.Plugin
}

// All is the list.
func All() []Plugin {
	return []Plugin{
		{"alertmanager", alertmanager.New},
		{"disk", disk.New},
		{"exec", exec.New},
		{"haproxy", haproxy.New},
		{"http", http.New},
		{"postgres", postgres.New},
		{"prometheus", prometheus.New},
		{"redis", redis.New},
		{"ssh", ssh.New},
		{"systemd", systemd.New},
	}
}

// Lookup returns the plugin of that name.
func Lookup(name string) (Plugin, bool) {
	for _, p := range All() {
		if p.Name == name {
			return p, true
		}
	}
	return Plugin{}, false
}

// Serve makes this process the plugin: see sdk.Plugin.Serve.
func (p Plugin) Serve(ctx context.Context) error { return p.New().Serve(ctx) }

// Manifests describes all of them, without starting one.
func Manifests() ([]sdk.Manifest, error) {
	var out []sdk.Manifest
	for _, p := range All() {
		m, err := p.New().Manifest()
		if err != nil {
			return nil, fmt.Errorf("plugin %s: %w", p.Name, err)
		}
		out = append(out, m)
	}
	return out, nil
}
