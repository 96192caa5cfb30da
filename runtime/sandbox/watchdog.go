package sandbox

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
)

// watchdog ends a worker that overruns its time, does not get on, or is not wanted any more, while its engine reads from it or writes to it:
// the pipe then ends too. That costs a call two stores, where timers and a goroutine that reads ahead would cost it more than the call itself.
type watchdog struct {
	w       *worker
	since   atomic.Int64 // when the engine began to wait, in ns after birth; 0: it does not
	used    atomic.Int64 // ns of the waits that are over
	birth   time.Time
	halt    chan struct{}
	halting sync.Once
	halted  chan struct{}
	why     *problem.Problem // set before halted is closed
}

// guard sets a watchdog for one run. It ends with stop.
func (w *worker) guard(ctx context.Context) *watchdog {
	d := &watchdog{w: w, halt: make(chan struct{}), halted: make(chan struct{})}
	d.birth = time.Now().Add(-1) //nolint:forbidigo // a stopwatch, not a date
	go d.watch(ctx)
	return d
}

func (d *watchdog) now() int64 { return int64(time.Since(d.birth)) } //nolint:forbidigo // a stopwatch, not a date

// began and ended are around each wait for the worker: only these count against its time.
func (d *watchdog) began() { d.since.Store(d.now()) }

func (d *watchdog) ended() { d.used.Add(d.now() - d.since.Swap(0)) }

// spent is how much of its time the worker has used.
func (d *watchdog) spent() time.Duration {
	spent := d.used.Load()
	if since := d.since.Load(); since != 0 {
		spent += d.now() - since
	}
	return time.Duration(spent)
}

// stop ends the watch and returns why the worker was ended, nil if it was not.
func (d *watchdog) stop() *problem.Problem {
	d.halting.Do(func() { close(d.halt) })
	<-d.halted
	return d.why
}

func (d *watchdog) watch(ctx context.Context) {
	defer close(d.halted)
	if d.why = d.wait(ctx); d.why != nil {
		d.w.kill()
	}
}

// wait returns the reason to end the worker, nil when the watch is over.
func (d *watchdog) wait(ctx context.Context) *problem.Problem {
	limits, pid := d.w.limits, d.w.cmd.Process.Pid
	look := min(limits.stall()/4, 250*time.Millisecond)
	beats, used := d.w.shared.beats.Load(), cpuTime(pid)
	timer := time.NewTimer(min(look, limits.Time))
	defer timer.Stop()
	for {
		select {
		case <-d.halt:
			return nil
		case <-ctx.Done():
			return fail(ctx, problem.Wrap(problem.Interrupted, ctx.Err(), "the evaluation was cut short"))
		case <-timer.C:
		}
		left := limits.Time - d.spent()
		if left <= 0 {
			return overTime(limits.Time)
		}
		// CPU time, not the clock: a worker that a busy machine keeps waiting is not stuck.
		if n := d.w.shared.beats.Load(); n != beats {
			beats, used = n, cpuTime(pid)
		} else if cpuTime(pid)-used > limits.stall() {
			return overStall(limits)
		}
		timer.Reset(min(look, left))
	}
}
