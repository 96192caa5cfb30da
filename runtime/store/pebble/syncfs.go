package pebble

import (
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncFS corrects four things in how Pebble uses a file system.
//
// Pebble moves from one MANIFEST to the next by creating a file marker.manifest.* that names it, without having synced the
// directory that the new MANIFEST is in. A power cut may keep the marker and lose the MANIFEST. So the directory is synced
// before a marker is made.
//
// A read-only Pebble takes its lock by creating a file, which fails on a file system mounted read-only, which is when a
// person most wants to look. The flock of this package protects readers as well.
//
// A log grows with every commit, so that each waits for the file system's own journal besides its data: see ahead.
//
// When a directory cannot be synced after such a move, Pebble panics in a thread of its own: a person would read a stack. The process has
// to end, and says why.
type syncFS struct {
	vfs.FS
	fatal    func(reason string) // does not return
	readOnly bool
	without  mutant
}

// Create implements vfs.FS.
func (s syncFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(s.PathBase(name), "marker.") && s.without != noParentSync {
		if err := syncDir(s.FS, s.PathDir(name)); err != nil {
			return nil, err
		}
	}
	f, err := s.FS.Create(name, category)
	if err == nil && strings.HasSuffix(name, ".log") {
		return &ahead{File: f}, nil
	}
	return f, err
}

// OpenDir implements vfs.FS.
func (s syncFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return directory{f, name, s.fatal}, nil
}

// directory is one that can be synced, or the process ends.
type directory struct {
	vfs.File
	name  string
	fatal func(reason string)
}

// Sync implements vfs.File.
func (d directory) Sync() error {
	err := d.File.Sync()
	if err != nil && d.fatal != nil {
		d.fatal(fmt.Sprintf("sync directory %s: %v", d.name, err))
	}
	return err
}

// Lock implements vfs.FS.
func (s syncFS) Lock(name string) (io.Closer, error) {
	if s.readOnly {
		return io.NopCloser(nil), nil
	}
	return s.FS.Lock(name)
}

// Unwrap implements vfs.FS.
func (s syncFS) Unwrap() vfs.FS { return s.FS }
