//go:build !linux

package sandbox

import "github.com/seed1de3961f/runbook/runtime/sandbox/wire"

// confineProcess has no limits of the system to set here: the watch over the heap, the limit of steps and the engine's
// clock are all that holds. Weak says so.
func confineProcess(wire.Hello) (*page, error) { return newPage(make([]byte, pageSize)), nil }

func renewTime(wire.Hello) {}
