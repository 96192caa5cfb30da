package cli

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// A plugin that lives for longer than most takes all the processors that it may. It is not parallel: they are those of the whole process.
func TestPluginTakesTheProcessors(t *testing.T) {
	percent := debug.SetGCPercent(gcPercent)
	procs := runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	})
	runtime.SetDefaultGOMAXPROCS()
	all := runtime.GOMAXPROCS(1)
	var out, errs bytes.Buffer
	stdio := Stdio{Out: &out, Err: &errs, Env: func(string) (string, bool) { return "", false }}
	if _, ok := serveInternal([]string{"plugin", "serve", "exec"}, stdio); !ok {
		t.Fatal("it was not served")
	}
	late := time.After(10 * time.Second)
	for look := time.NewTicker(time.Millisecond); runtime.GOMAXPROCS(0) != all; {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("it uses %d processors, want %d", runtime.GOMAXPROCS(0), all)
		}
	}
}
