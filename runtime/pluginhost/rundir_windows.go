package pluginhost

import (
	"os"
	"path/filepath"
)

// lockFile and lockDir rely on a file that is open not being removable here.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func lockDir(path string) (*os.File, error) { return lockFile(filepath.Join(path, "lock")) }

// private: plugins talk over TCP here, and the directory holds nothing.
func private(string) error { return nil }
