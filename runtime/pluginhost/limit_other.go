//go:build !linux

package pluginhost

import "github.com/seed1de3961f/runbook/runtime/action"

func limit(int) {}

// killGroup cannot tell here whether the group is still the child's, and kills nothing.
func killGroup(action.Child) bool { return false }

func leads(c action.Child, _ int) (action.Child, bool) { return c, false }
