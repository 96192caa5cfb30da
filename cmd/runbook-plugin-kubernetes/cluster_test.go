//go:build !kubernetes

package main

import "testing"

// startCluster is there with -tags kubernetes; without, what was exchanged with a real cluster is played again.
var startCluster func(t *testing.T) (url, admin, user string)
