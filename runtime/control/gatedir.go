package control

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// GateInMemory says whether the gate is on a memory file system, so that a state disk that hangs cannot delay a stop.
func (s State) GateInMemory() bool { return inMemory(filepath.Dir(s.GateDir)) }

// SocketDir is where the sockets of a run's plugins go: beside the gate, where no disk is waited for when they are made and removed, or else in the
// state directory.
func (s State) SocketDir() string {
	if s.GateInMemory() {
		dir := filepath.Join(s.GateDir, "plugins")
		if err := os.Mkdir(dir, 0o700); (err == nil || errors.Is(err, fs.ErrExist)) && writable(dir) {
			return dir
		}
	}
	return filepath.Join(s.Dir, "plugins")
}

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
