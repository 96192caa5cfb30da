package cli

import (
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// The variables of the environment that this program reads, besides control.EnvHalt and secrets that project.star names.
const (
	envProject = "RUNBOOK_PROJECT" // what --project says, if it is not given
	envState   = "RUNBOOK_STATE"   // what --state says, if it is not given
	envNoColor = "NO_COLOR"        // set to anything but the empty text: no colour
	envTerm    = "TERM"            // "dumb": no colour
)

// Stdio is all that a command may know of the process it runs in. A test hands in its own.
type Stdio struct {
	In  io.Reader
	Out io.Writer // the result and nothing else
	Err io.Writer // progress, warnings, errors, logs

	OutIsTerminal bool
	ErrIsTerminal bool

	Env func(name string) (string, bool)
	Now func() time.Time

	// Hook is called between the moments of an action. Tests stop or kill the process there; it is nil otherwise.
	Hook func(point string)
}

// System is the Stdio of the process. It is the one place that reads the environment.
func System() Stdio {
	return Stdio{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutIsTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		ErrIsTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		Env:           os.LookupEnv,
		Now:           time.Now,
	}
}

// env returns a variable, "" if it is unset.
func (s Stdio) env(name string) string {
	v, _ := s.Env(name)
	return v
}
