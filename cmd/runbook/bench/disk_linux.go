package main

import (
	"os"
	"path/filepath"
	"syscall"
)

func fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// holdStore takes the store's lock for as long as this process lives.
func holdStore(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "store.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
}

// mountSmall makes dir a file system of its own, of 32 MiB and 500 inodes.
func mountSmall(dir string) (unmount func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m,nr_inodes=500"); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	return func() { _ = syscall.Unmount(dir, 0) }, nil
}

// flush waits until what was written is on the disk.
func flush() { syscall.Sync() }
