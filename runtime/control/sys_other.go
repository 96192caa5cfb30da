//go:build !linux

package control

import (
	"errors"
	"io/fs"
	"os"
)

const noFollow = 0

// Without flock the gate cannot hold anything back, so nothing may act; check, test and dry runs need no gate.
func tryLock(*os.File, bool) (bool, error) {
	return false, errors.New("the emergency stop needs Linux: no action is carried out on this system")
}

func unlock(f *os.File) { _ = f.Close() }

func networkFileSystem(string) (string, error) { return "", nil }

func inMemory(string) bool { return false }

func writable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func ownedBy(_, _ fs.FileInfo) bool { return true }

func adopt(string, fs.FileInfo) error { return nil }

// A directory cannot be synced on every system.
func syncDirectory(*os.File) error { return nil }

func startOf(int) uint64 { return 0 }

func terminal() string { return "" }

func loginUID() int { return -1 }
