package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

const (
	arena   = 64 << 20 // heapArenaBytes of the Go runtime on 64-bit Linux
	besides = 32 << 20 // for stacks and what the runtime keeps about its heap
)

// confineProcess takes from the process all that a script must not have. What cannot be set is an error.
func confineProcess(h wire.Hello) (*page, error) {
	mem, err := unix.Mmap(fdPage, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the page: %w", err)
	}
	if err := unix.Close(fdPage); err != nil {
		return nil, fmt.Errorf("close the page: %w", err)
	}
	now, err := dataSize() // also makes the runtime open its poller, before RLIMIT_NOFILE forbids it
	if err != nil {
		return nil, err
	}
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	// RLIMIT_AS would be of no use: Go and big integers reserve gigabytes that they never touch. The limit of data counts what
	// can be written, touched or not. Go takes its heap in arenas: there is one already, mostly empty, and those for the memory
	// of the script come in whole ones. Together with the program itself that is less than 256 MiB where the limit is 128 MiB.
	data := now + (uint64(h.Memory)+arena-1)/arena*arena + besides
	for _, l := range []struct {
		name  string
		which int
		max   uint64
	}{
		{"RLIMIT_DATA", unix.RLIMIT_DATA, data},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, 0},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, 0},
	} {
		if err := setLimit(l.which, l.max); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
	}
	p := newPage(mem)
	// The Go runtime ignores SIGXCPU unless it is asked for.
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() {
		<-over
		p.cause(causeTime)
		quit(exitLimit)
	}()
	return p, setCPU(h)
}

// setLimit lowers a limit for good and looks whether it took.
func setLimit(which int, most uint64) error {
	want := unix.Rlimit{Cur: most, Max: most}
	if err := unix.Setrlimit(which, &want); err != nil {
		return err
	}
	var is unix.Rlimit
	if err := unix.Getrlimit(which, &is); err != nil {
		return err
	}
	if is != want {
		return errors.New("the limit did not take")
	}
	return nil
}

// setCPU allows what was used so far, the time of one evaluation and a little. It is the last resort: the engine kills
// by the clock before.
func setCPU(h wire.Hello) error {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return fmt.Errorf("RLIMIT_CPU: %w", err)
	}
	used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	// Several threads use CPU at once: collecting garbage counts too.
	l := unix.Rlimit{Cur: uint64((used + 4*h.Time + 5*time.Second) / time.Second), Max: unix.RLIM_INFINITY}
	var is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &is); err == nil {
		l.Max = is.Max
		l.Cur = min(l.Cur, is.Max)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &l); err != nil {
		return fmt.Errorf("RLIMIT_CPU: %w", err)
	}
	return nil
}

func renewTime(h wire.Hello) { _ = setCPU(h) } // the old, stricter limit stays if this fails

// dataSize is what RLIMIT_DATA counts, as it is now.
func dataSize() (uint64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("size of the process: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 6 {
		return 0, errors.New("size of the process: /proc/self/statm is not understood")
	}
	pages, err := strconv.ParseUint(fields[5], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
