//go:build !linux

package pebble

import "os"

// fileID names a file on the disk, beyond its path.
type fileID struct{ info os.FileInfo }

func identify(path string) (fileID, error) {
	info, err := os.Stat(path)
	return fileID{info}, err
}

func (a fileID) same(b fileID) bool { return os.SameFile(a.info, b.info) }
