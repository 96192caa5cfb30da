package cli

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/seed1de3961f/runbook/cmd/runbook/demo"
	"github.com/seed1de3961f/runbook/plugins"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	"github.com/seed1de3961f/runbook/runtime/pluginhost/spare"
	"github.com/seed1de3961f/runbook/runtime/sandbox"
)

// serveInternal runs the commands that only this program itself starts, as a child. They come before everything else: a
// worker has to be ready within milliseconds, and none of them may read flags or the environment.
func serveInternal(args []string, stdio Stdio) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch {
	case args[0] == sandbox.WorkerCommand:
		return sandbox.ServeWorker(), true
	case args[0] == demo.ServiceCommand:
		return demo.ServiceMain(args[1:], stdio.Out, stdio.Err), true
	case args[0] == spare.Command:
		name, err := spare.Await(os.Stdin)
		if err != nil {
			return int(problem.ExitOK), true // nobody needs it
		}
		return servePlugin(name, stdio), true
	case len(args) == 3 && args[0] == "plugin" && args[1] == "serve":
		return servePlugin(args[2], stdio), true
	}
	return 0, false
}

// settledIn is when a plugin takes all the processors that it may. Most have ended by then.
const settledIn = 100 * time.Millisecond

// servePlugin makes this process a bundled plugin. Its host reads what it says on stderr.
func servePlugin(name string, stdio Stdio) int {
	ctx := context.Background()
	debug.SetGCPercent(gcPercent)
	time.AfterFunc(settledIn, runtime.SetDefaultGOMAXPROCS) // the host starts it with one processor
	p, ok := plugins.Lookup(name)
	if !ok {
		var names []string
		for _, p := range plugins.All() {
			names = append(names, p.Name)
		}
		err := problem.New(problem.PluginMissing, "there is no bundled plugin %q%s", name, problem.DidYouMean(name, names))
		newUI(stdio).report(ctx, err)
		return int(exitCode(ctx, err))
	}
	if err := p.Serve(ctx); err != nil {
		failed := problem.Wrap(problem.PluginFailed, err, "plugin %s", name)
		newUI(stdio).report(ctx, failed)
		return int(exitCode(ctx, failed))
	}
	return int(problem.ExitOK)
}
