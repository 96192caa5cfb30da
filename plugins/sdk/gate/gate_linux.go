package gate

import (
	"errors"
	"strconv"
	"syscall"
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
	order, err := readAll(Leave)
	if err != nil {
		return err
	}
	argv, env, ok := parse(order)
	if !ok {
		return errors.New("no leave was given")
	}
	// The command ends when the plugin ends. That was asked for when this process was started, but it is a property of a
	// thread: the command inherits it from the one that becomes it.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setDeathSignal, uintptr(syscall.SIGKILL), 0); errno != 0 {
		return errors.New("tie the command to the plugin: " + errno.Error())
	}
	if syscall.Getppid() != parent {
		return errors.New("the plugin has ended")
	}
	return syscall.Exec(argv[0], argv, env)
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
