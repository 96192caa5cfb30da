//go:build !linux

package spare

import "errors"

// Elsewhere than on Linux such a process would outlive a parent that is killed.
func start() (*Spare, error) { return nil, errors.ErrUnsupported }

// End is never called.
func (s *Spare) End() {}
