package sdk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// Call is one action being carried out. It is a context that ends a little before the engine kills the process group.
type Call struct {
	context.Context
	Target Target
	// Key is the idempotency key: the same for the same action for ever. Hand it to the back end wherever that takes one.
	Key string

	send    func(*pluginpb.ExecuteEvent) error
	proceed chan *pluginpb.Proceed

	mu      sync.Mutex
	phase   phase
	child   *pluginpb.Child // of a prepared command
	cleanup []func()        // run after the function has returned
}

// phase is how far a call came.
type phase int

const (
	preparing phase = iota
	started         // Started was sent; nothing has happened
	declined        // told not to act; nothing has happened
	acting          // told to act
)

// Begin asks for leave to act. It sends the receipt, which is what a probe needs to tell later whether the effect happened
// (the state before: a resource version, an invocation id), waits until the engine has recorded it durably, and returns
// nil only if the engine said go. After any error the function must return without having changed anything.
//
// What a function returns means: an error before Begin, certainly nothing happened; after Begin, an error is a definite
// failure, unless it is Unknown or the call's time is over, which leave the action in doubt.
func (c *Call) Begin(receipt []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != preparing {
		return errors.New("Begin was called before")
	}
	if err := c.Err(); err != nil {
		return context.Cause(c)
	}
	c.phase = started
	err := c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Started{
		Started: &pluginpb.Started{Receipt: receipt, Child: c.child},
	}})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	select {
	case p := <-c.proceed:
		if !p.GetGo() {
			c.phase = declined
			// Nothing has happened and nothing will: said at once, so that no slow clean-up puts the action in doubt.
			_ = c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Declined{Declined: &pluginpb.Declined{}}})
			return fmt.Errorf("told not to act: %s", p.GetReason())
		}
	case <-c.Done():
		return context.Cause(c)
	}
	if err := c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Acting{Acting: &pluginpb.Acting{}}}); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	c.phase = acting
	return nil
}

// Progress tells a person who watches how far the action is.
func (c *Call) Progress(format string, args ...any) {
	_ = c.send(&pluginpb.ExecuteEvent{Event: &pluginpb.ExecuteEvent_Progress{
		Progress: &pluginpb.Progress{Message: pluginpb.Text(fmt.Sprintf(format, args...))},
	}})
}

// Unknown marks an error after which nobody knows whether the effect happened: a timeout, a lost connection.
func Unknown(err error) error { return &unknownError{err} }

type unknownError struct{ err error }

func (e *unknownError) Error() string { return e.err.Error() }
func (e *unknownError) Unwrap() error { return e.err }

// NoChange is returned by an action that found everything as it should be and changed nothing. It may be returned without
// Begin.
func NoChange(format string, args ...any) error {
	return &noChangeError{fmt.Sprintf(format, args...)}
}

type noChangeError struct{ message string }

func (e *noChangeError) Error() string { return e.message }

// resultError is a result that cannot be sent. It says nothing about the action.
type resultError struct{ err error }

func (e *resultError) Error() string { return e.err.Error() }
