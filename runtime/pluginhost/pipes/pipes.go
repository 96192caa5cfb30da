// Package pipes is what a plugin's process and its host hold of each other.
package pipes

import (
	"errors"
	"os"
)

// Pipes are the standard files of a process. Nobody else holds the end of its standard input: the process sees that end when ours is closed, also
// because this process ended.
type Pipes struct {
	Lifeline, Stdout, Stderr *os.File   // our ends
	Theirs                   []*os.File // those of the process, in the order of their descriptors, until it was started
}

// Open makes them.
func Open() (*Pipes, error) {
	in, lifeline, err := os.Pipe()
	stdout, toStdout, err1 := os.Pipe()
	stderr, toStderr, err2 := os.Pipe()
	p := &Pipes{Lifeline: lifeline, Stdout: stdout, Stderr: stderr, Theirs: []*os.File{in, toStdout, toStderr}}
	if err := errors.Join(err, err1, err2); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Started closes the ends of the process, which it has, or never will have.
func (p *Pipes) Started() {
	for _, f := range p.Theirs {
		_ = f.Close() // of no file it is an error, and nothing else
	}
	p.Theirs = nil
}

// Close closes all.
func (p *Pipes) Close() {
	p.Started()
	_, _, _ = p.Lifeline.Close(), p.Stdout.Close(), p.Stderr.Close()
}
