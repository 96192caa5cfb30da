package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed1de3961f/runbook/runtime/action"
	"github.com/seed1de3961f/runbook/runtime/control"
	"github.com/seed1de3961f/runbook/runtime/ledger"
	"github.com/seed1de3961f/runbook/runtime/process"
	"github.com/seed1de3961f/runbook/runtime/store"
	"github.com/seed1de3961f/runbook/runtime/store/pebble"
)

// flight is an action that has begun and not ended, by a process that lives.
type flight struct {
	ID      string    `json:"id"`
	Action  string    `json:"action"`
	Target  string    `json:"target"`
	Runbook string    `json:"runbook"`
	Since   time.Time `json:"since"`
	Killed  bool      `json:"killed,omitempty"`
	Error   string    `json:"error,omitempty"` // why it could not be killed

	owner action.Owner
	child action.Child
}

// inFlightPatience bounds how long a halt, which is done by then, waits for the store to say what is still going on.
const inFlightPatience = 3 * time.Second

// lookPatience is how long a halt waits for whoever holds the store before it goes without saying what is in flight: a run lets go of it
// within 10 ms when somebody waits, and a stop that is set must not look as if it hung.
const lookPatience = 10 * time.Millisecond

// inFlight reads from the store what is being done, waiting for whoever holds it no longer than wait, or as long as usual if that is 0. A disk
// that hangs, for which no context helps, does not hold it up.
func inFlight(ctx context.Context, s control.State, wait time.Duration) ([]flight, error) {
	ctx, cancel := context.WithTimeout(ctx, inFlightPatience)
	defer cancel()
	type answer struct {
		flights []flight
		err     error
	}
	done := make(chan answer, 1)
	go func() {
		flights, err := readFlights(ctx, s, wait)
		done <- answer{flights, err}
	}()
	select {
	case a := <-done:
		return a.flights, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the store did not answer within %s", howLong(inFlightPatience))
	}
}

func readFlights(ctx context.Context, s control.State, wait time.Duration) ([]flight, error) {
	config := storeConfig(s, "halt")
	config.Wait = wait
	st, err := pebble.New(config)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	var open []ledger.Open
	if err := st.View(ctx, []string{ledger.KeyOpen}, func(tx store.ReadTx) (err error) {
		open, err = ledger.Read[[]ledger.Open](tx, ledger.KeyOpen)
		return err
	}); err != nil {
		return nil, err
	}
	out := []flight{}
	for _, o := range open {
		_, steps, err := ledger.Attempt(ctx, st, o.ID)
		if err != nil {
			return out, err
		}
		for _, step := range steps {
			if step.State == action.Begun && process.Alive(step.Owner) {
				out = append(out, flight{
					ID: step.ID, Action: step.Action, Target: step.Identity.Target, Runbook: step.Identity.Runbook,
					Since: step.BegunAt.Wall, owner: step.Owner, child: step.Child,
				})
			}
		}
	}
	return out, nil
}

// kill ends the process group that carries the action out. Its run, which lives, records it as in doubt.
func (f *flight) kill() {
	switch {
	case f.owner.Host != process.Self().Host || f.owner.Boot != process.Self().Boot:
		f.Error = "it runs on " + f.owner.Host
	case f.child == action.Child{}:
		f.Error = "its process is not recorded"
	default:
		if err := process.KillGroup(f.child); err != nil {
			f.Error = err.Error()
			return
		}
		f.Killed = true
	}
}

// killHolders ends the processes that are letting an action begin and so keep the stop from being confirmed. What they had
// begun is in doubt; the next run says so.
func killHolders(s control.State) error {
	var failed []error
	for _, h := range s.Holders() {
		p, err := os.FindProcess(h.PID) // holds on to the process where the system can, so that its pid is not reused meanwhile
		if err != nil {
			continue // gone
		}
		if start, err := process.StartTime(h.PID); err == nil && start == h.Start {
			if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				failed = append(failed, fmt.Errorf("kill process %d: %w", h.PID, err))
			}
		}
		_ = p.Release()
	}
	return errors.Join(failed...)
}
