package sdk

import (
	"net"
	"syscall"
)

// fromPID asks the kernel who connected. A socket that is not a Unix one is refused: there is no telling.
func fromPID(c net.Conn, pid int) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *syscall.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return ctlErr == nil && err == nil && int(cred.Pid) == pid
}
