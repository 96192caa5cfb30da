package demo

import "syscall"

// tied makes a child that leads a group of its own, so that Ctrl-C reaches its parent alone, and that the kernel ends with
// the thread that started it.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
