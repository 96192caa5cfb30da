package cli

import "github.com/seed1de3961f/runbook/cmd/runbook/demo"

// serveInternal runs the commands that only this program itself starts, as a child. They come before everything else: a
// worker has to be ready within milliseconds, and none of them may read flags or the environment.
func serveInternal(args []string, stdio Stdio) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch args[0] {
	case demo.ServiceCommand:
		return demo.ServiceMain(args[1:], stdio.Out, stdio.Err), true
	}
	return 0, false
}
