package gate

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"
)

// Of prctl(2); golang.org/x/sys would be one more package to wait for.
const setDeathSignal = 1 // PR_SET_PDEATHSIG

func init() {
	// A variable that somebody exported, or that a grandchild inherited, names another parent and means nothing.
	if v, ok := syscall.Getenv(Env); !ok || v != strconv.Itoa(syscall.Getppid()) {
		return
	}
	err := become()
	_, _ = syscall.Write(Report, []byte(err.Error()))
	_, _ = syscall.Write(syscall.Stderr, []byte("gate: "+err.Error()+"\n"))
	syscall.Exit(1)
}

// become waits for leave and becomes the command. It returns only if it may not or cannot. It runs on the main thread, as
// all initialisation does.
func become() error {
	parent := syscall.Getppid()
	syscall.CloseOnExec(Leave)
	syscall.CloseOnExec(Report)
	text, err := readAll(Leave)
	if err != nil {
		return err
	}
	o, ok := parse(text)
	if !ok {
		return errors.New("no leave was given")
	}
	if err := be(o.ids); err != nil {
		return err
	}
	// The command ends when the plugin ends. That was asked for when this process was started, but it is a property of a
	// thread: the command inherits it from the one that becomes it. And whoever becomes another user loses it, so it comes after that.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setDeathSignal, uintptr(syscall.SIGKILL), 0); errno != 0 {
		return errors.New("tie the command to the plugin: " + errno.Error())
	}
	if syscall.Getppid() != parent {
		return errors.New("the plugin has ended")
	}
	return syscall.Exec(o.argv[0], o.argv, o.env)
}

// be makes this thread, which is the one that becomes the command, that of another user, for good.
func be(ids []uint32) error {
	if len(ids) == 0 {
		return nil
	}
	uid, gid, groups := uintptr(ids[0]), uintptr(ids[1]), ids[2:]
	if len(groups) == 0 {
		groups = ids[1:2] // the list is never empty, so that it has an address
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errors.New("set the groups of the user: " + errno.Error())
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return errors.New("set the group of the user: " + errno.Error())
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return errors.New("become the user: " + errno.Error())
	}
	return nil
}

func readAll(fd int) ([]byte, error) {
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := syscall.Read(fd, buf)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return all, nil
		default:
			all = append(all, buf[:n]...)
		}
	}
}
