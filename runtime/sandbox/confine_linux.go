package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"time"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/runtime/sandbox/wire"
)

const (
	arena   = 64 << 20 // heapArenaBytes of the Go runtime on 64-bit Linux
	besides = 32 << 20 // for stacks and what the runtime keeps about its heap
	rounded = 16 << 20 // of a heap, for what the program itself has in it and for sizes that do not fit each other
)

// iscgo says that the C library is linked in and makes the threads.
//
//go:linkname iscgo runtime.iscgo
var iscgo bool

// confineProcess takes from the process all that a script must not have. What cannot be set is an error.
func confineProcess(h wire.Hello) (*page, error) {
	mem, err := unix.Mmap(fdPage, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the page: %w", err)
	}
	if err := unix.Close(fdPage); err != nil {
		return nil, fmt.Errorf("close the page: %w", err)
	}
	now, err := sizeNow() // also makes the runtime open its poller, before RLIMIT_NOFILE forbids it
	if err != nil {
		return nil, err
	}
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	// RLIMIT_DATA counts what can be written, but Linux does not ask it where writable memory takes the place of what was reserved
	// (see mmap_region in mm/vma.c), as a heap does that grows: one string could take a gigabyte. RLIMIT_AS counts what is reserved.
	// Go and big integers reserve gigabytes that they never touch, but they do so before this. The C library reserves for each thread
	// what it likes, whenever it likes: where it is linked in, which it is not in what make builds, RLIMIT_DATA must do.
	more := arenas(h.Memory) + besides
	limits := []limit{
		{"RLIMIT_DATA", unix.RLIMIT_DATA, now.data + more},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, 0},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, 0},
	}
	if !iscgo {
		limits = append(limits, limit{"RLIMIT_AS", unix.RLIMIT_AS, now.reserved + more})
	}
	for _, l := range limits {
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

type limit struct {
	name  string
	which int
	max   uint64
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
	l := unix.Rlimit{Cur: uint64((used + 4*time.Duration(h.Time) + 5*time.Second) / time.Second), Max: unix.RLIM_INFINITY}
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

// arenas is what the heap must reserve so that a script can have its memory. Go takes whole arenas and begins somewhere in one: what is
// left of that counts.
func arenas(memory int64) uint64 {
	left := arena - uint64(reflect.ValueOf(new([64 << 10]byte)).Pointer())%arena
	want := uint64(memory) + rounded
	return (max(want, left) - left + arena - 1) / arena * arena
}

// sizes are what the limits of memory count, in bytes.
type sizes struct{ reserved, data uint64 }

func sizeNow() (sizes, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return sizes{}, fmt.Errorf("size of the process: %w", err)
	}
	var pages sizes
	var skip uint64
	if _, err := fmt.Sscan(string(text), &pages.reserved, &skip, &skip, &skip, &skip, &pages.data); err != nil {
		return sizes{}, fmt.Errorf("size of the process: /proc/self/statm is not understood: %w", err)
	}
	page := uint64(os.Getpagesize())
	return sizes{reserved: pages.reserved * page, data: pages.data * page}, nil
}
