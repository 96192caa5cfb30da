//go:build !unix || solaris || aix || illumos

package pebble

import (
	"errors"
	"fmt"
	"os"
)

const (
	lockShared = iota
	lockExclusive
	lockInTurn
	lockNone
)

// flock does not exist here, and a store without a lock must not be used.
func flock(*os.File, int) error {
	return fmt.Errorf("file locks on this platform: %w", errors.ErrUnsupported)
}
