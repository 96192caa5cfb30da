// Package spare starts the process of a plugin before it is known of which.
//
// A bundled plugin is this program again, and the longest part of the start of either is the initialisation of its packages. A run that waits for
// its own and then for that of its metric source's plugin waits twice. So it starts a process as soon as it can, and once it knows what it needs,
// the process is told what to be.
//
// Promise: it becomes no plugin that acts; until it is told, the process does nothing and knows nothing; it has no environment, no rights that a plugin would not have, and ends
// when its parent ends or says no more. A parent that has none, or whose own has ended, starts a plugin as it always would.
//
// The package imports next to nothing, because what it imports is initialised before it can begin: not os/exec, which comes late, and not strings, whose turn
// is in the order of its name, after a third of all packages.
package spare

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/seed1de3961f/runbook/runtime/pluginhost/pipes"
)

// Command is the hidden command that makes the binary such a process.
const Command = "__spare"

// Spare is a process that waits to be told what it is.
type Spare struct {
	*pipes.Pipes
	Process *os.Process
	Exited  <-chan struct{} // closed when it has ended; it was not reaped then
}

// ahead is the one spare process that was started, or is being.
var ahead struct {
	mu      sync.Mutex
	started chan *Spare // nil: none was ever asked for, or it was taken; nil from it: it could not be started
}

// Ahead starts a process in the background, where none outlives its parent.
func Ahead() {
	started := make(chan *Spare, 1)
	ahead.mu.Lock()
	ahead.started = started
	ahead.mu.Unlock()
	go func() {
		s, _ := start() // without it a plugin is started when it is needed
		started <- s
	}()
}

// Take returns the process that was started ahead, once; nil if there is none, or no longer.
func Take() *Spare {
	ahead.mu.Lock()
	started := ahead.started
	ahead.started = nil
	ahead.mu.Unlock()
	if started == nil {
		return nil
	}
	s := <-started
	if s == nil {
		return nil
	}
	select {
	case <-s.Exited:
		s.End()
		return nil
	default:
		return s
	}
}

// Drop ends the process that nobody has taken, and waits for its end.
func Drop() {
	if s := Take(); s != nil {
		s.End()
	}
}

// An order is texts that end with a zero byte, the plugin's name first, and a zero byte at the end of all. None of them is empty, so that a zero
// byte follows another nowhere else, and none can hold one: they become a file's name and an environment.

// Become tells the process which plugin it is, and with which environment. An error means that it has ended.
func (s *Spare) Become(name string, env []string) error {
	order := append([]byte(name), 0)
	for _, e := range env {
		order = append(append(order, e...), 0)
	}
	_, err := s.Lifeline.Write(append(order, 0))
	return err
}

// Await waits in such a process for what it is told on its standard input, takes the environment on and returns the plugin's name. An error
// means that it is not needed, or that it was not started by this program.
func Await(in io.Reader) (name string, err error) {
	name, env, err := read(in)
	if err != nil {
		return "", err
	}
	for _, e := range env {
		key, v, _ := bytes.Cut([]byte(e), []byte{'='})
		if err := os.Setenv(string(key), string(v)); err != nil {
			return "", err
		}
	}
	return name, nil
}

// most bounds an order, in bytes; what a plugin is told has a hundredth of it.
const most = 64 << 10

var errNoOrder = errors.New("no order came")

func read(in io.Reader) (name string, env []string, err error) {
	var order []byte
	for buf := make([]byte, 4096); !bytes.HasSuffix(order, []byte{0, 0}); {
		n, err := in.Read(buf)
		order = append(order, buf[:n]...)
		if err != nil || len(order) > most {
			return "", nil, errNoOrder
		}
	}
	texts := bytes.Split(order[:len(order)-2], []byte{0})
	for _, e := range texts[1:] {
		env = append(env, string(e))
	}
	return string(texts[0]), env, nil
}
