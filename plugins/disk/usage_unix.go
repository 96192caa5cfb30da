//go:build unix

package disk

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// statfs reads what a file system has, in bytes and inodes. used and free are as df has them: free is what users without privileges can use.
func statfs(path string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	block := int64(st.Bsize) //nolint:unconvert,nolintlint // of another type elsewhere
	s := space{
		Size: int64(st.Blocks) * block, Used: int64(st.Blocks-st.Bfree) * block, Free: int64(st.Bavail) * block, //nolint:gosec,unconvert,nolintlint // sizes of real disks
		Inodes: int64(st.Files), InodesFree: int64(st.Ffree), //nolint:gosec,unconvert,nolintlint // as above
	}
	return s.withShares(), nil
}

// place is which file a file is, on which file system, and what it takes there.
func place(i fs.FileInfo) (id fileID, taken int64) {
	st, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, i.Size()
	}
	return fileID{uint64(st.Dev), st.Ino}, st.Blocks * 512 //nolint:gosec,unconvert,nolintlint // of other types elsewhere
}
