// Package boot prepares a run, which lives for a moment and asks a plugin whatever else it does, long before main: it starts a spare process, because that is
// all the time that is won, and lets what looks after its threads do so less often.
//
// It is imported for that effect, by the program and by nothing else.
package boot

import (
	"os"

	"github.com/seed1de3961f/runbook/plugins/sdk/proc/thread"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		spare.Ahead()
		thread.PatientMonitor()
	}
}
