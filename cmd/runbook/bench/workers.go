package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// workers measures a worker from its start to its being ready, against the same binary that prints its version.
func workers(ctx context.Context, exe, root string, rounds int) error {
	var ready, version []time.Duration
	for range rounds {
		began := time.Now()
		w, err := sandbox.Spawner{Exe: exe}.Start(ctx)
		if err != nil {
			return err
		}
		ready = append(ready, time.Since(began))
		w.Close()
		began = time.Now()
		if err := exec.CommandContext(ctx, exe, "--version").Run(); err != nil {
			return err
		}
		version = append(version, time.Since(began))
	}
	fmt.Printf("%s\n\n| what | median | times as long (goal: at most 1.5) |\n|---|---|---|\n", machine(root))
	fmt.Printf("| `runbook --version` | %s | 1 |\n", ms(at(version, 50)))
	fmt.Printf("| a worker until it is ready | %s | %.2f |\n", ms(at(ready, 50)), float64(at(ready, 50))/float64(at(version, 50)))
	fmt.Printf("\n%d interleaved runs of each.\n", rounds)
	return nil
}
