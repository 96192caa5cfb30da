// Package thread starts processes on operating system threads of their own, for as long as they live.
//
// A signal at the parent's death (Pdeathsig) comes when the starting thread ends, not the process; and what is set on a thread, no_new_privs and a
// confinement, passes to the processes that it starts and to nothing else.
//
// It imports next to nothing, so that a process can be started before most packages are initialised.
package thread

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// Start runs start on a thread that ends when the process of the number that start returns has ended, and returns what it returned. The channel is
// closed when the process has ended; until it is waited for its number is not given to another.
func Start(start func() (pid int, err error)) (exited <-chan struct{}, err error) {
	started, end := make(chan error, 1), make(chan struct{})
	own(func() {
		pid, err := start()
		started <- err
		if err != nil {
			return
		}
		waitExit(pid)
		close(end)
	})
	return end, <-started
}

// NoNewPrivs keeps the processes that this thread starts from gaining privileges by executing a file (setuid, sudo).
func NoNewPrivs() error {
	const setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS of prctl(2)
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// How late a timer may be, in nanoseconds.
const (
	usual   = 50_000 // what Linux gives a process that nobody has said anything else of
	patient = 1_000_000
)

// Patient lets the timers of this thread, and of the processes that it starts, be late by up to a millisecond, and otherwise by what is usual. In every
// process of Go a thread looks after the others, in its first milliseconds after pauses of 20 microseconds; of a process that lives for 30 milliseconds and waits
// for most of them that is a tenth of the time that it computes.
func Patient(yes bool) {
	const setTimerSlack = 29 // PR_SET_TIMERSLACK of prctl(2)
	slack := uintptr(usual)
	if yes {
		slack = patient
	}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, setTimerSlack, slack, 0, 0, 0, 0) // it cannot fail, and costs time at worst
}

// PatientMonitor is Patient for that one thread of this process, the first that it has started. The kernel allows it to root.
func PatientMonitor() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	monitor := 0
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil && tid != os.Getpid() && (monitor == 0 || tid < monitor) {
			monitor = tid
		}
	}
	fd, err := syscall.Open("/proc/"+strconv.Itoa(monitor)+"/timerslack_ns", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = syscall.Write(fd, strconv.AppendInt(nil, patient, 10))
	_ = syscall.Close(fd)
}

// own runs fn on a thread that ends with it and is not the main thread: a main thread cannot end, and what is set on
// it would be seen as the whole process's.
func own(fn func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() != syscall.Getpid() {
			fn() // never unlocked, so the thread ends here
			return
		}
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			fn()
		}()
		<-elsewhere // as long as this goroutine holds the main thread, the other one cannot get it
		runtime.UnlockOSThread()
	}()
}

// waitExit waits until pid has ended and leaves it to be reaped.
func waitExit(pid int) {
	const byPID, exited, leave = 1, 0x4, 0x1000000 // P_PID, WEXITED and WNOWAIT of waitid(2)
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), 0, exited|leave, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
