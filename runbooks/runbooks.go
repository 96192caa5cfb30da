// Package runbooks holds the runbooks that come with the program: to be used, and to be learnt from.
package runbooks

import "embed"

// Files are the runbooks, <topic>/<name>.star.
//
//go:embed */*.star
var Files embed.FS
