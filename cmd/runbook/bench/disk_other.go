//go:build !linux

package main

import (
	"errors"
	"os"
)

func fdatasync(f *os.File) error { return f.Sync() }

func holdStore(string) error { return errors.New("the store can only be held on Linux") }

func mountSmall(string) (func(), error) { return nil, errors.ErrUnsupported }

// flush does nothing: there is no such call everywhere.
func flush() {}
