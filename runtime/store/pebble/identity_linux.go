package pebble

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// fileID names a file on the disk, beyond its path.
type fileID struct {
	major, minor uint32
	inode        uint64
}

// identify asks for nothing but the identity. A kernel with fine-grained timestamps (6.13) that was asked for a file's times gives each later write a time
// of its own, and the next sync, of another file even, then waits for the journal: it takes half as long again.
func identify(path string) (fileID, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fileID{}, &fs.PathError{Op: "statx", Path: path, Err: err}
		}
		return fileID{st.Dev_major, st.Dev_minor, st.Ino}, nil
	}
}

func (a fileID) same(b fileID) bool { return a == b }
