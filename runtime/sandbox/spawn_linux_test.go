package sandbox_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// Waiting for memory is no computing: a worker whose memory comes slowly is not stuck. One that computes is found out.
func TestCPUTime(t *testing.T) { // not parallel: what is measured is of the whole process
	const enough = 400 * time.Millisecond
	usage := func() (user, system time.Duration) {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
	}
	counted := func(until func() bool, work func()) time.Duration {
		before := sandbox.CPUTime(os.Getpid())
		for !until() {
			work()
		}
		return sandbox.CPUTime(os.Getpid()) - before
	}

	_, began := usage()
	memory := counted(func() bool { _, now := usage(); return now-began > enough }, func() {
		page, err := syscall.Mmap(-1, 0, 16<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Munmap(page); err != nil {
			t.Fatal(err)
		}
	})
	if memory > enough/2 {
		t.Errorf("%s of waiting for memory counted as %s of computing", enough, memory)
	}

	began, _ = usage()
	computing := counted(func() bool { now, _ := usage(); return now-began > enough }, func() {
		for i, x := 0, uint64(1); i < 1_000_000; i++ {
			x = x*6364136223846793005 + 1442695040888963407
		}
	})
	if computing < enough/2 {
		t.Errorf("%s of computing counted as %s", enough, computing)
	}
}
