// Package boot makes a process that was started as a worker one, before the packages that a worker does not need are
// initialised: packages are initialised in the order of their paths as soon as what they import is, and the store, gRPC and
// the metrics' clients come later than this. It saves more than half of a worker's start.
//
// It is imported for that effect, by the program and by nothing else.
package boot

import (
	"os"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

func init() {
	if len(os.Args) == 2 && os.Args[1] == sandbox.WorkerCommand {
		os.Exit(sandbox.ServeWorker()) //nolint:forbidigo // it is the whole of this process
	}
}
