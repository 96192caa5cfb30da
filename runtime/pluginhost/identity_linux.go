package pluginhost

import (
	"fmt"
	"io/fs"
	"syscall"
)

// statIdentity moves with every change of a file, also one that keeps its size and time: ctime cannot be set back.
func statIdentity(st fs.FileInfo) string {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d %d %d.%09d", s.Dev, s.Ino, s.Ctim.Sec, s.Ctim.Nsec)
}
