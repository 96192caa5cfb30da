//go:build !linux

package sdk

import "syscall"

// asUser is not there: FindUser finds nobody else, because what gives up a user's rights is tested on Linux only.
func asUser(*User) *syscall.SysProcAttr { return nil }
