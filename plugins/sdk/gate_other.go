//go:build !linux

package sdk

import (
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// startGate has no way here to hold a process back: the command is started by Run, and the engine knows only the plugin.
func startGate(Command) (*gated, *pluginpb.Child, error) { return nil, nil, nil }
