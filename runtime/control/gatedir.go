package control

import (
	"os"
	"path/filepath"
	"strconv"
)

// GateInMemory says whether the gate is on a memory file system, so that a state disk that hangs cannot delay a stop.
func (s State) GateInMemory() bool { return inMemory(filepath.Dir(s.GateDir)) }

// DefaultGateDir is where the memory copy of HALT and the gate of a new state directory go: the first of
//
//	/run/runbook/NAMESPACE          for root, or where /run/runbook can be written
//	$XDG_RUNTIME_DIR/runbook/NAMESPACE
//	/dev/shm/runbook-UID/NAMESPACE
//
// that is on a memory file system. Where none is, as outside Linux, it is a temporary directory, and a hung disk can then delay a stop. The
// choice is written into ID once, so that cron and a terminal, whose environments differ, agree on it.
func DefaultGateDir(namespace string) string {
	own := "runbook-" + strconv.Itoa(os.Geteuid())
	var candidates []string
	if os.Geteuid() == 0 || writable("/run/runbook") {
		candidates = append(candidates, filepath.Join("/run/runbook", namespace))
	}
	// The environment is read here, when a person runs init, and nowhere else.
	if xdg, ok := os.LookupEnv("XDG_RUNTIME_DIR"); ok && filepath.IsAbs(xdg) && writable(xdg) { //nolint:forbidigo // see above
		candidates = append(candidates, filepath.Join(xdg, "runbook", namespace))
	}
	if writable("/dev/shm") {
		candidates = append(candidates, filepath.Join("/dev/shm", own, namespace))
	}
	for _, c := range candidates {
		if inMemory(filepath.Dir(filepath.Dir(c))) {
			return c
		}
	}
	return filepath.Join(os.TempDir(), own, namespace)
}
