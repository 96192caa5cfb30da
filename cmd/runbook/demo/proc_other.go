//go:build !linux

package demo

import "syscall"

// tied has nothing to offer here: a child ends when its standard input does, unless it is stopped.
func tied() *syscall.SysProcAttr { return nil }
