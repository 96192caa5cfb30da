//go:build !linux

package pluginhost

import "io/fs"

// statIdentity: size and time are all that is compared here.
func statIdentity(fs.FileInfo) string { return "" }
