// Package control is what a person sets: the state directory itself, and the emergency stop.
//
// Halt needs no store, no lock of the store, no plugin and no network. Running is allowed only while the RUN sentinel
// that init made exists with the directory's id, no HALT file exists in the state directory or its copy on the memory file
// system, RUNBOOK_HALT is unset, and every one of those questions got a clean answer; anything else is halted.
//
// The gate: when Halt has returned nil, no action on this machine begins to act until Resume. A run takes a shared flock on
// the gate, re-reads all sources, lets the plugin proceed, waits until the plugin says that it acts, unlocks. Halt writes
// first and then takes the gate exclusively.
//
// The gate is two lock files, and a run holds both: one on the memory file system, which a hung state disk cannot block, and one in the
// state directory, which nothing clears away behind our back as a reboot, a log-out or a cleaner of temporary files does with the other.
// Whoever gets either of them exclusively knows that no run is between its check and its action.
package control

import "time"

// State is a state directory.
//
//	ID        namespace, schema version, path of the gate directory, made by Init
//	RUN       the sentinel
//	HALT      present while halted (JSON: who, why, when, until)
//	store/    the store; mark beside it; lock
//	locks/    one flock per runbook; gate
//	halts.log every halt and resume, JSON lines
//	plugins/  run directories of plugin processes
//	cache/    manifests
type State struct {
	Dir       string // absolute
	Namespace string // random id that init wrote; part of every action's identity
	GateDir   string // on a memory file system where there is one

	hooks *hooks // tests only
}

// HaltInfo is one set halt source.
type HaltInfo struct {
	Source string    `json:"source"` // "file", "memory", "environment", "sentinel", "state"
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"` // user@host (terminal)
	At     time.Time `json:"at,omitzero"`
	Until  time.Time `json:"until,omitzero"` // zero: until a person resumes
}

// The sources.
const (
	SourceFile        = "file"        // HALT in the state directory
	SourceMemory      = "memory"      // HALT in the gate directory
	SourceEnvironment = "environment" // RUNBOOK_HALT
	SourceSentinel    = "sentinel"    // RUN is not what init made
	SourceState       = "state"       // the state directory is not usable
)

// EnvHalt is the environment variable that halts when it is set, to whatever.
const EnvHalt = "RUNBOOK_HALT"

// How long the parts of a halt may take. A person waits for it, with production burning.
const (
	writeTimeout = time.Second     // each of the two copies of HALT
	gateTimeout  = 2 * time.Second // the actions that are just beginning
)
