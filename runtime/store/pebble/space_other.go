//go:build !linux

package pebble

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskSpace knows only the free bytes here: inodes and network file systems are not recognised.
func diskSpace(dir string) (Space, error) {
	u, err := vfs.Default.GetDiskUsage(dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return Space{Bytes: 1 << 40}, nil
	}
	return Space{Bytes: u.AvailBytes}, err
}
