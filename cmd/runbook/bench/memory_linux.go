package main

import (
	"os"
	"syscall"
)

// memoryOf is the most memory that a process which has ended had, in KiB; 0 if it is not known.
func memoryOf(p *os.ProcessState) int64 {
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss
	}
	return 0
}
