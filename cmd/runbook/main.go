// Command runbook runs standard operating procedures safely.
package main

import (
	"os"
	"runtime"
	_ "time/tzdata" // maintenance windows have time zones, and small machines have no list of them

	"github.com/seed1de3961f/runbook/cmd/runbook/cli"
	_ "github.com/seed1de3961f/runbook/runtime/pluginhost/spare/boot" // before all else: see there
	_ "github.com/seed1de3961f/runbook/runtime/sandbox/boot"          // and there
)

// The main thread is kept out of everything: a child that asks for a signal at its parent's death gets it when the thread
// dies that started it, and limits put on a spawning thread would otherwise reach the thread that stands for the process.
func init() { runtime.LockOSThread() }

func main() {
	code := make(chan int)
	go func() { code <- cli.Main(os.Args[1:], cli.System()) }()
	os.Exit(<-code)
}
