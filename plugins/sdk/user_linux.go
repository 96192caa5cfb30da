package sdk

import "syscall"

// asUser are the attributes of a process that runs as u.
func asUser(u *User) *syscall.SysProcAttr {
	if u == nil {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}}
}
