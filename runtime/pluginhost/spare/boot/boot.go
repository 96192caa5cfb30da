// Package boot starts a spare process as soon as this one is a run, which asks a plugin whatever else it does: long before main, because that is
// all the time that is won.
//
// It is imported for that effect, by the program and by nothing else.
package boot

import (
	"os"

	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		spare.Ahead()
	}
}
