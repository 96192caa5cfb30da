package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc/thread"
)

// Weak says that this system has no limits that hold whatever a script does: no action may be taken.
const Weak = false

// ownExecutable names this very binary, also if its file has been replaced or removed.
func ownExecutable() (string, error) { return "/proc/self/exe", nil }

func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// patience lets the timers of what this thread starts be late. The worker looks at its heap every millisecond then, or every other one; what
// grows faster than that meets RLIMIT_DATA.
func patience() { thread.Patient(true) }

func onMainThread() bool { return unix.Gettid() == os.Getpid() }

// noNewPrivileges keeps what this thread starts from gaining privileges by executing a file. All threads of the worker inherit it, which
// the worker could not do for itself where the C library is linked in.
func noNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// kill ends the process and all that it may have started.
func kill(p *os.Process) {
	_ = unix.Kill(-p.Pid, unix.SIGKILL)
	_ = p.Kill()
}

// cpuTime is the time for which all threads of a process have computed. What the kernel did for them does not count: all it does for a
// worker is to find memory, which has a limit of its own, and where the memory of a machine is slow to come that takes any time. It is read
// from where the kernel holds it against the time for which the process really ran: a clock of the process counts ticks, of which a busy host
// takes half.
func cpuTime(pid int) time.Duration {
	const userTime = 11                // the 14th field of proc_pid_stat(5), of which two end with the name
	const tick = 10 * time.Millisecond // USER_HZ
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it has ended: the pipe says so
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= userTime {
		return 0
	}
	n, err := strconv.ParseInt(fields[userTime], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * tick
}

// sharedPage is the engine's side of a page.
type sharedPage struct {
	*page
	mem  []byte
	file *os.File
}

// newSharedPage makes a page that the worker cannot resize: reading beyond the end of a file that has shrunk would
// kill the engine.
func newSharedPage() (*sharedPage, error) {
	fd, err := unix.MemfdCreate("runbook-page", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "page")
	if err := f.Truncate(pageSize); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &sharedPage{page: newPage(mem), mem: mem, file: f}, nil
}

func (p *sharedPage) files() []*os.File { return []*os.File{p.file} }

func (p *sharedPage) release() {
	_ = unix.Munmap(p.mem)
	_ = p.file.Close()
}

// blockingPipe is a pipe whose reader waits in the kernel, and not in the runtime's poller: a call of a worker is answered the sooner.
func blockingPipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(p[0]), "out"), os.NewFile(uintptr(p[1]), "out"), nil
}
