//go:build unix && !solaris && !aix && !illumos

package pebble

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	lockShared    = unix.LOCK_SH | unix.LOCK_NB
	lockExclusive = unix.LOCK_EX | unix.LOCK_NB
	lockInTurn    = unix.LOCK_EX // exclusive, and waits for it
	lockNone      = unix.LOCK_UN
)

// flock answers errHeld instead of blocking, except for lockInTurn.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		}
		return err
	}
}
